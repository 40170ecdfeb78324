"""Rows as CSV: what every program reads back as the cells that were written."""

from __future__ import annotations

import csv
import io

from reidcore.support.text_table import csv_text


def test_ordinary_cells_are_written_as_ever():
    """A line feed ends a record, and only what needs quotes has them."""
    rows = [["path", "pid"], ["a b.jpg", 1], ['x,"y".jpg', 0.25], ["line\nbreak", None], [""], []]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    assert csv_text(rows) == text.getvalue()
    assert csv_text(iter(rows[:2])) == "path,pid\na b.jpg,1\n"
    assert csv_text([]) == ""


def test_every_line_break_in_a_cell_is_read_back():
    """In the first, the last and a single cell, also at a cell's end."""
    cells = [f"a{end}b" for end in ("\r", "\n", "\r\n", "\n\r")] + ["\r", "a\r\n", "\r\na"]
    rows = [row for cell in cells for row in ([cell, "1"], ["1", cell], [cell])]
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True)) == rows
