"""The built-in plugin keeps what every plugin promises."""

import pytest

from reidcore.testing import iter_checks


@pytest.mark.parametrize("check", iter_checks("core"), ids=str)
def test_conformance(check, tmp_path_factory, monkeypatch):
    """Each check of the kit, with the demo drawn into a folder of this session."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    check()
