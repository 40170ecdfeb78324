"""Searches a gallery: an exact scan for candidates, then the run's ranking of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import attrs
import lance
import numpy as np
import pyarrow as pa
import torch

from reid_gallery.answers import Answer, Match
from reid_gallery.filters import Filter
from reid_gallery.reading import Reader
from reid_gallery.request import Request
from reid_gallery.rows import Entry, row_of
from reid_gallery.scan import Best, Nearest, fragments_of, search_tiles
from reid_gallery.schema import BASE, Column, Origin
from reid_gallery.scoring import MapRows, Scorer, taken
from reidcore.errors import DataError, ReidError, UsageError, nearest
from reidcore.tools import Search, Templates

MOST_CANDIDATES = 20_000
"""Pictures that postprocessors may rank at once: they hold all distances between them."""
AT_ONCE = 1 << 22
"""Queries times candidates that a scan keeps."""


@attrs.frozen(eq=False)
class View:
    """One version of a gallery's tables, as a search reads them."""

    dataset: lance.LanceDataset
    origin: Origin
    maps: MapRows | None
    reader: Reader = attrs.field(factory=Reader)

    def tiles(
        self, fragment: int, columns: Sequence[Column], chosen: Filter
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a fragment that meet a filter, as `reid_gallery.scan.tiles` does."""
        return self.reader.tiles(self.dataset, fragment, columns, chosen)


Scan = Callable[[View, Scorer, int, Filter], Best]
"""Gives the nearest rows of each query among those that meet a filter."""


def scan(view: View, scorer: Scorer, count: int, chosen: Filter) -> Best:
    """Return the nearest rows of each query, fragment by fragment, on this machine."""
    fragments = fragments_of(view.dataset)
    columns = scorer.columns()
    if scorer.table.scale == "row_minmax":
        score = scorer.ranged(_ranges(view, scorer, chosen))
    else:
        score = scorer.score()
    best = Nearest(len(scorer.query), count)
    found = (view.tiles(one, columns, chosen) for one in fragments)
    search_tiles(chain.from_iterable(found), best, score)
    return best.best()


def _ranges(view: View, scorer: Scorer, chosen: Filter) -> dict[str, Any]:
    """The smallest and largest distance of each query by each matcher, over all rows."""
    total: dict[str, Any] = {}
    for fragment in fragments_of(view.dataset):
        for batch in view.tiles(fragment, scorer.columns(), chosen):
            for name, (low, high) in scorer.ranges(batch).items():
                lowest, highest = total.get(name, (low, high))
                total[name] = torch.minimum(low, lowest), torch.maximum(high, highest)
    return total


@attrs.frozen(eq=False)
class Searcher:
    """Searches one version of a gallery by its run. judge: the run that tells probabilities, if it
    is another one."""

    search: Search
    view: View
    scan: Scan = scan
    judge: Search | None = None

    def answers(self, query: Templates, request: Request) -> list[Answer]:
        """Return the answer to each query, in their order. Raises ReidError."""
        request.check()
        table = self.table(request.ranking)
        _require_finite(query, table.matchers)
        request.filter.check(self.view.dataset)
        found: list[Answer] = []
        step = len(query) if table.post else max(1, AT_ONCE // (request.top + 1))
        for start in range(0, len(query), step):
            some = slice(start, start + step)
            found += self._answers(_part(query, some), request, table)
        if not any(answer.matches for answer in found):
            request.filter.check_found(self.view.dataset)
        return found

    def table(self, name: str | None) -> Any:
        """Return the [[ranking]] of this name, by default the first. Raises UsageError."""
        tables = {one.name: one for one in self.search.plan.rankings}
        if name is None:
            return next(iter(tables.values()))
        if name not in tables:
            raise UsageError(
                f"the run has no ranking {name!r}{nearest(name, tables)}; there are "
                f"{', '.join(tables)}"
            )
        return tables[name]

    def _answers(self, query: Templates, request: Request, table: Any) -> list[Answer]:
        ranked = bool(table.post) or table.shortlist is not None
        count = request.top
        if table.shortlist is not None:
            count = max(count, table.shortlist.top)
        if table.post:
            count = max(count, request.candidates)
        # One more, because a query's own picture is left out.
        scorer = self._scorer(table, query, coarse=True)
        best = self.scan(self.view, scorer, count + 1, request.filter)
        candidates = self._candidates(best, table)
        lists = candidates.ranked(self, query, table, request.top) if ranked else None
        if lists is None:
            lists = candidates.as_found(best, query, request.top)
        return candidates.answers(self, query, table, lists, request)

    def _scorer(self, table: Any, query: Templates, coarse: bool = False) -> Scorer:
        """coarse: score as the matcher of the shortlist does, if the ranking has one."""
        if coarse and table.shortlist is not None:
            table = attrs.evolve(
                table, matcher=table.shortlist.by, fuse={}, scale="none", shortlist=None
            )
        return Scorer(self.search, self.view.origin, table, self.view.maps, query)

    def _candidates(self, best: Best, table: Any) -> Candidates:
        """Read the rows that a scan has found, with the templates that the ranking needs."""
        rows, back = np.unique(best.row, return_inverse=True)
        absent = rows < 0
        origin = self.view.origin
        names = [*(name for name in self.view.dataset.schema.names if "__" not in name)]
        narrow = [one.name for one in origin.of(frozenset(table.matchers), False)]
        found = taken(self.view.dataset, rows[~absent], [*names, *narrow])
        order = np.argsort(found.column("id").to_numpy(), kind="stable")
        place = np.full(len(rows), -1)
        place[np.flatnonzero(~absent)[order]] = np.arange(len(order))
        return Candidates(found.take(pa.array(order)), place[back].reshape(best.row.shape), names)


@attrs.frozen(eq=False)
class Candidates:
    """Rows that a scan has found, in the order of their ids, and each query's places among them,
    int64 [Q, K], nearest first, -1 for none."""

    rows: pa.Table
    places: np.ndarray
    names: list[str]

    def as_found(
        self, best: Best, query: Templates, top: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each query's list (places, distances) as the scan has ordered it."""
        keys = self.rows.column("key").to_pylist()
        lists = []
        for row, places, distance in zip(query.rows, self.places, best.distance, strict=True):
            own = Entry(row).keys
            kept = [at for at, place in enumerate(places) if place >= 0 and keys[place] not in own]
            lists.append((places[kept[:top]], distance[kept[:top]]))
        return lists

    def ranked(
        self, searcher: Searcher, query: Templates, table: Any, top: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each query's list (places, distances) as the run ranks its candidates.

        Postprocessors see the candidates of all queries together, as they see a gallery; a
        shortlist is rescored for each query by itself.
        """
        if not table.post:
            return [
                self._ranked(searcher, _part(query, slice(at, at + 1)), table, top, places)[0]
                for at, places in enumerate(self.places)
            ]
        if len(self.rows) > MOST_CANDIDATES:
            raise UsageError(
                f"the postprocessors of ranking {table.name!r} would rank {len(self.rows)} "
                f"candidates at once, more than {MOST_CANDIDATES}; search fewer pictures at once, "
                "or take fewer candidates of each"
            )
        return self._ranked(searcher, query, table, top, np.arange(len(self.rows)))

    def _ranked(
        self, searcher: Searcher, query: Templates, table: Any, top: int, places: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        places = np.sort(places[places >= 0])
        if not len(places):
            return [(places, np.empty(0, np.float32)) for _ in range(len(query))]
        gallery = self._templates(searcher, query, table, places)
        found = searcher.search.rank(query, gallery, min(top, len(places)), table.name)
        lists = []
        for index, distance in zip(found.index.numpy(), found.distance.numpy(), strict=True):
            there = index >= 0
            lists.append((places[index[there]], distance[there]))
        return lists

    def _templates(
        self, searcher: Searcher, query: Templates, table: Any, places: np.ndarray
    ) -> Templates:
        some = self.rows.take(pa.array(places))
        scorer = searcher._scorer(table, query)
        parts = scorer.parts(some, some.column("id").to_numpy(), table.matchers)
        rows = tuple(row_of(cells) for cells in some.select(self.names).to_pylist())
        return Templates(rows, {name: dict(part) for name, part in parts.items()}, query.made_by)

    def answers(
        self,
        searcher: Searcher,
        query: Templates,
        table: Any,
        lists: Sequence[tuple[np.ndarray, np.ndarray]],
        request: Request,
    ) -> list[Answer]:
        """Return the answers with everything that is known of each match."""
        found = []
        chances = self._probabilities(searcher, query, table, [places for places, _ in lists])
        shown = self.rows.select(self.names)
        for row, (places, distances), likely in zip(query.rows, lists, chances, strict=True):
            cells = shown.take(pa.array(places, pa.int64())).to_pylist()
            each = zip(cells, distances.tolist(), likely, strict=True)
            matches = tuple(_match(rank, *one) for rank, one in enumerate(each, 1))
            found.append(Answer(row.name, matches, _unknown(matches, request.unknown_above)))
        return found

    def _probabilities(
        self, searcher: Searcher, query: Templates, table: Any, lists: Sequence[np.ndarray]
    ) -> list[list[float | None]]:
        """The probability that each query and each of its matches are of one identity, None where
        the run has kept no training pairs."""
        wide = searcher.view.origin.of(table.weights, True)
        judge = searcher.judge or searcher.search
        # Maps are so large that they are held for one query at a time.
        step = 1 if wide else max(1, len(lists))
        found: list[list[float | None]] = []
        for start in range(0, len(lists), step):
            some = lists[start : start + step]
            used = np.unique(np.concatenate(some))
            if not len(used):
                found += [[] for _ in some]
                continue
            index = torch.full((len(some), max(map(len, some))), -1)
            for row, places in zip(index, some, strict=True):
                row[: len(places)] = torch.from_numpy(np.searchsorted(used, places))
            one = _part(query, slice(start, start + step))
            gallery = self._templates(searcher, one, table, used)
            try:
                values = judge.probabilities(one, gallery, index, table.name).tolist()
            except DataError:
                values = [[None] * len(row) for row in index]
            found += [row[: len(places)] for row, places in zip(values, some, strict=True)]
        return found


def _require_finite(query: Templates, matchers: Sequence[str]) -> None:
    """Raise ReidError for a query of which a template is not finite: nothing is near it, and "no
    match" would be believed."""
    for name in matchers:
        for key, value in query.parts[name].items():
            good = value[:, None].isfinite().flatten(1).all(1).tolist()
            if not all(good):
                raise ReidError(
                    f"the template {name}.{key} of picture {query.rows[good.index(False)].name} is "
                    "not finite; nothing can be ranked by it"
                )


def _unknown(matches: Sequence[Match], above: float | None) -> bool:
    if above is None:
        return False
    if any(match.probability is None for match in matches):
        raise UsageError(
            "the run has kept no training pairs, so it gives no probabilities; --unknown-above "
            "needs them"
        )
    return all((match.probability or 0.0) < above for match in matches)


def _part(query: Templates, some: slice) -> Templates:
    """Return some of the queries."""
    parts = {
        name: {key: value[some] for key, value in template.items()}
        for name, template in query.parts.items()
    }
    return Templates(query.rows[some], parts, query.made_by)


def _match(rank: int, cells: dict[str, Any], distance: float, likely: float | None) -> Match:
    known = {name: cells[name] for name in BASE.names if name != "key"}
    columns = {name: value for name, value in cells.items() if name not in BASE.names}
    return Match(rank=rank, distance=distance, probability=likely, columns=columns, **known)
