"""Sample runs, of which most is given by default."""

from __future__ import annotations

import doctest
from pathlib import Path

import tomli

from reidcore.plugins import samples
from reidcore.plugins.samples import sample_run
from reidcore.runfiles.parse import parse_runfile


def test_the_example_is_true():
    assert doctest.testmod(samples).failed == 0


def test_every_default_can_be_replaced():
    """A table that is given stands alone, not mixed with the default's keys; an empty list leaves a
    table out; others are added."""
    plain = tomli.loads(sample_run())
    text = sample_run(
        data={"read": "core.demo", "pictures": 4},
        image=(32, 16),
        augment=[{"use": "core.flip"}],
        backbone={"use": "core.osnet"},
        matcher=[{"name": "a", "use": "core.cosine"}, {"name": "b", "use": "core.euclidean"}],
        loss=[],
        post={"name": "again", "use": "core.rerank", "k1": 4},
        train={"epochs": 2, "amp": True},
    )
    found = tomli.loads(text)
    assert found["data"] == {
        "train": {"read": "core.demo", "pictures": 4},
        "test": [{"read": "core.demo", "pictures": 4}],
        "image": [32, 16],
        "augment": [{"use": "core.flip"}],
        "batch": plain["data"]["batch"],
    }
    assert found["backbone"] == {"use": "core.osnet"}
    assert [matcher["name"] for matcher in found["matcher"]] == ["a", "b"]
    assert "loss" not in found
    assert found["post"] == [{"name": "again", "use": "core.rerank", "k1": 4}]
    assert found["train"] == {"epochs": 2, "amp": True}
    assert all(found[name] == plain[name] for name in ("format", "head", "optim"))


def test_the_defaults_are_a_run_file():
    run = parse_runfile(sample_run(), Path("sample.toml"))
    assert [part.use for part in run.parts] == [
        "core.resnet",
        "core.bnneck",
        "core.cosine",
        "core.softmax",
    ]
