"""The plugin keeps what every plugin promises."""

import importlib.util

import pytest

from reidcore.testing import iter_checks

if importlib.util.find_spec("reid_release") is None:
    pytest.skip("needs `uv run --all-groups`", allow_module_level=True)


@pytest.mark.parametrize("check", iter_checks("release"), ids=str)
def test_conformance(check):
    """Each check of the kit."""
    check()
