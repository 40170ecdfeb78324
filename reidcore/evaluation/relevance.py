"""The gallery pictures that match a query, and those that are left out of its list, as lists of
pairs."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from reidcore.protocols.base import SamePlace

NOBODY = -1
"""Number of an unknown place, which is no other picture's."""


@attrs.frozen(eq=False)
class Judgements:
    """The pairs of some queries and gallery pictures that match, or that do not count.

    shape: (Q, G). row, column: int64 [E], pairs that match or are ignored one by one, rows
    ascending, columns ascending in a row, no pair twice. match, ignored: bool [E]. places: int64
    [Q] and [G]; where both have one place, other than `NOBODY`, the pair is ignored too. Pairs that
    match have this in `ignored` already.
    """

    shape: tuple[int, int]
    row: Tensor
    column: Tensor
    match: Tensor
    ignored: Tensor
    places: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of_masks(cls, match: Tensor, ignored: Tensor) -> Judgements:
        """Make them from two bool arrays [Q, G]."""
        row, column = (match | ignored).nonzero(as_tuple=True)
        queries, gallery = match.shape
        return cls((queries, gallery), row, column, match[row, column], ignored[row, column])

    def rows(self, start: int, stop: int) -> Judgements:
        """Return those of some of the queries alone."""
        ends = torch.tensor([start, stop], device=self.row.device)
        here = slice(*torch.searchsorted(self.row, ends).tolist())
        return Judgements(
            (stop - start, self.shape[1]),
            self.row[here] - start,
            self.column[here],
            self.match[here],
            self.ignored[here],
            None if self.places is None else (self.places[0][start:stop], self.places[1]),
        )

    def to(self, device: torch.device | str) -> Judgements:
        """Return the same on another device."""
        return Judgements(
            self.shape,
            self.row.to(device),
            self.column.to(device),
            self.match.to(device),
            self.ignored.to(device),
            self.places and (self.places[0].to(device), self.places[1].to(device)),
        )

    def hide(self, distances: Tensor, first: int) -> None:
        """Make infinite what matches or is ignored of the distances [Q, w] to the gallery pictures
        from `first` on."""
        columns = slice(first, first + distances.shape[1])
        here = (self.column >= columns.start) & (self.column < columns.stop)
        distances[self.row[here], self.column[here] - first] = torch.inf
        if self.places is not None:
            query, gallery = self.places
            distances.masked_fill_(_same(query, gallery[columns]), torch.inf)

    def masks(self) -> tuple[Tensor, Tensor]:
        """Return (match, ignored), bool [Q, G] each."""
        match, ignored = self.row.new_zeros(2, *self.shape, dtype=torch.bool)
        match[self.row, self.column] = self.match
        ignored[self.row, self.column] = self.ignored
        if self.places is not None:
            ignored |= _same(*self.places)
        return match, ignored


class Relevance:
    """Judges which pairs of queries and gallery pictures match, by what is known of them.

    A match has the query's identity. Ignored are, of the query's place, with "drop" matches, with
    "drop_all" all pictures; always the query's own file.

    query, gallery: (identity, file, place), int64 [Q] and [G] each. Memory: a few numbers for each
    gallery picture, and for the matches of the queries that are asked for.
    """

    def __init__(
        self,
        query: tuple[Tensor, Tensor, Tensor],
        gallery: tuple[Tensor, Tensor, Tensor],
        same_place: SamePlace,
    ):
        self._query, self._gallery = query, gallery
        self._same_place = same_place
        self._identities, self._files = (_Finder(numbers) for numbers in gallery[:2])

    def rows(self, start: int, stop: int) -> Judgements:
        """Return the judgements of some of the queries."""
        identity, file, place = (numbers[start:stop] for numbers in self._query)
        matches, files = self._identities.equal_to(identity), self._files.equal_to(file)
        size = len(self._gallery[0])
        pairs = torch.cat([row * size + column for row, column in (matches, files)]).unique()
        row, column = pairs.div(max(1, size), rounding_mode="floor"), pairs % max(1, size)
        match = identity[row] == self._gallery[0][column]
        ignored = file[row] == self._gallery[1][column]
        if self._same_place != "keep":
            theirs = self._gallery[2][column]
            ignored |= match & (place[row] == theirs) & (theirs != NOBODY)
        places = (place, self._gallery[2]) if self._same_place == "drop_all" else None
        return Judgements((stop - start, size), row, column, match, ignored, places)


class _Finder:
    """Finds the places of given numbers in a list [G]."""

    def __init__(self, numbers: Tensor):
        self._order = numbers.argsort(stable=True)
        self._ascending = numbers[self._order]

    def equal_to(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return all pairs (place among `wanted`, place in the list) of equal numbers."""
        first = torch.searchsorted(self._ascending, wanted)
        lengths = torch.searchsorted(self._ascending, wanted, right=True) - first
        row = torch.arange(len(wanted), device=wanted.device).repeat_interleave(lengths)
        shift = (first - lengths.cumsum(0) + lengths).repeat_interleave(lengths)
        return row, self._order[shift + torch.arange(len(shift), device=wanted.device)]


def _same(query: Tensor, gallery: Tensor) -> Tensor:
    """bool [Q, G]: whether two pictures are known to be of one place."""
    return (query[:, None] == gallery) & (gallery != NOBODY)
