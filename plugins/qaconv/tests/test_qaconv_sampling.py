"""Graph sampling."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from reid_qaconv.graph import build_graph
from reid_qaconv.plugin import reid_samplers
from reid_qaconv.settings_graph import Graph
from reidcore.api import BatchShape, Given, WiringError
from reidcore.errors import UsageError
from reidcore.modules import Context, Rows
from tests.running import ended, environment, kill_when, reid, results

CONTEXT = Context(Given((8, 8), identities=9), "batch")
PICTURES = [1, 2, 3, 4, 5, 6, 9, 30]


def rows_of(pictures: list[int]) -> Rows:
    """Rows with pictures[k] pictures of identity k, in mixed order."""
    pid = np.repeat(np.arange(len(pictures)), pictures)
    np.random.default_rng(0).shuffle(pid)
    none = np.zeros(len(pid), dtype=np.int64)
    text = [str(i) for i in range(len(pid))]
    names = [str(k) for k in range(len(pictures))]
    return Rows(text, pid, none, none.astype(float), none, names, text)


class Table:
    """Answers with distances between identities, [identities, identities], and keeps the questions:
    what a sampler is given in place of a model."""

    def __init__(self, rows: Rows, distances: torch.Tensor):
        self.rows = rows
        self.table = distances
        self.asked: list[tuple[str, list[int], list[int]]] = []

    def distances(self, matcher: str, a, b) -> torch.Tensor:
        self.asked.append((matcher, list(a), list(b)))
        return self.table[torch.from_numpy(self.rows.pid[a])][:, torch.from_numpy(self.rows.pid[b])]


def random_distances(count: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, count, generator=torch.Generator().manual_seed(seed))


def epoch(
    rows: Rows, ids: int, per_id: int, distances: torch.Tensor | None = None, seed: int = 0
) -> tuple[list[list[int]], Table]:
    if distances is None:
        distances = random_distances(rows.identities)
    ask = Table(rows, distances)
    sampler = build_graph(Graph(matcher="pairs", ids=ids, per_id=per_id), CONTEXT)
    return list(sampler.epoch(rows, torch.Generator().manual_seed(seed), ask)), ask


@pytest.mark.parametrize(("ids", "per_id"), [(2, 2), (4, 3), (8, 1)])
def test_every_identity_is_once_an_anchor_with_its_nearest(ids, per_id):
    """There are as many batches as identities; each is an anchor with the identities at the
    smallest distances from it, the anchor on the query side, `per_id` pictures each."""
    rows = rows_of(PICTURES)
    distances = random_distances(len(PICTURES))
    batches, _ = epoch(rows, ids, per_id, distances)
    groups = [rows.pid[batch].reshape(ids, per_id) for batch in batches]
    assert all((group == group[:, :1]).all() for group in groups)
    assert sorted(int(group[0, 0]) for group in groups) == list(range(len(PICTURES)))
    for group in groups:
        anchor, *others = group[:, 0].tolist()
        ranked = sorted(
            (float(distances[anchor, pid]), pid) for pid in range(len(PICTURES)) if pid != anchor
        )
        assert others == [pid for _, pid in ranked[: ids - 1]]


def test_an_anchor_comes_first_even_if_its_own_distance_is_large():
    """The distance of a picture from itself does not matter."""
    rows = rows_of([3, 3, 3, 3])
    distances = random_distances(4)
    distances.fill_diagonal_(50.0)
    batches, ask = epoch(rows, 2, 2, distances)
    anchors = [int(rows.pid[batch[0]]) for batch in batches]
    assert sorted(anchors) == [0, 1, 2, 3]
    assert (ask.table.diagonal() == 50).all()


def test_equal_distances_are_taken_in_one_order():
    """Where all distances tie, the same batches come out as identities go up."""
    rows = rows_of([2] * 6)
    batches, _ = epoch(rows, 3, 1, torch.zeros(6, 6))
    for batch in batches:
        anchor, *others = rows.pid[batch].tolist()
        assert others == [pid for pid in range(6) if pid != anchor][:2]


def test_one_random_picture_of_each_identity_stands_for_it():
    """Distances are asked once an epoch, of the named matcher, between one picture of each
    identity; over epochs every picture of an identity stands for it equally often."""
    rows = rows_of([1, 2, 4])
    shown = Counter()
    for seed in range(400):
        _, ask = epoch(rows, 2, 2, seed=seed)
        ((matcher, a, b),) = ask.asked
        assert matcher == "pairs" and a == b
        assert rows.pid[a].tolist() == [0, 1, 2]
        shown.update(a)
    for pid, count in enumerate([1, 2, 4]):
        for index in np.flatnonzero(rows.pid == pid).tolist():
            assert shown[index] == pytest.approx(400 / count, rel=0.3)


def test_pictures_are_dealt_in_turn():
    """Over an epoch the pictures of an identity appear equally often but for one, and a batch has
    none twice while there are enough."""
    rows = rows_of(PICTURES)
    batches, _ = epoch(rows, 4, 3)
    drawn = Counter(index for batch in batches for index in batch)
    for pid, count in enumerate(PICTURES):
        counts = [drawn[index] for index in np.flatnonzero(rows.pid == pid).tolist()]
        assert max(counts) - min(counts) <= 1
        for batch in batches:
            own = [index for index in batch if rows.pid[index] == pid]
            assert len(set(own)) == min(len(own), count)


def test_batches_follow_from_the_generator():
    """Equal seeds give equal epochs whatever was drawn before; other seeds give other orders of
    anchors and of pictures."""
    rows = rows_of([4, 6, 8, 5])
    first, _ = epoch(rows, 2, 2)
    torch.rand(3)
    np.random.rand(3)
    assert epoch(rows, 2, 2)[0] == first
    orders, pictures = set(), set()
    for seed in range(20):
        batches, _ = epoch(rows, 2, 2, seed=seed)
        orders.add(tuple(int(rows.pid[batch[0]]) for batch in batches))
        pictures.add(tuple(sorted(map(tuple, batches))))
    assert len(orders) > 10 and len(pictures) > 10


def test_labels_may_have_gaps():
    """Rows of some identities only, as a procedure may hand over, are sampled among themselves."""
    rows = rows_of(PICTURES)
    part = rows.where(np.isin(rows.pid, [1, 4, 6]))
    batches, _ = epoch(part, 3, 2, random_distances(len(PICTURES)))
    assert len(batches) == 3
    for batch in batches:
        assert Counter(part.pid[batch].tolist()) == {1: 2, 4: 2, 6: 2}


def test_too_few_identities_are_refused():
    """Fewer identities than a batch needs are an error, in wiring and for the rows at hand."""
    with pytest.raises(UsageError, match=r"needs 4 identities, .* have 3; set data.batch.ids"):
        epoch(rows_of([3, 3, 3]), 4, 2)
    with pytest.raises(WiringError, match=r"asks for 10 .* have 9") as caught:
        Graph(matcher="pairs", ids=10, per_id=2).check(CONTEXT.given)
    assert caught.value.field == "ids"
    Graph(matcher="pairs", ids=9, per_id=2).check(CONTEXT.given)


HARD = """
[[loss]]
name = "hard"
use = "qaconv.triplet"
matcher = "pairs"
"""


@pytest.mark.slow
def test_a_killed_run_with_graph_sampling_ends_as_if_it_had_not_been(tmp_path):
    """The order of an epoch, which is asked of the model, the class memory and the matcher's
    statistics carry over a kill to the last bit."""
    env = environment(tmp_path / "cache")
    sample = next(component.sample for component in reid_samplers())
    (tmp_path / "run.toml").write_text(sample + HARD)
    command = ["run", "run.toml", "--set", "train.epochs=3", "--out"]
    reid(env, tmp_path, *command, "whole")
    kill_when(env, tmp_path, [*command, "killed"], ended(1))
    assert not (tmp_path / "killed" / "scores.json").exists()
    reid(env, tmp_path, *command, "killed", "--resume")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_batch_shape_is_promised():
    """A batch has ids * per_id pictures."""
    assert Graph(matcher="pairs", ids=3, per_id=4).batch() == BatchShape(12, 3, 4)
