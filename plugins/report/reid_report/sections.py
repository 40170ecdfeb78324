"""The sections of one test set under one ranking: figures, lists, changes, explanations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from reid_report import plots, selection
from reid_report.stage import Stage
from reid_report.studio import Drawn, Studio
from reid_report.tiles import Strip, Strips, png_of
from reidcore.errors import ReidError

if TYPE_CHECKING:
    from reid_report.evaluation import Evaluated
    from reid_report.explaining import Shown

CHOSEN = 6
"""Queries shown of each kind of failure and of change."""
EXPLAINED_SIDE = 540
"""Pixels of an explanation's longer side at most."""


@attrs.frozen(eq=False)
class Listing:
    """Strips under a heading."""

    title: str
    words: str
    strips: Sequence[Strip]


@attrs.frozen(eq=False)
class Changed:
    """A section on how another stage, or another run, changed the ranks of first matches."""

    title: str
    words: str
    figure: Drawn
    listings: Sequence[Listing]


@attrs.define(eq=False)
class RankingSection:
    """Everything of one test set under one ranking."""

    title: str
    words: str
    figures: list[Drawn] = attrs.field(factory=list)
    changes: list[Changed] = attrs.field(factory=list)
    listings: list[Listing] = attrs.field(factory=list)
    explained: list[tuple[Strip, Sequence[Shown]]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)


def ranking_section(
    studio: Studio, key: str, found: Evaluated, place: tuple[str, str], stages: Mapping[str, Stage]
) -> RankingSection:
    """key: of the run, for names of files. place: (name of the scores, ranking). stages: from the
    first to the last."""
    test, ranking = place
    name = f"{key}-{test}-{ranking}"
    label, last = list(stages.items())[-1]
    words = f"{len(last.query)} queries."
    if len(stages) > 1:
        words += f" Lists and camera pairs are those of the last stage, {label}."
    if last.trials > 1:
        words += f" Distances and lists are those of the first of {last.trials} trials."
    section = RankingSection(f"{test}, ranking {ranking}", words)
    for stage, one in stages.items():
        plot = plots.distances(f"{name}-{stage}-distances", stage, one)
        section.figures.append(studio.figure(plot))
    if len(last.cameras) > 1:
        section.figures.append(studio.figure(plots.cameras(f"{name}-cameras", last.cameras)))
    strips = strips_of(studio, found, test)
    labels = list(stages.items())
    try:
        for (before, old), (after, new) in itertools.pairwise(labels):
            changed = change_section(studio, f"{name}-{after}", (before, after), old, new, strips)
            section.changes.append(changed)
        if strips is not None:
            section.listings += _listings(studio, name, strips, last)
            section.explained += _explained(studio, found, strips, ranking, last)
    except ReidError as error:
        section.notes.append(str(error))
    return section


def strips_of(studio: Studio, found: Evaluated, test: str) -> Strips | None:
    """Makes strips of the pictures behind the scores named `test`; None if none are wanted."""
    if not studio.options.pictures:
        return None
    source = found.test_of[test]
    return Strips(studio.album, found.rows[source], found.folder[source])


def change_section(
    studio: Studio,
    name: str,
    labels: tuple[str, str],
    old: Stage,
    new: Stage,
    strips: Strips | None,
) -> Changed:
    """From one stage to another of the same queries; lists are those of the second."""
    change = selection.change(old, new)
    words = (
        f"Of {len(change.place)} queries with a match, the first match of {len(change.gained)} "
        f"gained ranks, of {len(change.lost)} it lost some, of {change.same} it stayed. Average "
        f"precision rose for {change.ap_gained} and fell for {change.ap_lost}."
    )
    figure = studio.figure(plots.ranks(f"{name}-ranks", *labels, change))
    listings = []
    for title, places in (("Largest gains", change.gained), ("Largest losses", change.lost)):
        if strips is not None and len(places):
            found = strips.lists(new, places[:CHOSEN], _moved(old, new))
            listings.append(Listing(title, f"Lists of {labels[1]}.", found))
    return Changed(f"{labels[0]} → {labels[1]}", words, figure, listings)


def _moved(old: Stage, new: Stage) -> Callable[[int], str]:
    return lambda place: f"first match at rank {old.rank[place]}, then at {new.rank[place]}"


def _precision(stage: Stage) -> Callable[[int], str]:
    def words(place: int) -> str:
        text = f"first match at rank {stage.rank[place]}"
        text += f", average precision {100 * stage.ap[place]:.1f} %"
        hidden = stage.near_hidden[place]
        return f"{text}; {hidden} more that are not counted lie among these" if hidden else text

    return words


def _listings(studio: Studio, name: str, strips: Strips, stage: Stage) -> Iterator[Listing]:
    places = selection.spread(stage, studio.options.queries)
    found = strips.lists(stage, places, _precision(stage))
    if found and studio.options.png is not None:
        studio.sheet(f"{name}-lists", png_of(found))
    yield Listing(
        "Ranked lists",
        "The query, then its nearest gallery pictures. Queries are taken evenly from the test set.",
        found,
    )
    yield Listing(
        "Hardest failures",
        "Queries whose first match comes last: their nearest wrong picture, and that first match.",
        strips.failures(stage, selection.hardest(stage, CHOSEN)),
    )
    yield Listing(
        "Most confident wrong matches",
        "Queries whose first picture is wrong, the nearest such first, and their first match.",
        strips.failures(stage, selection.most_confident(stage, CHOSEN)),
    )


def _explained(
    studio: Studio, found: Evaluated, strips: Strips, ranking: str, stage: Stage
) -> Iterator[tuple[Strip, Sequence[Shown]]]:
    """The most confident wrong matches and the same queries' first matches; of a ranking without
    failures some queries with theirs."""
    places = selection.most_confident(stage, studio.options.explain)
    if not len(places):
        places = selection.spread(stage, studio.options.explain)
    pairs = [
        attrs.evolve(strip, gallery=[tile])
        for strip in strips.failures(stage, places)
        for tile in strip.gallery
        if tile.kind == "match" or stage.rank[strip.place] > 1
    ]
    if not pairs:
        return
    from reid_report.explaining import explanations

    shown = explanations(found.search, ranking, pairs, EXPLAINED_SIDE)
    yield from zip(pairs, shown, strict=True)
