"""The plugin keeps what every plugin promises."""

import pytest
from reidcore.testing import iter_checks


@pytest.mark.parametrize("check", iter_checks("PLUGIN"), ids=str)
def test_conformance(check):
    """Each check of the kit. The first draws some pictures into REID_CACHE or ~/.cache/reidcore."""
    check()
