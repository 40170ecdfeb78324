"""The names of a run file's tables and keys, and which component each table takes. Torch-free."""

from __future__ import annotations

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a place in a run file, such as ("head", 0, "use")."""
FORMAT = 1
LARGEST = 1e30
"""Of a number that is a float, so that float32 holds it, and torch what follows from it."""
COMPONENT_TABLES = {
    "backbone": "backbone",
    "head": "head",
    "matcher": "matcher",
    "loss": "loss",
    "post": "postprocessor",
    "procedure": "procedure",
}
"""Kind of component by table."""
LISTS = ("head", "matcher", "ranking", "loss", "post")
"""Tables that may stand several times, as `[[head]]`."""
SOURCE_KEYS = {"train": ("splits", "name"), "test": ("splits", "name", "protocol")}
"""Keys of every entry of data.train and data.test."""
MEANS = ("loss", "epoch", "lr", "seconds", "pictures_per_second")
"""Columns of means.csv beside the losses' own, so that no loss may be called so."""
TOP_KEYS = (
    "format",
    "name",
    "plugins",
    "data",
    *COMPONENT_TABLES,
    "ranking",
    "train",
    "optim",
    "eval",
    "repeat",
)
