"""The error that the conformance kit raises."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """Raised where a plugin does not keep its promises.

    Attributes:
        failures: One text for each failed check.

    Example:
        >>> from reidcore.testing import ConformanceError
        >>> ConformanceError("the summary is missing", "the setting 'parts' has no doc").failures
        ('the summary is missing', "the setting 'parts' has no doc")
    """

    def __init__(self, *failures: str):
        self.failures = failures
        super().__init__("\n".join(failures))
