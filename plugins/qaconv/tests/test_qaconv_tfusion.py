"""`qaconv.tfusion` against a reference with a loop over pairs."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from plugins.qaconv.tests.test_qaconv_tlift import CASES, Places, drawn, meta
from reid_qaconv.settings_tfusion import TFusion as Settings
from reid_qaconv.tfusion import TFusion
from reidcore.api import Given, WiringError
from reidcore.errors import DataError, PluginError

every_case = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def by_loops(scores: Tensor, places: Places, config: Settings) -> Tensor:
    """f, one pair of pictures and one pair of differences at a time, in float64."""
    s = scores.double().tolist()
    sides = (places.query, places.gallery)
    cameras = [side.camera.tolist() for side in sides]
    times = [side.time.tolist() for side in sides]
    queries, gallery = range(len(cameras[0])), range(len(cameras[1]))
    ep, en = config.wrong_accepts, config.wrong_rejects
    result = []
    for i in queries:
        mine = [q for q in queries if cameras[0][q] == cameras[0][i]]
        others = [g for g in gallery if cameras[1][g] != cameras[0][i]]
        anyone = [(cameras[1][g], times[1][g] - times[0][q]) for q in mine for g in others]
        person = []
        for q in mine:
            least = sorted((s[q][g] for g in others), reverse=True)[: config.top][-1:]
            person += [
                (cameras[1][g], times[1][g] - times[0][q]) for g in others if s[q][g] >= least[0]
            ]

        def share(of: list[tuple[int, float]], g: int, apart: float) -> float:
            low, high = apart - config.window, apart + config.window
            near = [1 for camera, d in of if camera == cameras[1][g] and low <= d <= high]
            return len(near) / len(of)

        row, far = [], []
        for g in gallery:
            apart = times[1][g] - times[0][i]
            far.append(config.farthest is not None and abs(apart) > config.farthest)
            if far[-1] or g not in others:
                row.append(0.0)
                continue
            p, r = share(person, g, apart), share(anyone, g, apart)
            row.append((s[i][g] + ep / (1 - ep - en)) * max(0.0, (1 - ep) * p - en * r) / r)
        best = max(row)
        result.append(
            [s[i][g] if best == 0 or far[g] else value / best for g, value in enumerate(row)]
        )
    return torch.tensor(result, dtype=torch.float64)


@every_case
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top": 2, "window": 150.0},
        {"farthest": 400.0},
        {"wrong_accepts": 0.2, "wrong_rejects": 0.1, "top": 3},
    ],
    ids=str,
)
def test_equals_loops(make, settings):
    """In float64 to rounding, and in float32 to its."""
    scores, places = make()
    scores = scores[:9, :24]
    places = Places(*(one[:n] for one, n in ((places.query, 9), (places.gallery, 24))))
    config = Settings(**settings)
    expected = by_loops(scores, places, config)
    fused = TFusion(config).fuse(scores.clone(), places.query, places.gallery)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-12)
    distances = (1 - scores).float()
    result = TFusion(config)(distances.clone(), places)
    expected = 1 - by_loops(1 - distances, places, config)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert result.min() >= 0 and result.max() <= 1


def test_who_comes_at_the_usual_time_ranks_higher():
    """People need a minute from camera 0 to camera 1. Of two equally similar pictures the one at
    that time is right; the other is of somebody who came half an hour later."""
    starts = torch.arange(8).double() * 600
    query = meta(torch.zeros(8).long(), starts)
    gallery = meta(torch.ones(16).long(), torch.cat([starts + 60, starts + 1860]))
    scores = torch.full((8, 16), 0.1, dtype=torch.float64)
    own = torch.arange(8)
    scores[own, own] = 0.9
    scores[3, [3, 11]] = 0.5
    result = TFusion(Settings(top=1)).fuse(scores.clone(), query, gallery)
    assert scores[3, 3] == scores[3, 11]
    assert result[3, 3] == 1 > 2 * result[3, 11]


def test_empty_sides_stay_empty():
    none = meta(torch.zeros(0).long(), torch.zeros(0))
    _, places = drawn(3, 4)
    for ranking in (Places(none, places.gallery), Places(places.query, none)):
        shape = (len(ranking.query), len(ranking.gallery))
        assert TFusion(Settings())(torch.zeros(shape), ranking).shape == shape


def test_what_it_cannot_use_is_refused():
    """Missing times, distances outside [0, 1], and in the wiring missing columns and scales."""
    scores, places = drawn(6, 8)
    with pytest.raises(PluginError, match=r"needs distances in \[0, 1\]"):
        TFusion(Settings())((2 + scores).float(), places)
    places.gallery.time[1] = math.nan
    with pytest.raises(DataError, match="needs the time of every picture, but 1 of 8 gallery"):
        TFusion(Settings())((1 - scores).float(), places)
    given = Given((1, 1), test_columns=frozenset({"camera", "time"}), unit=True)
    assert Settings().check(given) is True
    changes: list[dict[str, Any]] = [
        {"test_columns": frozenset({"camera"})},
        {"test_columns": frozenset({"time"})},
        {"unit": False},
    ]
    for change in changes:
        with pytest.raises(WiringError):
            Settings().check(attrs.evolve(given, **change))
