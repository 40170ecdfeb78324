"""Short runs with several test sets, and their scores by loops over distances."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from running import TINY

from reidcore.api import Row


def run_text(*tests: str, more: str = "", evaluation: str = "") -> str:
    """TINY for one epoch, with these test entries."""
    text = TINY.replace("epochs = 6", "epochs = 1").replace("every = 1", evaluation)
    start, end = text.index("test = ["), text.index("image =")
    return f"{text[:start]}test = [{', '.join(tests)}]\n{text[end:]}{more}"


def draw(paths: Sequence[Path], seed: int = 0) -> None:
    """Small pictures of any ending, of coloured noise."""
    dice = np.random.default_rng(seed)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 32)).save(path)


def scores(folder: str | Path) -> dict:
    return json.loads(Path(folder, "scores.json").read_text())


def listed(kept: list[tuple[float, str]], identity: str, by_identity: bool) -> dict[str, float]:
    """Scores of one query from its list of (distance, identity), by their definitions."""
    order = [name for _, name in sorted(kept, key=lambda pair: pair[0])]
    ranks = [rank for rank, name in enumerate(order, 1) if name == identity]
    places = list(dict.fromkeys(order)) if by_identity else order
    first = places.index(identity) + 1
    mark = "-identity" * by_identity
    found = {f"rank-{k}{mark}": float(first <= k) for k in (1, 5, 10)}
    precisions = [sum(r <= rank for r in ranks) / rank for rank in ranks]
    return {"mAP": statistics.fmean(precisions), "mINP": len(ranks) / ranks[-1], **found}


def by_loop(
    distances: torch.Tensor,
    query: Sequence[Row],
    gallery: Sequence[Row],
    keeps=lambda q, g: True,
    by_identity: bool = False,
) -> dict[str, float]:
    """Mean scores of one trial; queries without a match are left out."""
    each = []
    for row, one in zip(distances.tolist(), query, strict=True):
        kept = [(d, g.pid) for d, g in zip(row, gallery, strict=True) if keeps(one, g)]
        if any(pid == one.pid for _, pid in kept):
            each.append(listed(kept, one.pid, by_identity))
    return {name: statistics.fmean(found[name] for found in each) for name in each[0]}


TEST_ENTRY = (
    '{ read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 }'
)
