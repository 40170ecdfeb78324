"""Samplers and the demo reader of the core."""

from __future__ import annotations

import inspect
from collections import Counter

import attrs
import numpy as np
import pytest
import torch

from reidcore.api import BatchShape, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.readers.demo import Demo
from reidcore.builtin.samplers import build_identities, build_shuffled
from reidcore.errors import UsageError
from reidcore.modules import Context, Rows

CONTEXT = Context(Given((8, 8), identities=9), "batch")


def rows_of(pictures: list[int]) -> Rows:
    """Rows with pictures[k] pictures of identity k, in mixed order."""
    pid = np.repeat(np.arange(len(pictures)), pictures)
    np.random.default_rng(0).shuffle(pid)
    count = len(pid)
    none = np.zeros(count, dtype=np.int64)
    text = [str(i) for i in range(count)]
    return Rows(
        text, pid, none, none.astype(float), none, [str(k) for k in range(len(pictures))], text
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def identities(rows: Rows, ids: int, per_id: int, seed: int = 0) -> list[list[int]]:
    sampler = build_identities(settings.Identities(ids=ids, per_id=per_id), CONTEXT)
    return list(sampler.epoch(rows, generator(seed), None))


PICTURES = [1, 2, 3, 4, 5, 6, 9, 30, 40]


@pytest.mark.parametrize(("ids", "per_id"), [(2, 2), (4, 3), (9, 4), (5, 1)])
def test_every_batch_has_its_identities_and_pictures(ids, per_id):
    """Every batch has `ids` different identities with `per_id` pictures each, side by side."""
    rows = rows_of(PICTURES)
    for batch in identities(rows, ids, per_id):
        groups = rows.pid[batch].reshape(ids, per_id)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == ids


@pytest.mark.parametrize(("ids", "per_id"), [(2, 2), (4, 3), (9, 4), (5, 1), (7, 40)])
def test_identities_appear_evenly(ids, per_id):
    """An epoch covers every identity, their numbers of turns differ by at most one, and it has the
    documented number of batches."""
    rows = rows_of(PICTURES)
    batches = identities(rows, ids, per_id)
    turns = Counter(pid for batch in batches for pid in rows.pid[batch[::per_id]].tolist())
    assert set(turns) == set(range(len(PICTURES)))
    assert max(turns.values()) - min(turns.values()) <= 1
    assert len(batches) == max(-(-len(PICTURES) // ids), len(rows) // (ids * per_id))


def test_pictures_of_an_identity_appear_evenly_and_differ():
    """An identity with enough pictures gives different ones in a batch, and over an epoch each of
    them as often as the others, but for one."""
    rows = rows_of([5, 7, 60])
    batches = identities(rows, 2, 3)
    drawn = Counter(index for batch in batches for index in batch)
    for batch in batches:
        assert len(set(batch)) == len(batch)
    for pid in range(3):
        counts = [drawn[index] for index in np.flatnonzero(rows.pid == pid).tolist()]
        assert max(counts) - min(counts) <= 1


def test_few_pictures_are_all_used_before_any_is_repeated():
    """An identity with fewer pictures than a batch asks gives each of them at least once."""
    rows = rows_of([1, 2, 3])
    for batch in identities(rows, 3, 4):
        for pid, count in enumerate([1, 2, 3]):
            assert len({i for i in batch if rows.pid[i] == pid}) == count


def test_too_few_identities_are_refused():
    """Fewer identities than a batch needs are an error, in wiring and for the rows at hand."""
    with pytest.raises(
        UsageError, match="needs 4 identities, but the pictures to draw from have 3"
    ):
        identities(rows_of([3, 3, 3]), 4, 2)
    with pytest.raises(WiringError, match=r"asks for 10 .* have 9"):
        settings.Identities(ids=10, per_id=2).check(CONTEXT.given)
    settings.Identities(ids=9, per_id=2).check(CONTEXT.given)


@pytest.mark.parametrize("drop_last", [True, False])
def test_shuffled_gives_every_picture_once(drop_last):
    """An epoch has every picture at most once in full batches; only a dropped rest is missing."""
    rows = rows_of([10, 13])
    sampler = build_shuffled(settings.Shuffled(size=5, drop_last=drop_last), CONTEXT)
    batches = list(sampler.epoch(rows, generator(), None))
    assert [len(batch) for batch in batches] == [5] * 4 + [3] * (not drop_last)
    drawn = [index for batch in batches for index in batch]
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(23))
    assert drawn != sorted(drawn)


def test_shuffled_gives_one_smaller_batch_of_few_pictures():
    """Fewer pictures than a batch holds are one batch, never none."""
    sampler = build_shuffled(settings.Shuffled(size=50), CONTEXT)
    (batch,) = sampler.epoch(rows_of([3, 4]), generator(), None)
    assert sorted(batch) == list(range(7))


@pytest.mark.parametrize(
    "sampler",
    [
        build_shuffled(settings.Shuffled(size=4), CONTEXT),
        build_identities(settings.Identities(ids=2, per_id=2), CONTEXT),
    ],
    ids=["shuffled", "identities"],
)
def test_order_follows_from_the_generator_alone(sampler):
    """Equal seeds give equal epochs whatever was drawn before; another seed gives another."""
    rows = rows_of([4, 6, 8])
    first = list(sampler.epoch(rows, generator(1), None))
    torch.rand(3)
    np.random.rand(3)
    assert list(sampler.epoch(rows, generator(1), None)) == first
    assert list(sampler.epoch(rows, generator(2), None)) != first


def test_batch_shapes_are_promised_as_they_come():
    """Samplers promise the shape of the batches that they make."""
    assert settings.Identities(ids=3, per_id=4).batch() == BatchShape(12, 3, 4)
    assert settings.Shuffled(size=6).batch() == BatchShape(6)
    assert settings.Shuffled(size=6, drop_last=False).batch() == BatchShape(None)


def test_demo_settings_are_those_of_write_demo():
    """The reader has the parameters of `write_demo` with their defaults."""
    from reidcore.builtin.drawn_people.pictures import write_demo

    parameters = list(inspect.signature(write_demo).parameters.values())[1:]
    assert {p.name: p.default for p in parameters} == attrs.asdict(Demo())


def test_demo_draws_on_first_use_what_it_declares(tmp_path, monkeypatch):
    """The data set is drawn once, under the cache folder, and has the facts that were declared."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    demo = Demo(train_identities=3, test_identities=2, pictures=4, cameras=2, infrared_cameras=1)
    root = demo.default_root()
    assert root.parent == tmp_path and not root.exists()
    rows = demo.rows(root)
    written = (root / "manifest.csv").stat().st_mtime_ns
    assert demo.rows(root) == rows
    assert (root / "manifest.csv").stat().st_mtime_ns == written

    facts, train = demo.facts(), [row for row in rows if row.split == "train"]
    assert len({row.pid for row in train}) == facts.identities
    assert {row.camera for row in train} == set(facts.cameras)
    assert {row.modality for row in train} == set(facts.modalities)
    assert len(train) == facts.counts["train"]
    assert all(row.time is not None for row in rows) and "time" in facts.columns


def test_demos_of_other_settings_have_other_folders():
    """The cache folder follows from every setting."""
    folders = {
        Demo().default_root(),
        Demo(seed=1).default_root(),
        Demo(difficulty=0.5).default_root(),
    }
    assert len(folders) == 3 and Demo().default_root() in folders


def test_demo_refuses_more_infrared_cameras_than_cameras():
    """More infrared cameras than cameras are refused by name of the key."""
    with pytest.raises(ValueError, match="at most cameras = 3") as caught:
        Demo(cameras=3, infrared_cameras=4)
    assert caught.value.reid_field == "infrared_cameras"
