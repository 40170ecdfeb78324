"""The built-in plugin keeps what every plugin promises."""

import pytest

from reidcore.testing import iter_checks


@pytest.mark.parametrize("check", iter_checks("core"), ids=str)
def test_conformance(check, session_cache):
    check()
