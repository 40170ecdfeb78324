"""Scales that were fitted under other settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import TINY

import reidcore
from reidcore.cli.main import main
from reidcore.errors import UsageError

RANKINGS = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "scaled"
matcher = "far"
scale = "SCALE"
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Runs of one epoch, named by the scale of their ranking."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("calibration")
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        for scale in ("logistic", "none"):
            Path("tiny.toml").write_text(TINY + RANKINGS.replace("SCALE", scale))
            assert main(["run", "tiny.toml", "--out", scale, "--set", "train.epochs=1"]) == 0
        yield folder


CHANGES = ["matcher.far.unit=views", 'eval.views=["plain","flip"]', "data.image=[48,24]"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scale", ["constant", "logistic", "isotonic"])
def test_a_stale_scale_is_refused(work, capsys, change, scale):
    """With both values and what to do; the distances themselves may be changed."""
    own = ["--set", f"ranking.scaled.scale={scale}"]
    assert main(["eval", "logistic", *own]) == 0
    capsys.readouterr()
    assert main(["eval", "logistic", *own, "--set", change]) == 2
    message = capsys.readouterr().err
    assert f"{change.partition('=')[0]} was " in message and "undo the change, train" in message
    assert main(["eval", "none", "--set", change]) == 0


def test_what_changes_no_distance_is_no_other_setting(work):
    """The same value again, another batch or another matcher's setting."""
    for change in ("matcher.far.unit=none", "eval.batch=3", "matcher.look.each=true"):
        assert main(["eval", "logistic", "--set", change]) == 0


def test_another_evaluation_is_looked_at(work, tmp_path):
    """`reid.load` and `reid eval RUN FILE` take other views from a file."""
    file = tmp_path / "other.toml"
    file.write_text('format = 1\n[eval]\nviews = ["flip"]\n')
    assert main(["eval", "logistic", str(file)]) == 2
    run = reidcore.load("logistic", evaluation=file)
    picture = next(iter(Path("cache").rglob("*.jpg")), None) or next(Path("cache").rglob("*.png"))
    with pytest.raises(UsageError, match=r"eval\.views was \['plain'\] and is \['flip'\]"):
        run.rank([picture], [picture])
