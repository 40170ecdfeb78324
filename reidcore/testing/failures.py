"""The error that the conformance kit raises."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """Promises that a plugin does not keep; `failures` has one text for each failed check."""

    def __init__(self, *failures: str):
        self.failures = failures
        super().__init__("\n".join(failures))
