"""The page: gathers tables, figures and pictures of runs, and writes them as HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import jinja2
import numpy as np

from reidcore import __version__
from reidcore.errors import ReidError
from reidcore.report import plots, selection, tables
from reidcore.report.album import Album, data_uri
from reidcore.report.folder import Folder, Place
from reidcore.report.plots import Plot
from reidcore.report.stage import Stage
from reidcore.report.tables import Grid
from reidcore.report.tiles import Strip, Strips, png_of
from reidcore.runfolder import write_atomically

if TYPE_CHECKING:
    from reidcore.report.evaluation import Evaluated

FAILURES = 6
"""Hardest failures, confident mistakes, gains and losses: so many of each."""
EXPLAINED_SIDE = 640
"""Pixels of an explanation's longer side at most."""


@attrs.frozen
class Options:
    """What goes on the page.

    pictures: whether pictures of people and things are on it. side: their longer side in pixels at
    most. queries: ranked lists of each ranking. explain: pairs explained of each ranking. ranking:
    the only one that is looked at, "" for all. png: a folder for every figure as a PNG.
    """

    pictures: bool = True
    side: int = 128
    queries: int = 10
    explain: int = 2
    ranking: str = ""
    png: Path | None = None


@attrs.frozen(eq=False)
class Drawn:
    """A figure on the page, in two inks."""

    alt: str
    light: str
    dark: str
    width: int


@attrs.frozen(eq=False)
class Listing:
    """Strips under a heading."""

    title: str
    words: str
    strips: Sequence[Strip]


@attrs.frozen(eq=False)
class Changed:
    """What another stage, or another run, made of the ranks of first matches."""

    title: str
    words: str
    figure: Drawn
    listings: Sequence[Listing]


@attrs.define(eq=False)
class RankingPart:
    """What distances of one test set under one ranking show."""

    title: str
    words: str
    figures: list[Drawn] = attrs.field(factory=list)
    changes: list[Changed] = attrs.field(factory=list)
    listings: list[Listing] = attrs.field(factory=list)
    explained: list[tuple[Strip, Sequence[Any]]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class RunPart:
    """Everything of one run."""

    key: str
    folder: Folder
    facts: Sequence[tuple[str, str]]
    notes: list[str]
    counting: Sequence[str]
    scores: Grid
    figures: list[Drawn]
    rankings: list[RankingPart]
    settings: Grid
    versions: Grid


class Page:
    """A report in the making. add runs in order, then `html`."""

    def __init__(self, options: Options):
        self.options = options
        self._album = Album(options.side)
        self._runs: list[RunPart] = []
        self._seen: list[Evaluated | None] = []
        self._names: dict[str, int] = {}

    def add(self, folder: Folder, found: Evaluated | None, why_not: str = "") -> None:
        """A run. found: what its evaluation showed; without it, why_not tells why."""
        part = RunPart(
            f"run{len(self._runs) + 1}", folder, tables.facts(folder), list(folder.absent),
            tables.counting(folder), tables.scores(folder), [], [], tables.settings(folder),
            tables.versions(folder),
        )  # fmt: skip
        if why_not:
            part.notes.append(why_not)
        if folder.cmc:
            part.figures.append(self._figure(plots.cmc(f"{part.key}-cmc", _labelled(folder.cmc))))
        if panels := _panels(folder):
            part.figures.append(self._figure(plots.by_epoch(f"{part.key}-training", panels)))
        if found is not None:
            part.notes += _disagreements(folder, found)
            for place, stages in _chains(found.stages).items():
                part.rankings.append(self._ranking(part, found, place, stages))
        self._runs.append(part)
        self._seen.append(found)

    def html(self, title: str) -> str:
        """The whole page."""
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        files = resources.files("reidcore.report")
        template = environment.from_string((files / "page.html.jinja").read_text("utf-8"))
        compared = self._compared() if len(self._runs) > 1 else None
        return template.render(
            title=title, runs=self._runs, compared=compared, version=__version__,
            style=(files / "style.css").read_text("utf-8"), album=self._album.css(),
        )  # fmt: skip

    def _figure(self, plot: Plot) -> Drawn:
        if self.options.png is not None:
            self._write_png(plot.name, plot.png())
        light, dark = (
            data_uri("image/svg+xml", plot.svg(ink)) for ink in (plots.LIGHT, plots.DARK)
        )
        return Drawn(plot.alt, light, dark, round(96 * plot.inches[0]))

    def _write_png(self, name: str, content: bytes) -> None:
        assert self.options.png is not None
        stem = re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-.") or "figure"
        count = self._names[stem] = self._names.get(stem, 0) + 1
        file = f"{stem}.png" if count == 1 else f"{stem}-{count}.png"
        write_atomically(self.options.png / file, content)

    def _ranking(
        self, run: RunPart, found: Evaluated, place: tuple[str, str], stages: Mapping[str, Stage]
    ) -> RankingPart:
        test, ranking = place
        name = f"{run.key}-{test}-{ranking}"
        last = list(stages.values())[-1]
        words = f"{len(last.query)} queries; lists are those of the last stage, {list(stages)[-1]}."
        if last.trials > 1:
            words += f" Distances and lists are those of the first of {last.trials} trials."
        part = RankingPart(f"{test}, ranking {ranking}", words)
        part.figures.append(self._figure(plots.distances(f"{name}-distances", stages)))
        if len(last.cameras) > 1:
            part.figures.append(self._figure(plots.cameras(f"{name}-cameras", last.cameras)))
        strips = None
        if self.options.pictures:
            source = found.test_of[test]
            strips = Strips(self._album, found.rows[source], found.folder[source])
        labels = list(stages.items())
        for (before, old), (after, new) in zip(labels, labels[1:], strict=False):
            names = (before, after)
            part.changes.append(self._change(f"{name}-{after}", names, old, new, strips))
        if strips is not None:
            try:
                part.listings += self._listings(name, strips, last)
                part.explained += self._explained(found, strips, ranking, last)
            except ReidError as error:
                part.notes.append(str(error))
        return part

    def _change(
        self, name: str, labels: tuple[str, str], old: Stage, new: Stage, strips: Strips | None
    ) -> Changed:
        change = selection.change(old, new)
        words = (
            f"The first match of {len(change.gained)} queries gained ranks, of "
            f"{len(change.lost)} it lost some, of {change.same} it stayed. Average precision rose "
            f"for {change.ap_gained} and fell for {change.ap_lost}."
        )
        figure = self._figure(plots.ranks(f"{name}-ranks", *labels, change))
        listings = []
        for title, places in (("Largest gains", change.gained), ("Largest losses", change.lost)):
            if strips is not None and len(places):
                found = strips.lists(new, places[:FAILURES], _moved(old, new))
                listings.append(Listing(title, f"Lists of {labels[1]}.", found))
        return Changed(f"{labels[0]} to {labels[1]}", words, figure, listings)

    def _listings(self, name: str, strips: Strips, stage: Stage) -> Iterator[Listing]:
        places = selection.spread(stage, self.options.queries)
        found = strips.lists(stage, places, _precision(stage))
        if found and self.options.png is not None:
            out = _png(png_of(found))
            self._write_png(f"{name}-lists", out)
        yield Listing(
            "Ranked lists",
            "The query first, then its nearest gallery pictures. Queries are taken evenly from the "
            "test set's order.",
            found,
        )
        yield Listing(
            "Hardest failures",
            "Queries whose first match comes last: the nearest wrong picture, and the first match.",
            strips.failures(stage, selection.hardest(stage, FAILURES)),
        )
        yield Listing(
            "Most confident wrong matches",
            "Queries whose first picture is wrong, by its distance, and their first match.",
            strips.failures(stage, selection.most_confident(stage, FAILURES)),
        )

    def _explained(
        self, found: Evaluated, strips: Strips, ranking: str, stage: Stage
    ) -> list[tuple[Strip, Sequence[Any]]]:
        """Pairs of the most confident mistakes and their queries' first matches, explained."""
        places = selection.most_confident(stage, self.options.explain)
        if not len(places):
            places = selection.spread(stage, self.options.explain)
        if not len(places):
            return []
        from reidcore.report.explaining import explanations, pair_of

        table = next(one for one in found.plan.rankings if one.name == ranking)
        chosen = strips.failures(stage, places)
        pairs = [
            pair_of(number, *found_pair)
            for number, found_pair in enumerate(self._pairs(found, stage, places), 1)
        ]
        shown = explanations(found.plan, found.model, list(table.weights), pairs, EXPLAINED_SIDE)
        return list(zip(chosen, shown, strict=True))

    def _pairs(
        self, found: Evaluated, stage: Stage, places: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[Any, int, Any, float]]:
        raise NotImplementedError

    def _compared(self) -> dict[str, Any]:
        raise NotImplementedError


def _labelled(curves: Mapping[Place, Sequence[float]]) -> dict[str, Sequence[float]]:
    return {" ".join(place): shares for place, shares in curves.items()}
