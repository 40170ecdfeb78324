"""The conformance kit: what every plugin promises, as small named checks.

A plugin's `tests/test_conformance.py`:

    import pytest
    from reidcore.testing import iter_checks

    @pytest.mark.parametrize("check", iter_checks("qaconv"), ids=str)
    def test_conformance(check):
        check()

Without pytest, `check_plugin("qaconv")` runs everything and raises one error with all failures.

A check that cannot be made, because data are absent, or that would only repeat what another check
says, is skipped, and says why.
"""

from reidcore.testing.check import Check
from reidcore.testing.checks import check_plugin, iter_checks
from reidcore.testing.failures import ConformanceError, NotChecked

__all__ = ["Check", "ConformanceError", "NotChecked", "check_plugin", "iter_checks"]
