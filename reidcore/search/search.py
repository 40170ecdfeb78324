"""Ranks pictures that have no labels by a trained run.

import reidcore

run = reidcore.load("runs/own-pictures")
gallery = run.templates("gallery")          # a folder, a CSV file or a list of paths
query = run.templates(["new/01.jpg"])
distances = run.distances(query, gallery)   # [1, G]
ranked = run.rank(query, gallery, top=10)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Images, Rows
from reidcore.contracts.rows import columns
from reidcore.data.numbering import Numbering
from reidcore.data.pictures import PictureLoader, make_rows, meta_of
from reidcore.errors import UsageError, nearest
from reidcore.model.model import Model
from reidcore.ranking.comparer import Comparer, make_comparer
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.probability import probability_table
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import concatenate
from reidcore.runfiles.tables import RankingTable
from reidcore.runfolder.folder import SCORES
from reidcore.runfolder.opening import load_model, read_plan
from reidcore.runfolder.results import scores_of
from reidcore.runfolder.shared import run_folder
from reidcore.search.explain import Explained, Explainer, explained_pairs, listed_pairs
from reidcore.search.explained_features import (
    choose_identity,
    choose_maps,
    choose_vectors,
    with_features,
)
from reidcore.search.index_files import (
    TemplateWriter,
    check_templates,
    is_index,
    made_by,
    read_index,
    write_index,
)
from reidcore.search.pictures import Pictures, rows_of, same_files
from reidcore.search.results import Ranked, Templates
from reidcore.support.device_memory import CPU, fits
from reidcore.support.seeds import seeded
from reidcore.support.sorting import smallest
from reidcore.wiring.plan import Plan

_BLOCK = 1 << 26
"""Distances held at once where no postprocessor needs all of them."""


def load(
    folder: str | os.PathLike[str],
    evaluation: str | os.PathLike[str] | None = None,
    device: str = "auto",
    losses: bool = False,
    sets: Sequence[str] = (),
) -> Search:
    """Return a trained run, ready to rank pictures; see `reidcore.load`. sets: changes such as
    "matcher.pairs.drawn=cosine"."""
    folder = run_folder(folder)
    plan = read_plan(
        folder,
        "train" if losses else "rank",
        evaluation=Path(evaluation) if evaluation is not None else None,
        sets=sets,
        allow_missing=losses,
    )
    if not plan.rankings:
        raise UsageError(f"the run in {folder} has no [[matcher]], so it cannot rank")
    return Search(folder, plan, load_model(folder, plan, device))


class Search:
    """A trained run that makes templates of pictures and ranks them. `reidcore.load` makes one.

    Wherever a method takes pictures, these are a folder, a zip, a CSV file, or one picture or a
    list of pictures, each of them a path, a picture of Pillow's, a uint8 array [H, W, 3] or a uint8
    tensor [3, H, W]; `Templates` that the run has made save making them again.

    Attributes:
        rankings: names of the run's rankings; the first is used where none is named.
        made_by: what `Templates.made_by` is of templates that this run makes.
        folder: the run folder.
        plan, model: the run's plan and model.
    """

    def __init__(self, folder: Path, plan: Plan, model: Model):
        self.folder = folder
        self.plan = plan
        self.model = model
        self.rankings = tuple(ranking.name for ranking in plan.rankings)
        self.made_by = made_by(folder, plan)
        self._numbering = Numbering.of_training(plan.data.trained)
        self._matchers = list(
            dict.fromkeys(name for ranking in plan.rankings for name in ranking.matchers)
        )

    def _repr_html_(self) -> str:
        """Show the run in a notebook, with the scores that its folder holds."""
        from reidcore.search.notebook import run_html

        scores = scores_of(self.folder) if (self.folder / SCORES).is_file() else {}
        return run_html(self.plan.runfile.name, self.rankings, scores)

    def templates(self, pictures: Pictures) -> Templates:
        """Return the templates of pictures, for every matcher that some ranking uses.

        Args:
            pictures: a folder or a zip, whose pictures are found at any depth; a CSV file with the
                column path, whose columns camera, time, modality and box are read where they are
                there; a folder that `index` wrote, whose templates stay on disk and are read as
                needed; or one picture, or a list of pictures, which may be of several kinds: paths,
                `reidcore.api.Row`s, pictures of Pillow's, uint8 NumPy arrays [H, W, 3] and uint8
                tensors [3, H, W]. Colours of arrays and tensors are red, green and blue, from 0 to
                255; turn the blue, green and red of OpenCV by `frame[..., ::-1]`. A picture in
                memory gives what the same picture gives as a PNG file.

        Raises:
            reidcore.errors.DataError: for a picture that is missing or damaged, or no picture.
            reidcore.errors.UsageError: for an index that another run has made, and for arrays and
                tensors of another shape or dtype.

        Example::

            gallery = run.templates("gallery")
            query = run.templates(["new/01.jpg", frame[top:bottom, left:right]])
        """
        if isinstance(pictures, str | os.PathLike) and is_index(Path(pictures)):
            return self._open(Path(pictures))
        rows = rows_of(pictures)
        batches = list(self._batches(rows))
        parts = {name: concatenate([found[name] for found in batches]) for name in self._matchers}
        return Templates(rows, parts, self.made_by)

    def images(self, pictures: Pictures) -> Images:
        """Return pictures as the run's network is given them: resized and normalised, on its
        device.

        `run.model(images)` returns the features that the run's rankings read, by full name;
        `reidcore.modules.open_run` gives a model with all features of the run.

        Args:
            pictures: as for `templates`, but no index; all of them are held in memory at once.

        Raises:
            reidcore.errors.ReidError: as for `templates`.

        Example::

            images = run.images(["new/01.jpg", frame])
            with torch.no_grad():
                features = run.model(images)
        """
        rows = self._numbered(rows_of(pictures))
        data = attrs.evolve(self.plan.runfile.data, cache=0.0, worker_kind="thread")
        loader = PictureLoader(data, self.plan.runfile.train.seed, device=self.model.device)
        (batch,) = loader.plain(rows, len(rows))
        return batch.images

    def index(self, pictures: Pictures, folder: str | os.PathLike[str]) -> Templates:
        """Write templates of pictures into a new folder, batch by batch, and open it.

        The folder holds index.json, manifest.csv and templates.safetensors, and appears when it is
        complete. The templates need not fit into memory. The folder keeps paths and boxes:
        pictures in memory, and those that a plugin's opener reads, are found in it by their names,
        but `explain` can draw them only from what this returns.

        Args:
            pictures: as for `templates`.
            folder: the folder to make.

        Raises:
            reidcore.errors.UsageError: if the folder exists.
            reidcore.errors.OutputError: if it cannot be written, such as on a full disk; then
                nothing of it is left.
            reidcore.errors.DataError: as for `templates`.

        Example::

            run.index("gallery", "gallery-index")
            ranked = run.rank("new", "gallery-index")
        """
        folder = Path(folder)
        rows = rows_of(pictures)
        specs = {name: self.plan.matching(name).template for name in self._matchers}
        with write_index(folder, rows, self.made_by, self.plan.runfile.name) as partial:
            writer = TemplateWriter(partial, specs, len(rows))
            for found in self._batches(rows):
                writer.add(found)
            writer.close()
        stored = self._open(folder)
        opened = (attrs.evolve(a, opener=b.opener) for a, b in zip(stored.rows, rows, strict=True))
        return attrs.evolve(stored, rows=tuple(opened))

    def distances(
        self, a: Templates | Pictures, b: Templates | Pictures, ranking: str | None = None
    ) -> Tensor:
        """Return the distances of all pictures of `a` to all of `b`, before any postprocessor.

        Args:
            a: the query side.
            b: the gallery side.
            ranking: the ranking that fuses matchers' distances, by default the run's first.

        Returns:
            float32 [len(a), len(b)] on the CPU, smaller is closer.

        Raises:
            reidcore.errors.UsageError: for templates of another run, or an unknown ranking.

        Example::

            distances = run.distances("new", "gallery")
            nearest = distances.argmin(1)
        """
        query, gallery = self._templates_of(a), self._templates_of(b)
        found = self._ranking(self._table(ranking), query, gallery, whole=True)
        with seeded(self.plan.runfile.train.seed, "evaluate"):
            return found.whole().cpu()

    def check_asked(self, top: int, ranking: str | None = None) -> RankingTable:
        """Return the table of a ranking, by default the first. Raises UsageError if there is none
        of this name, or `top` is below 1."""
        if top < 1:
            raise UsageError(f"top must be at least 1, got {top}")
        return self._table(ranking)

    def rank(
        self,
        query: Templates | Pictures,
        gallery: Templates | Pictures,
        top: int = 10,
        ranking: str | None = None,
    ) -> Ranked:
        """Return the nearest gallery pictures of every query, after the ranking's postprocessors.

        A query's own file is left out of its list. Equally near pictures keep the gallery's order.

        Args:
            query: the pictures to look for.
            gallery: the pictures to look among.
            top: how many gallery pictures to list of each query, at least 1; fewer where the
                gallery has fewer.
            ranking: a ranking of the run, by default its first.

        Raises:
            reidcore.errors.UsageError: as for `distances`, or if a postprocessor needs a column,
                such as time, that the pictures do not have.

        Example::

            for match in run.rank("new", "gallery", top=3):
                print(match.query, match.rank, match.gallery)
        """
        from reidcore.wiring.rankings import check_chain

        table = self.check_asked(top, ranking)
        queries, others = self._templates_of(query), self._templates_of(gallery)
        check_chain(self.plan, table, columns(queries.rows) & columns(others.rows))
        own = same_files(queries.rows, others.rows)
        found = []
        with seeded(self.plan.runfile.train.seed, "evaluate"):
            for start, distances in self._blocks(table, queries, others):
                stop = start + len(distances)
                here = own[:, (own[0] >= start) & (own[0] < stop)].to(distances.device)
                distances[here[0] - start, here[1]] = torch.inf
                found.append(smallest(distances, min(top, len(others))))
        index, distance = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Ranked(queries.rows, others.rows, index, distance)

    def probabilities(
        self,
        query: Templates | Pictures,
        gallery: Templates | Pictures,
        index: Tensor,
        ranking: str | None = None,
    ) -> Tensor:
        """Return how probable it is that listed pairs show one identity.

        The probability comes from the distances of the ranking's matchers, whatever postprocessors
        do to the order, and is fitted on pairs of training pictures: of those that `data.hold_out`
        keeps from training, or else of those trained on, of which the network is too sure. It holds
        for a pair from as many pairs of one identity as of two.

        Args:
            query: the Q pictures to look for.
            gallery: the pictures to look among.
            index: int64 [Q, K], places in the gallery, as `Ranked.index`; -1 for none.
            ranking: a ranking of the run, by default its first.

        Returns:
            float32 [Q, K] on the CPU, in [0, 1]; 0 where there is no picture.

        Raises:
            reidcore.errors.UsageError: as for `distances`.
            reidcore.errors.DataError: for a run that has kept no training pairs.

        Example::

            ranked = run.rank(query, gallery, top=3)
            print(run.probabilities(query, gallery, ranked.index))
        """
        queries, others = self._templates_of(query), self._templates_of(gallery)
        found = self._ranking(probability_table(self._table(ranking)), queries, others, whole=False)
        listed = index >= 0
        row = torch.arange(len(index))[:, None].expand_as(index)[listed]
        pairs = row.to(self.model.device), index[listed].to(self.model.device)
        strangers = found.pairs("query", pairs[0], "gallery", pairs[1]).cpu()
        result = torch.zeros(index.shape)
        result[listed] = (1 - strangers).clamp(0, 1)
        return result

    def explain(
        self,
        query: Templates | Pictures,
        gallery: Templates | Pictures,
        top: int = 3,
        ranking: str | None = None,
        maps: Sequence[str] | None = None,
        limit: int | None = None,
        vectors: Sequence[str] = (),
        identity: str | None = None,
    ) -> Iterator[Explained]:
        """Yield every query with each of its nearest gallery pictures, and why they match.

        The pictures' files are read again. docs/explain.md says what the explanations are.

        Args:
            query: the query pictures.
            gallery: the gallery pictures.
            top: how many gallery pictures to explain of each query, at least 1.
            ranking: a ranking of the run, by default its first.
            maps: the features to look at, such as "backbone.layer3"; by default the last map that
                the ranking computes.
            limit: how many queries to explain, at least 1; by default all.
            vectors: features, such as "neck.bn", of which to find what in the maps speaks for each.
            identity: the name of a training identity that losses score; by default each picture's
                likeliest. Needs `losses=True` in `reidcore.load`.

        Raises:
            reidcore.errors.UsageError: as for `rank`, and for a map, vector or identity that the
                run does not have.
            reidcore.errors.PluginError: for a part that fails to explain itself.

        Example::

            for pair in run.explain("new", "gallery", top=1, limit=2):
                print(pair.query.path, pair.gallery.path, list(pair.found))
        """
        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, got {limit}")
        # A map or identity that the run does not have is refused before anything is ranked.
        explainer = self._explainer(ranking, maps, vectors, identity)
        pairs = listed_pairs(self.rank(query, gallery, top, ranking), limit)
        return self._explained(explainer, pairs)

    def explain_pairs(
        self,
        pairs: Sequence[Explained],
        ranking: str | None = None,
        maps: Sequence[str] | None = None,
        vectors: Sequence[str] = (),
        identity: str | None = None,
    ) -> Iterator[Explained]:
        """Yield chosen pairs of a query and a gallery picture with `found`, why the two match.

        Args:
            pairs: pairs that need not be near each other, such as
                `Explained(number=1, query=row, rank=1, gallery=other, distance=0.4, found={})`.
            ranking: the ranking whose matchers are asked, by default the run's first.
            maps, vectors, identity: as for `explain`.

        Raises:
            reidcore.errors.UsageError: for a ranking, map, vector or identity that the run does
                not have.
            reidcore.errors.PluginError: for a part that fails to explain itself.
        """
        return self._explained(self._explainer(ranking, maps, vectors, identity), pairs)

    def _explainer(
        self,
        ranking: str | None,
        maps: Sequence[str] | None,
        vectors: Sequence[str],
        identity: str | None,
    ) -> Explainer:
        chosen = choose_maps(self.plan, maps)
        chosen_vectors = choose_vectors(self.plan, vectors)
        number = choose_identity(self.plan, identity)
        model = with_features(self.model, self.folder, [*chosen, *chosen_vectors])
        matchers = tuple(self._table(ranking).weights)
        return Explainer(model, matchers, chosen, chosen_vectors, number)

    def _explained(self, explainer: Explainer, pairs: Sequence[Explained]) -> Iterator[Explained]:
        rows = self._numbered([row for pair in pairs for row in (pair.query, pair.gallery)])
        loader = PictureLoader(self.plan.runfile.data, self.plan.runfile.train.seed)
        return explained_pairs(explainer, pairs, loader, rows)

    def _table(self, name: str | None) -> RankingTable:
        """The [[ranking]] of this name."""
        if name is None:
            return self.plan.rankings[0]
        for ranking in self.plan.rankings:
            if ranking.name == name:
                return ranking
        raise UsageError(
            f"the run has no ranking {name!r}{nearest(name, self.rankings)}; there are "
            f"{', '.join(self.rankings)}"
        )

    def _templates_of(self, given: Templates | Pictures) -> Templates:
        if not isinstance(given, Templates):
            return self.templates(given)
        if given.made_by != self.made_by:
            raise UsageError(
                f"these templates were made by {given.made_by}, not by {self.made_by}: their "
                "distances would mean nothing"
            )
        return given

    def _open(self, folder: Path) -> Templates:
        rows, parts, made_by = read_index(folder)
        missing = [name for name in self._matchers if name not in parts]
        if made_by != self.made_by or missing:
            raise UsageError(
                f"{folder} was indexed by {made_by}"
                + (f" without the matcher {missing[0]!r}" if missing else "")
                + f", and this run is {self.made_by}; index its pictures again"
            )
        for name in self._matchers:
            check_templates(folder, name, parts[name], self.plan.matching(name).template)
        return Templates(rows, parts, made_by)

    def _numbered(self, rows: Sequence[Row]) -> Rows:
        """The rows with cameras and modalities numbered as in training."""
        numbering = self._numbering.extended(rows)
        return make_rows(rows, numbering.cameras, numbering.modalities)

    def _comparer(self) -> Comparer:
        settings = self.plan.runfile
        # Threads, because a search may be part of a service, which must not be forked.
        data = attrs.evolve(settings.data, cache=0.0, worker_kind="thread")
        return make_comparer(self.model, PictureLoader(data, settings.train.seed))

    def _batches(self, rows: Sequence[Row]) -> Iterator[dict[str, Template]]:
        """{matcher: template} of batches of pictures, on the CPU."""
        for found in self._comparer().template_batches(self._matchers, self._numbered(rows)):
            yield {
                name: {key: value.cpu() for key, value in template.items()}
                for name, template in found.items()
            }

    def _ranking(
        self, table: RankingTable, query: Templates, gallery: Templates, whole: bool
    ) -> MatcherRanking:
        """whole: whether the whole matrix is held. If it does not fit on the model's device, it is
        the CPU's, and so is all that is done to it."""
        device = self.model.device
        place = CPU if whole and not fits(4 * len(query) * len(gallery), device) else device
        meta = meta_of(self._numbered([*query.rows, *gallery.rows])).to(place)
        templates = {"query": query.on(device), "gallery": gallery.on(device)}
        names = {"query": query.names, "gallery": gallery.names}
        sides = Sides(meta[: len(query)], meta[len(query) :], templates, names=names)
        return self._comparer().ranking(table, sides, gallery.memo.setdefault(repr(table), {}))

    def _blocks(
        self, table: RankingTable, query: Templates, gallery: Templates
    ) -> Iterator[tuple[int, Tensor]]:
        """(first query, distances [q, G]) of all queries, after the ranking's postprocessors."""
        ranking = self._ranking(table, query, gallery, whole=bool(table.post))
        if not table.post:
            rows = max(1, _BLOCK // len(gallery))
            for start in range(0, len(query), rows):
                stop = min(start + rows, len(query))
                yield start, ranking.between("query", "gallery", start, stop)
            return
        distances = ranking.before_postprocessing(ranking.whole())
        posts = {wired.part.name: wired for wired in self.plan.posts}
        for name in table.post:
            distances = build_postprocessor(self.plan, posts[name])(distances, ranking)
        yield 0, ranking.after_postprocessing(distances, 0)
