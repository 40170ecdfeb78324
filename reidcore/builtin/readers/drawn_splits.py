"""The setting of readers of own data by which train, query and gallery are drawn. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.data.splits import draw_splits


def split_setting() -> Any:
    """Return the setting `train_fraction`."""
    return setting(
        "fraction of the identities that trains; the others are divided into query (one picture "
        "from each of an identity's cameras) and gallery, as by `reid data index --split`. Not "
        "set, splits are as the data state them, and train where they state none",
        default=None,
        at_least=0,
        at_most=1,
    )


def with_splits(rows: Sequence[Row], fraction: float | None, seed: int) -> list[Row]:
    """Return the rows with drawn splits, or as they are without a fraction."""
    return list(rows) if fraction is None else draw_splits(rows, fraction, seed).rows
