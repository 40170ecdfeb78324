"""The plugin keeps what every plugin promises."""

import pytest

from reidcore.testing import iter_checks


def marks(check) -> list:
    """Dry runs of the paper's networks, but not of the demo's, take minutes on a CPU together."""
    return [pytest.mark.slow] if "run file" in str(check) and "demo" not in str(check) else []


@pytest.mark.parametrize(
    "check", [pytest.param(one, id=str(one), marks=marks(one)) for one in iter_checks("msinet")]
)
def test_conformance(check, tmp_path_factory, monkeypatch):
    """Each check of the kit, with the demo drawn into a folder of this session."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    check()
