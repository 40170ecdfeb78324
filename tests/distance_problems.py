"""Random distances with matches and ignored pairs, for metrics."""

from __future__ import annotations

import torch


def problem(seed: int, queries: int = 9, gallery: int = 40, decimals: int | None = None):
    """Random distances and masks; the second query has no match, the third only ignored ones."""
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(queries, gallery, generator=generator, dtype=torch.float64)
    if decimals is not None:
        distances = distances.round(decimals=decimals)
    match = torch.rand(queries, gallery, generator=generator) < 0.15
    ignored = torch.rand(queries, gallery, generator=generator) < 0.1
    match[1] = False
    ignored[2] |= match[2]
    return distances, match, ignored
