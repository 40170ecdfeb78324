"""The error that the conformance kit raises, and what it raises where a check cannot be made."""

from __future__ import annotations

from unittest import SkipTest


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


class NotChecked(SkipTest):
    """Raised where a check cannot be made, or would only repeat what another check says.

    pytest and unittest take it for a test that is skipped.

    Example:
        >>> from reidcore.testing import NotChecked
        >>> str(NotChecked("the data are not at /data/market"))
        'the data are not at /data/market'
    """
