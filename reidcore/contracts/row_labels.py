"""What the labels of a row may be. Torch-free."""

from __future__ import annotations

from typing import Any

from reidcore.errors import nearest

SPLITS = ("train", "val", "query", "gallery", "test")
"""What a picture may be for."""

_TEXTS = ("path", "pid", "camera", "split", "modality", "listed")


def check_labels(row: Any) -> None:
    """Raise TypeError for a label of a `Row` that is no text, with what would be one, and
    ValueError for a split that there is not."""
    for name in _TEXTS:
        value = getattr(row, name)
        if not isinstance(value, str):
            better = 'write "" where it is unknown' if value is None else f"write str({name})"
            raise TypeError(f"{name} of a Row is {value!r}, expected text; {better}")
    if row.split not in SPLITS:
        close = nearest(row.split.lower(), SPLITS) or f", expected one of {', '.join(SPLITS)}"
        raise ValueError(f"split of a Row is {row.split!r}{close}")
