"""Explanations that a part's `explain` returns: heat over pictures, lines between two, a table.

Torch-free. NumPy is imported when an explanation is made, not with this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    import numpy as np


def _complaint(axes: str, value: Any) -> str:
    """Return why the value is no finite array with axes such as "[N, 2]"; "" if it is one."""
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
    """Return a validator of fields that hold an array with these axes."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        complaint = _complaint(axes, value)
        if complaint:
            raise ValueError(f"{type(instance).__name__}: {attribute.name} {complaint}")

    return check


Cell = str | int | float | None
"""Value of one cell of a `Table`."""


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _cells(rows: Iterable[Iterable[Any]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row) for row in rows)


@attrs.frozen(eq=False)
class Heat:
    """A number for every place of B pictures, drawn as colours over them.

    Attributes:
        values: float [B, h, w], finite: a grid over each picture, not scaled. Row i and column j
            stand for the rectangle around x = (j + 0.5) / w, y = (i + 0.5) / h. A matcher's has
            B = 2, the query first.
        meaning: A few words for the legend.
        low: Number at the lower end of the colour scale; None for each picture's smallest.
        high: Number at the upper end; None for each picture's largest.

    Raises:
        ValueError: `values` is no such array, or `low` is not below `high`.

    Example:
        >>> import numpy as np
        >>> from reidcore.api import Heat
        >>> heat = Heat(np.random.rand(2, 16, 8), meaning="attention", low=0, high=1)
        >>> Heat(np.zeros((16, 8)))
        Traceback (most recent call last):
        ...
        ValueError: Heat: values must be [B, h, w], got [16, 8]
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

    Attributes:
        query: float [N, 2], (x, y) in the query picture, from (0, 0) top left to (1, 1).
        gallery: float [N, 2], (x, y) of the partners in the gallery picture.
        weight: float [N], finite; heavier lines are drawn stronger.
        towards: Picture in which the partners were looked for: "gallery" if there is a line for
            every place of the query.
        above: Lines of this weight and lighter ones are listed but not drawn.
        numbers: Further columns of the list by name, each [N].
        meaning: A few words on the weight.

    Raises:
        ValueError: An array has another shape, is not finite, or lies outside [0, 1].

    Example:
        >>> import numpy as np
        >>> from reidcore.api import Lines
        >>> here, there = np.array([[0.5, 0.1], [0.5, 0.9]]), np.array([[0.4, 0.1], [0.5, 0.8]])
        >>> lines = Lines(here, there, np.array([0.9, 0.2]), above=0.5, meaning="similarity")
        >>> lines.towards
        'gallery'
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
    """Numbers and words that belong to no place of a picture, written as a CSV file.

    Attributes:
        columns: Distinct names of the columns.
        rows: Rows with as many cells each: text, an int, a float or None.

    Raises:
        ValueError: Names repeat, a row has another length, or a cell is something else.

    Example:
        >>> from reidcore.api import Table
        >>> Table(["picture", "slot", "weight"], [[0, "top", 0.7], [0, "middle", 0.3]]).columns
        ('picture', 'slot', 'weight')
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
"""One explanation; which kinds a part may return says docs/contracts.md."""
