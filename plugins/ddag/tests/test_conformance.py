"""The plugin keeps what every plugin promises."""

import pytest

from reidcore.testing import iter_checks

SLOW = "run files run dry"
"""Sixteen networks of 40 million parameters, which take minutes on a CPU."""


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=str(check), marks=[pytest.mark.slow] * (SLOW in str(check)))
        for check in iter_checks("ddag")
    ],
)
def test_conformance(check, tmp_path_factory, monkeypatch):
    """Each check of the kit, with the demo drawn into a folder of this session."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    check()
