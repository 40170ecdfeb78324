"""What a part's `explain` returns: heat over pictures, lines between two, a table. Torch-free.

NumPy is imported when a value is made, not with this module. Plugins import the classes from
`reidcore.api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    import numpy as np


def _complaint(axes: str, value: Any) -> str:
    """Why the value is no finite array with these axes, such as "[N, 2]"; "" if it is one."""
    import numpy as np

    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        return f"must be a NumPy array of numbers, got {found}"
    wanted = axes.strip("[]").split(", ")
    if value.ndim != len(wanted) or any(
        size.isdigit() and int(size) != found
        for size, found in zip(wanted, value.shape, strict=True)
    ):
        return f"must be {axes}, got {list(value.shape)}"
    return "" if np.isfinite(value).all() else "is not finite"


def _array(axes: str) -> Any:
    """A validator of fields that hold an array with these axes."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        complaint = _complaint(axes, value)
        if complaint:
            raise ValueError(f"{type(instance).__name__}: {attribute.name} {complaint}")

    return check


Cell = str | int | float | None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _cells(rows: Iterable[Iterable[Any]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row) for row in rows)


@attrs.frozen(eq=False)
class Heat:
    """A number for every place of B pictures, drawn as colours over them.

    values: float [B, h, w], finite, a grid over each picture: row i and column j stand for the
    rectangle around x = (j + 0.5) / w, y = (i + 0.5) / h. A matcher's has B = 2, the query first.
    meaning: a few words for the legend. low, high: the numbers at the ends of the colour scale, by
    default each picture's smallest and largest. Raises ValueError for anything else.
    """

    values: np.ndarray = attrs.field(validator=_array("[B, h, w]"))
    meaning: str = attrs.field(default="", kw_only=True)
    low: float | None = attrs.field(default=None, kw_only=True)
    high: float | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.values.size:
            raise ValueError(f"Heat: values is empty: {list(self.values.shape)}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"Heat: low must be below high, got {self.low:g} and {self.high:g}")


@attrs.frozen(eq=False)
class Lines:
    """N places of a query picture and their partners in a gallery picture, drawn as lines.

    query, gallery: float [N, 2], (x, y) of both ends, in [0, 1] from top left to bottom right.
    weight: float [N], finite; heavier lines are drawn stronger. towards: the picture in which the
    partners were looked for: "gallery" if every line answers a place of the query. above: lighter
    lines and those of just this weight are listed but not drawn. numbers: further columns of the
    list by name, each [N]. meaning: a few words on the weight. Raises ValueError for anything else.
    """

    query: np.ndarray = attrs.field(validator=_array("[N, 2]"))
    gallery: np.ndarray = attrs.field(validator=_array("[N, 2]"))
    weight: np.ndarray = attrs.field(validator=_array("[N]"))
    towards: Literal["gallery", "query"] = attrs.field(default="gallery", kw_only=True)
    above: float = attrs.field(default=0.0, kw_only=True)
    numbers: Mapping[str, np.ndarray] = attrs.field(factory=dict, kw_only=True)
    meaning: str = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.towards not in ("gallery", "query"):
            raise ValueError(f"Lines: towards must be gallery or query, got {self.towards!r}")
        for name, ends in (("query", self.query), ("gallery", self.gallery)):
            if ends.size and not (ends.min() >= 0 and ends.max() <= 1):
                raise ValueError(
                    f"Lines: {name} must lie in [0, 1], but reaches from {ends.min():g} to "
                    f"{ends.max():g}"
                )
        for name, column in self.numbers.items():
            complaint = _complaint("[N]", column)
            if complaint:
                raise ValueError(f"Lines: numbers {name!r} {complaint}")
        columns = {"gallery": self.gallery, "weight": self.weight, **self.numbers}
        for name, column in columns.items():
            if len(column) != len(self.query):
                raise ValueError(
                    f"Lines: {name} has {len(column)} entries for {len(self.query)} lines"
                )


@attrs.frozen(eq=False)
class Table:
    """Numbers and words without a place, written as a CSV file.

    columns: distinct names. rows: as many cells each: text, numbers or None. Raises ValueError for
    anything else.
    """

    columns: tuple[str, ...] = attrs.field(converter=_names)
    rows: tuple[tuple[Cell, ...], ...] = attrs.field(converter=_cells)

    def __attrs_post_init__(self) -> None:
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ValueError(f"Table: columns must be distinct names, got {list(self.columns)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table: a row has {len(row)} cells for {len(self.columns)} columns: {row}"
                )
            for cell in row:
                if not isinstance(cell, Cell):
                    raise ValueError(
                        f"Table: a cell is {cell!r}; expected text, an int, a float or None"
                    )


Explanation = Heat | Lines | Table
