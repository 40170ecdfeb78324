"""The plugin keeps what every plugin promises."""

import pytest

from tests.conformance import conformance_checks


@pytest.mark.parametrize("check", conformance_checks("ipad"))
def test_conformance(check, session_cache):
    check()
