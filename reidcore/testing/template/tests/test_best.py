"""The command on run folders."""

import json
from argparse import ArgumentParser

import pytest
from reidcore.errors import UsageError

from reid_PLUGIN.best import add_arguments


def _best(*words):
    parser = ArgumentParser()
    run = add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def runs(tmp_path):
    """Two folders with scores as a run leaves them."""
    for name, value in (("a", 0.5), ("b", 0.625)):
        (tmp_path / name).mkdir()
        scores = {"demo": {"main": {"plain": {"mAP": value, "rank-1": 1 - value}}}}
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
    return tmp_path / "a", tmp_path / "b"


def test_the_best_is_printed(runs, capsys):
    """By mAP, or by the score that is asked for."""
    assert _best(*runs) == 0
    assert capsys.readouterr().out == f"{runs[1]} demo main plain: mAP 62.5 %\n"
    assert _best(*runs, "--metric", "rank-1") == 0
    assert capsys.readouterr().out == f"{runs[0]} demo main plain: rank-1 50.0 %\n"


def test_unknown_scores_are_refused(runs):
    """With the nearest that there is."""
    with pytest.raises(UsageError, match="no run has 'rank1', did you mean 'rank-1'"):
        _best(*runs, "--metric", "rank1")
