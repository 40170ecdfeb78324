"""Features, templates and distances of pictures by the model of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Rows
from reidcore.data.pictures import PictureLoader
from reidcore.distributed.processes import ALONE, Processes
from reidcore.distributed.shared_batches import RemoteImages
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.model.finite import faults, is_finite
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs, choose_pictures, sort_pairs
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.distances_key import distances_key
from reidcore.ranking.fusion import Fusion, Share, Shortlisting
from reidcore.ranking.kept_blocks import KeptBlocks, SetBlocks
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.scales import Scale, fit
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import Storage, require_finite, view_of
from reidcore.runfiles.tables import FITTED, RankingTable
from reidcore.support.progress import Reporter
from reidcore.support.seeds import generator


@attrs.frozen(eq=False)
class Comparer:
    """Reads pictures and computes their features, templates and distances with a run's model.

    Everything is computed in eval mode with the test transform, and the model's mode is restored
    after each batch, so that the caller may train in between. Processes that share the work must
    make the same calls in the same order; each gets the whole result.

    views: the test views whose templates are merged. batch: pictures of one forward pass.
    """

    model: Model
    loader: PictureLoader
    views: Sequence[str]
    batch: int
    resources: Resources

    @property
    def processes(self) -> Processes:
        return self.resources.processes

    def kept_blocks(self, folder: Path, reporter: Reporter) -> KeptBlocks:
        """Return the blocks of this model's distances that are kept in a run folder."""
        return KeptBlocks(folder, lambda: distances_key(self.model), reporter)

    def keeping(self, kept: SetBlocks) -> Comparer:
        """Return the same comparer, whose rankings keep the blocks of long jobs there."""
        return attrs.evolve(self, resources=attrs.evolve(self.resources, kept=kept))

    @torch.no_grad()
    def features(self, rows: Rows) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """Yield (features by name, batch), batch by batch in the order of the rows."""
        batches = _batches(rows, self.batch)
        own = self._own_features(_own_rows(rows, batches, self.processes))
        if self.processes.count == 1:
            yield from own
            return
        for first in range(0, len(batches), self.processes.count):
            together = batches[first : first + self.processes.count]
            mine = next(own) if self.processes.number < len(together) else None
            for number, places in enumerate(together):
                here = mine if number == self.processes.number else None
                nothing = torch.empty(0, device=self.model.device)
                features = {
                    name: self.processes.of(number, here[0][name] if here else nothing)
                    for name in self.model.feature_names
                }
                yield features, here[1] if here else self._remote(rows.take(places))

    def _own_features(self, rows: Rows) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """The features that this process makes."""
        model = self.model
        device = model.device
        for batch in self.loader.plain(rows, self.batch):
            batch = Batch(batch.images.to(device), batch.pid.to(device))
            training = model.training
            model.eval()
            try:
                features = model(batch.images)
            finally:
                model.train(training)
            yield features, batch

    def _remote(self, rows: Rows) -> Batch:
        """A batch that another process has made features of."""
        device = self.model.device
        images = RemoteImages(
            torch.from_numpy(rows.modality).to(device),
            torch.from_numpy(rows.camera).to(device),
            lambda: next(self.loader.plain(rows, len(rows))).images.pixels.to(device),
        )
        return Batch(images, torch.from_numpy(rows.pid).to(device))

    @torch.no_grad()
    def template_batches(
        self, matchers: Sequence[str], rows: Rows
    ) -> Iterator[dict[str, Template]]:
        """Yield {matcher: template} of the next pictures, views merged, on the model's device. This
        process alone makes them. Raises ReidError for one that is not finite."""
        model = self.model
        used = {name: model.matchers[name] for name in matchers}
        training, done = model.training, 0
        for batch in self.loader.plain(rows, self.batch):
            images = batch.images.to(model.device)
            viewed: dict[str, list[Template]] = {name: [] for name in matchers}
            model.eval()
            try:
                for view in self.views:
                    features = model(view_of(images, view))
                    for name, matcher in used.items():
                        viewed[name].append(matcher.template(features))
                merged = {name: matcher.merge(viewed[name]) for name, matcher in used.items()}
            finally:
                model.train(training)
            names = [rows.picture(done + place).name for place in range(len(batch))]
            for name, template in merged.items():
                require_finite(name, template, names)
            done += len(batch)
            yield merged

    def templates(
        self, matchers: Sequence[str], rows: Rows, storage: Storage | None = None
    ) -> dict[str, Template]:
        """Return {matcher: template} of all rows, views merged. storage: where they are stored, by
        default on the model's device."""
        storage = Storage(self.model.device) if storage is None else storage
        batches = _batches(rows, self.batch)
        places = [slice(batch.start, batch.stop) for batch in batches]
        own = _own_rows(rows, batches, self.processes)
        whole = {
            name: {
                key: storage.empty(f"{name}.{key}", len(rows), spec)
                for key, spec in self.model.plan.matching(name).template.items()
            }
            for name in matchers
        }
        mine = [batch for _, batch in self.processes.share(places)]
        for batch, templates in zip(mine, self.template_batches(matchers, own), strict=True):
            for name, template in templates.items():
                for key, value in template.items():
                    whole[name][key][batch] = value
        for template in whole.values():
            for value in template.values():
                self.processes.complete(value, places)
        return whole

    def distances(
        self,
        matcher: str,
        a: Template,
        b: Template,
        paths: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> Tensor:
        """Return one matcher's own distances, float32 [len(a), len(b)]; `a` is the query side.

        paths: of both sides' pictures, for the message. Raises ReidError for a distance that is not
        finite.
        """
        matching, resources = self.model.plan.matching(matcher), self.resources
        found = compute_distances(
            self.model.matchers[matcher], matching, a, b, resources.memory, resources.device
        )
        if not is_finite(found):
            row, column = (~found.isfinite()).nonzero()[0].tolist()
            pair = f"{paths[0][row]} and {paths[1][column]}" if paths else f"{row} and {column}"
            raise ReidError(
                f"distances by matcher {matcher!r} are not finite: {faults(found)}, the first is "
                f"between the pictures {pair}"
            )
        return found

    def training_pairs(self, rows: Rows, seed: int) -> dict[str, Pairs]:
        """Return {matcher: its distances of some pairs of training pictures}, on which scales are
        fitted. Which pictures are chosen follows from the seed."""
        names = list(self.model.matchers)
        if not len(rows) or not names:
            return {}
        rows = rows.take(choose_pictures(rows, generator(seed, "training pairs")))
        return {
            name: sort_pairs(
                self.distances(name, template, template, (rows.paths, rows.paths)), rows
            )
            for name, template in self.templates(names, rows).items()
        }

    def ranking(
        self, table: RankingTable, sides: Sides, memo: dict[str, Any] | None = None
    ) -> MatcherRanking:
        """Return the distances between two sides as a [[ranking]] table fuses them. memo: see
        `MatcherRanking`. Raises DataError for a scale that cannot be fitted."""
        fusion = make_fusion(table, self.model, self.model.pairs)
        return MatcherRanking(fusion, sides, self.resources, memo)


def make_comparer(model: Model, loader: PictureLoader, processes: Processes = ALONE) -> Comparer:
    """Return the comparer of a run, with the views, batches and memory of its [eval]."""
    settings = model.plan.runfile.eval
    resources = Resources(settings.memory, model.device, processes)
    return Comparer(model, loader, tuple(settings.views), settings.batch, resources)


def make_fusion(table: RankingTable, model: Model, pairs: Mapping[str, Pairs]) -> Fusion:
    """Return the fusion of the model's matchers that a [[ranking]] table asks for.

    pairs: distances of training pairs by matcher. Raises DataError for a scale that has to be
    fitted where they are missing, UsageError where they were measured under other settings.
    """

    def share(name: str, weight: float = 1.0, scale: Scale | None = None) -> Share:
        return Share(name, model.matchers[name], model.plan.matching(name), weight, scale)

    shares = [
        share(name, weight, _fitted(table, name, pairs, model.stale_pairs))
        for name, weight in table.weights.items()
    ]
    shortlist = None
    if table.shortlist is not None:
        promised = {one.name: one.matching.unit for one in shares}
        chooses = share(table.shortlist.by)
        shortlist = Shortlisting(chooses, table.shortlist.top, table.unit(promised))
    return Fusion(shares, table.scale == "row_minmax", shortlist)


def _fitted(
    table: RankingTable, matcher: str, pairs: Mapping[str, Pairs], stale: Mapping[str, str]
) -> Scale | None:
    if table.scale not in FITTED:
        return None
    place = f"ranking {table.name!r}: matcher {matcher!r}"
    if matcher not in pairs:
        raise DataError(
            f"{place}: scale = {table.scale!r} is fitted on training pairs, but the run has kept "
            "none: it was trained without data.train, or these are weights-best.safetensors of a "
            "run whose own rankings need none"
        )
    if matcher in stale:
        raise UsageError(
            f"{place}: scale = {table.scale!r} is fitted on training pairs that were measured "
            f"under other settings: {stale[matcher]}. It does not fit these distances: undo the "
            "change, train a run with it, or give the ranking scale = 'row_minmax' or 'none'"
        )
    try:
        return fit(table.scale, pairs[matcher])
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _batches(rows: Rows, size: int) -> list[range]:
    return [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def _own_rows(rows: Rows, batches: Sequence[range], processes: Processes) -> Rows:
    """The rows of this process's share of batches."""
    if processes.count == 1:
        return rows
    return rows.take([row for _, batch in processes.share(batches) for row in batch])
