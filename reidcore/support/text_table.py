"""Tables as CSV and as aligned text. Torch-free."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any


class _Lines(list[str]):
    """What a writer of CSV writes, a record an item, ended by a line feed alone."""

    def write(self, record: str) -> None:
        self.append(record.removesuffix("\r\n") + "\n")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of cells, the header among them, as CSV.

    Python before 3.13 leaves a carriage return in a cell unquoted unless records end with one.
    """
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(lines)


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of cells, the header among them, as one line each: the first `left` columns flush
    left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
