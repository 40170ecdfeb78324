"""The page: sections of every run and of their comparison, rendered as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

import attrs
import jinja2

from reid_report import plots, tables
from reid_report.folder import Folder, Line, Panels, Place
from reid_report.open_set_plots import open_set_plots
from reid_report.sections import (
    Changed,
    RankingSection,
    change_section,
    ranking_section,
    strips_of,
)
from reid_report.stage import Stage
from reid_report.studio import Drawn, Options, Studio
from reid_report.tables import Grid
from reidcore.tools import __version__, metric_of, number_of

if TYPE_CHECKING:
    from reid_report.evaluation import Evaluated


@attrs.define(eq=False)
class RunSection:
    """Everything of one run. key: its anchor."""

    key: str
    folder: Folder
    facts: Sequence[tuple[str, str]]
    notes: list[str]
    counting: Sequence[str]
    scores: Grid
    settings: Grid
    versions: Grid
    figures: list[Drawn] = attrs.field(factory=list)
    training: list[Drawn] = attrs.field(factory=list)
    rankings: list[RankingSection] = attrs.field(factory=list)


@attrs.frozen(eq=False)
class Comparison:
    """Several runs beside each other."""

    scores: Grid
    settings: Grid
    figures: Sequence[Drawn]
    changes: Sequence[Changed]


class Page:
    """A report in the making: `add` runs in order, then ask for `html`."""

    def __init__(self, options: Options):
        self._studio = Studio(options)
        self._runs: list[RunSection] = []
        self._found: list[Evaluated | None] = []

    def add(self, folder: Folder, found: Evaluated | None, notes: Sequence[str] = ()) -> None:
        """A run. found: what its evaluation showed, if there was one. notes: what is to be known
        about it."""
        run = RunSection(
            f"run{len(self._runs) + 1}",
            folder,
            tables.facts(folder),
            [*folder.absent, *notes],
            tables.counting(folder),
            tables.scores(folder),
            tables.settings(folder),
            tables.versions(folder),
        )
        if folder.cmc:
            curves = {" ".join(place): shares for place, shares in folder.cmc.items()}
            run.figures.append(self._studio.figure(plots.cmc(f"{run.key}-cmc", "", curves)))
        lists = {" ".join(place): found for place, found in folder.open_set.items()}
        run.figures += map(self._studio.figure, open_set_plots(run.key, lists))
        panels = [*training_panels(folder).items(), *score_panels(folder).items()]
        for panel, lines in panels:
            plot = plots.by_epoch(f"{run.key}-epochs-{panel}", panel, lines)
            run.training.append(self._studio.figure(plot))
        if found is not None:
            run.notes += disagreements(folder, found)
            for place, stages in chains(found.stages).items():
                run.rankings.append(ranking_section(self._studio, run.key, found, place, stages))
        self._runs.append(run)
        self._found.append(found)

    def html(self, title: str) -> str:
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        files = resources.files("reid_report")
        template = environment.from_string((files / "page.html.jinja").read_text("utf-8"))
        compared = self._compared() if len(self._runs) > 1 else None
        return template.render(
            title=title,
            runs=self._runs,
            compared=compared,
            version=__version__,
            style=(files / "style.css").read_text("utf-8"),
            album=self._studio.album.css(),
        )

    def _compared(self) -> Comparison:
        folders = [run.folder for run in self._runs]
        figures = []
        for test in dict.fromkeys(place[0] for folder in folders for place in folder.cmc):
            curves = {
                " ".join([folder.label, *place[1:]]): shares
                for folder in folders
                for place, shares in folder.cmc.items()
                if place[0] == test
            }
            plot = plots.cmc(f"compared-{test}-cmc", test, curves)
            figures.append(self._studio.figure(plot))
        for test in dict.fromkeys(place[0] for folder in folders for place in folder.open_set):
            lists = {
                " ".join([folder.label, *place[1:]]): found
                for folder in folders
                for place, found in folder.open_set.items()
                if place[0] == test
            }
            drawn = open_set_plots(f"compared-{test}", lists, test)
            figures += map(self._studio.figure, drawn)
        losses = {folder.label: lines for folder in folders if (lines := _lines(folder, "loss"))}
        if losses:
            plot = plots.by_epoch("compared-loss", "loss", losses)
            figures.append(self._studio.figure(plot))
        return Comparison(
            tables.side_by_side(folders), tables.telling_settings(folders), figures, self._changes()
        )

    def _changes(self) -> list[Changed]:
        """From the first run to every other one, where both are scored on the same pictures."""
        first, changes = self._found[0], []
        for run, other in zip(self._runs[1:], self._found[1:], strict=True):
            if first is None or other is None:
                continue
            ours, theirs = last_stages(first.stages), last_stages(other.stages)
            for test, (label, old) in ours.items():
                if test not in theirs or not same_pictures(first, other, test):
                    continue
                after, new = theirs[test]
                labels = (
                    f"{self._runs[0].folder.label} {label}",
                    f"{run.folder.label} {after}",
                )
                name = f"compared-{run.key}-{test}"
                strips = strips_of(self._studio, other, test)
                changes.append(change_section(self._studio, name, labels, old, new, strips))
        return changes


def chains(stages: Mapping[Place, Stage]) -> dict[tuple[str, str], dict[str, Stage]]:
    """{(name of the scores, ranking): {stage: what was found}}."""
    found: dict[tuple[str, str], dict[str, Stage]] = {}
    for (test, ranking, stage), one in stages.items():
        found.setdefault((test, ranking), {})[stage] = one
    return found


def last_stages(stages: Mapping[Place, Stage]) -> dict[str, tuple[str, Stage]]:
    """{name of the scores: the last stage of the first ranking, with its label}."""
    found: dict[str, tuple[str, Stage]] = {}
    for (test, ranking), chain in chains(stages).items():
        stage, one = list(chain.items())[-1]
        found.setdefault(test, (f"{ranking} {stage}", one))
    return found


def same_pictures(first: Evaluated, second: Evaluated, test: str) -> bool:
    """True if both runs scored the same pictures under this name, by their manifests' hashes."""
    key = f"test {first.test_of[test]}"
    return test in second.test_of and first.hashes.get(key) == second.hashes.get(key)


def training_panels(folder: Folder) -> Panels:
    """Every number that was logged by epoch, the learning rate, and what procedures left."""
    panels: Panels = {}
    for term in [*folder.terms, "lr"]:
        lines = _lines(folder, term)
        if lines:
            # A loss and what it logs besides, such as id and id.accuracy, differ in scale.
            panels["learning rate" if term == "lr" else term] = {term: lines}
    return panels | folder.tracked


def score_panels(folder: Folder) -> Panels:
    """mAP and rank-1, in percent, of the epochs that were scored."""
    scores: Panels = {}
    for scored in folder.scored:
        by_place: dict[tuple[Place, str], tuple[list[float], list[float]]] = {}
        for epoch, places in scored:
            for place, numbers in places.items():
                for name, value in numbers.items():
                    if metric_of(name) in ("mAP", "rank-1"):
                        epochs, values = by_place.setdefault((place, name), ([], []))
                        epochs.append(epoch)
                        values.append(100 * value)
        for (place, name), line in by_place.items():
            scores.setdefault(f"{name}, %", {}).setdefault(" ".join(place), []).append(line)
    return scores


def _lines(folder: Folder, term: str) -> list[Line]:
    """One line for each repeat that logged the term."""
    lines: list[Line] = []
    for history in folder.histories:
        rows = [row for row in history if term in row]
        if rows:
            lines.append(([row["epoch"] for row in rows], [row[term] for row in rows]))
    return lines


def disagreements(folder: Folder, found: Evaluated) -> list[str]:
    """A note where the evaluation's scores are not those of the run folder."""
    if len(folder.runs) > 1:
        return [f"Distances and pictures are those of the first repeat, {folder.runs[0].name}."]
    notes = []
    for place, stored in folder.scores.items():
        test, ranking, stage = place
        fresh = found.scores.get(test, {}).get(ranking, {}).get(stage, {})
        for name, score in stored.items():
            if name in fresh and abs(number_of(fresh[name]) - score.mean) > 5e-4:
                notes.append(
                    f"{' '.join(place)}: {name} is {100 * number_of(fresh[name]):.2f} here and "
                    f"{100 * score.mean:.2f} in scores.json: pictures, weights, versions or the "
                    "device have changed since."
                )
                break
    return notes
