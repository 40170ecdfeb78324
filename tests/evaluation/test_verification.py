"""True accept rates at false accept rates, against their definition."""

from __future__ import annotations

import pytest
import torch

from reidcore.evaluation.relevance import Judgements
from reidcore.evaluation.verification import TrueAccepts, strangers_let_pass

RATES = [1e-3, 0.01, 0.05, 0.3, 1.0]


def problem(seed: int, decimals: int | None = None):
    """Random distances, nearer for matches, and masks."""
    draw = torch.Generator().manual_seed(seed)
    match = torch.rand(12, 60, generator=draw) < 0.2
    distances = torch.rand(12, 60, generator=draw) + 0.6 * ~match
    if decimals is not None:
        distances = distances.round(decimals=decimals)
    return distances, match, torch.rand(12, 60, generator=draw) < 0.1


def accepted(distances, match, ignored, rates=RATES, cut=(slice(0, 12),), pairs=720):
    gathered = TrueAccepts(rates, pairs)
    for rows in cut:
        gathered.add(distances[rows], Judgements.of_masks(match[rows], ignored[rows]))
    return gathered.shares()


def by_definition(distances, match, ignored, rate: float) -> float:
    """The largest share of matching pairs that a threshold accepts, tried at every distance, where
    it lets no more strangers pass than allowed."""
    matching = distances[match & ~ignored].tolist()
    strangers = distances[~match & ~ignored].tolist()
    best = 0.0
    for threshold in [*strangers, *matching, float("inf")]:
        passed = sum(value < threshold for value in strangers)
        if passed <= rate * len(strangers) + 1e-9:
            best = max(best, sum(value < threshold for value in matching) / len(matching))
    return best


@pytest.mark.parametrize("decimals", [None, 1])
def test_it_is_the_best_threshold_that_few_strangers_pass(decimals):
    """TAR equals the best over all thresholds, ties included."""
    given = problem(0, decimals)
    found = accepted(*given)
    for rate in RATES:
        assert found[rate] == pytest.approx(by_definition(*given, rate)), rate
    assert list(found.values()) == sorted(found.values()) and found[1.0] == 1.0
    assert 0 < found[0.05] < 1


def test_blocks_give_the_rates_of_the_whole():
    """Gathered block by block, with only the nearest strangers held, nothing changes."""
    given = problem(1)
    cut = [slice(0, 1), slice(1, 7), slice(7, 12)]
    for rates in (RATES, [0.01], [1e-3]):
        assert accepted(*given, rates, cut) == accepted(*given, rates)
    small = TrueAccepts([0.01], 720)
    for row in range(12):
        distances, *masks = (tensor[row : row + 1] for tensor in given)
        small.add(distances, Judgements.of_masks(*masks))
    assert len(small._nearest) == 8  # 7 of 720 strangers at most, and the next one


def test_few_strangers_allow_none():
    """Where a rate is less than one stranger, what is nearer than the nearest is accepted."""
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    match = torch.tensor([[True, False, True, False]])
    none = torch.zeros_like(match)
    assert accepted(distances, match, none, [1e-4], [slice(0, 1)]) == {1e-4: 0.5}
    # At the threshold nothing is accepted, so an equal distance is not.
    distances[0, 1] = 0.1
    assert accepted(distances, match, none, [1e-4], [slice(0, 1)]) == {1e-4: 0.0}


def test_only_strangers_or_only_matches():
    """Without strangers every pair is accepted; without matching pairs the rate is 0."""
    distances, match = torch.rand(1, 5), torch.ones(1, 5, dtype=torch.bool)
    none = torch.zeros_like(match)
    assert accepted(distances, match, none, [0.1], [slice(0, 1)]) == {0.1: 1.0}
    assert accepted(distances, none, none, [0.1], [slice(0, 1)]) == {0.1: 0.0}
    assert accepted(distances, match, none, [], [slice(0, 1)]) == {}


def test_rates_are_decimal_numbers():
    """What was written counts, not the binary number nearest to it: 0.29 * 100 is 29."""
    assert int(0.29 * 100) == 28 and strangers_let_pass(0.29, 100) == 29
    assert strangers_let_pass(1e-4, 53_600_184) == 5360
    assert strangers_let_pass(1.0, 7) == 7
