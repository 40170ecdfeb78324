"""One trained run and its pictures for all tests of the gallery."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with the run `run` and drawn pictures."""
    pytest.importorskip("lance", reason="needs `uv run --all-groups`")
    from gallery_runs import draw, run_text

    from reidcore.cli.main import main

    folder = tmp_path_factory.mktemp("gallery")
    draw(folder)
    (folder / "tiny.toml").write_text(run_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(folder / "cache"))
        assert main(["run", str(folder / "tiny.toml"), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture(scope="session")
def trained(work):
    """The run, loaded."""
    import reidcore

    return reidcore.load(work / "run", device="cpu")
