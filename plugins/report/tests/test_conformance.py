"""The plugin keeps what every plugin promises."""

import pytest

from reidcore.testing import iter_checks


@pytest.mark.parametrize("check", iter_checks("report"), ids=str)
def test_conformance(check):
    """Each check of the kit."""
    check()
