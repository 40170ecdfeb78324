"""Pairs of pictures that a user has labelled, on which probabilities are fitted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from reid_gallery.rows import Entry, entries_of
from reidcore.api import Row
from reidcore.errors import DataError, nearest
from reidcore.tools import Search, calibrated

COLUMNS = ("first", "second", "same")
MOST = 4096
"""Pairs of one identity, and of two, that are compared."""
PICTURES = 2000
"""Pictures with identities of which pairs are made."""


@attrs.frozen(eq=False)
class Labelled:
    """Pictures, and pairs of them: the places of the two, int64 [2, P], and whether they show one
    identity, bool [P]."""

    rows: tuple[Row, ...]
    pairs: np.ndarray
    same: np.ndarray

    @classmethod
    def read(cls, file: Path) -> Labelled:
        """Return the pairs of a CSV file with the columns first, second and same (1 or 0), or all
        pairs of the pictures of one with the columns path and identity (or pid).

        Raises DataError for a file with mistakes, or without a pair of one identity and of two.
        """
        header, records = _table(file)
        if {"first", "second"} & {*header}:
            found = _of_pairs(file, header, records)
        elif "path" in header:
            found = _of_pictures(file)
        else:
            raise DataError(
                f"{file} has the columns {', '.join(header)}; expected {', '.join(COLUMNS)} (1 "
                "where two pictures show one identity, 0 where not), or path and identity"
            )
        for wanted, words in ((True, "one identity"), (False, "two identities")):
            if not (found.same == wanted).any():
                raise DataError(f"{file} has no pair of {words}; probabilities need both kinds")
        return found.thinned()

    def thinned(self) -> Labelled:
        """Return as many pairs of each kind as are compared, drawn evenly."""
        draw = np.random.default_rng(0)
        kinds = [np.flatnonzero(self.same == kind) for kind in (True, False)]
        kept = [np.sort(draw.choice(one, min(len(one), MOST), replace=False)) for one in kinds]
        chosen = np.concatenate(kept)
        used, places = np.unique(self.pairs[:, chosen], return_inverse=True)
        rows = tuple(self.rows[place] for place in used)
        return Labelled(rows, places.reshape(2, -1), self.same[chosen])

    def fitted(self, search: Search) -> Search:
        """Return a run with probabilities that are fitted on these pairs. Raises DataError for a
        picture that cannot be read."""
        templates = search.templates(self.rows)
        return calibrated(
            search, templates, torch.from_numpy(self.pairs), torch.from_numpy(self.same)
        )


def _table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each line's number and cells."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            header = [name.strip() for name in next(reader, [])]
            return header, [(reader.line_num, record) for record in reader if record]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a CSV file of pairs: {error}") from None


def _of_pairs(
    file: Path, header: Sequence[str], records: Sequence[tuple[int, list[str]]]
) -> Labelled:
    for name in COLUMNS:
        if name not in header:
            raise DataError(f"{file} lacks the column {name!r}{nearest(name, header)}")
    places: dict[str, int] = {}
    pairs, same = [], []
    for line, record in records:
        if len(record) != len(header):
            raise DataError(f"{file} row {line}: {len(record)} cells, expected {len(header)}")
        cells = dict(zip(header, map(str.strip, record), strict=True))
        if cells["same"] not in ("0", "1"):
            raise DataError(
                f"{file} row {line}: same is {cells['same']!r}, expected 1 where the two show one "
                "identity, 0 where not"
            )
        paths = [str(file.absolute().parent / cells[side]) for side in ("first", "second")]
        pairs.append([places.setdefault(path, len(places)) for path in paths])
        same.append(cells["same"] == "1")
    rows = tuple(Row(path, "", split="gallery") for path in places)
    return Labelled(rows, np.array(pairs, np.int64).reshape(-1, 2).T, np.array(same, bool))


def _of_pictures(file: Path) -> Labelled:
    """All pairs; those of one identity from different cameras, as in ranking, if there are any."""
    entries = _some([entry for entry in entries_of(file) if entry.cells.get("identity")])
    pairs = np.stack(np.triu_indices(len(entries), 1))
    names = np.array([entry.cells["identity"] for entry in entries])
    cameras = np.array([entry.row.camera for entry in entries])
    same = names[pairs[0]] == names[pairs[1]]
    apart = cameras[pairs[0]] != cameras[pairs[1]]
    counted = ~same | apart if (same & apart).any() else np.ones(len(same), bool)
    return Labelled(tuple(entry.row for entry in entries), pairs[:, counted], same[counted])


def _some(entries: Sequence[Entry]) -> list[Entry]:
    """The pictures of so many identities, drawn evenly, as are compared."""
    names = [entry.cells["identity"] for entry in entries]
    order = np.random.default_rng(0).permutation(sorted({*names}))
    rank = {name: place for place, name in enumerate(order.tolist())}
    return sorted(entries, key=lambda entry: rank[entry.cells["identity"]])[:PICTURES]
