"""Ranking pictures without labels by a trained run: templates are made once, and asked again.

run = reidcore.load("runs/own-pictures")
gallery = run.templates("gallery")          # a folder, a CSV file or a list of paths
query = run.templates(["new/01.jpg"])
distances = run.distances(query, gallery)   # [1, G]
ranked = run.rank(query, gallery, top=10)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Rows
from reidcore.contracts.rows import columns
from reidcore.data.datasets import DataPlan, Loaded
from reidcore.data.index import list_pictures
from reidcore.data.manifest import read_manifest
from reidcore.data.pictures import PictureLoader, make_rows, meta_of
from reidcore.errors import DataError, UsageError, nearest
from reidcore.model.building import build_part
from reidcore.model.model import Model
from reidcore.ranking.kept_blocks import CPU
from reidcore.ranking.matcher_ranking import MatcherRanking, ranking_of
from reidcore.ranking.postprocess import apply_post
from reidcore.ranking.templates import concatenate, template_batches
from reidcore.runfiles.runfile import Source
from reidcore.runfiles.tables import RankingTable
from reidcore.runfolder.opening import load_model, read_run
from reidcore.search.index_files import TemplateWriter, read_index, write_index
from reidcore.search.results import Pictures, Ranked, Templates
from reidcore.support.device_memory import fits
from reidcore.support.seeds import seeded
from reidcore.support.sorting import smallest
from reidcore.wiring.plan import Plan

if TYPE_CHECKING:
    from reidcore.search.explain import Explained


_BLOCK = 1 << 26
"""Distances held at once where no postprocessor needs all of them."""


def load(
    folder: str | os.PathLike[str],
    evaluation: str | os.PathLike[str] | None = None,
    device: str = "auto",
    losses: bool = False,
) -> Search:
    """A trained run, ready to rank pictures that have no labels.

    folder: a run folder. evaluation: a file whose rankings and postprocessors replace the run's, as
    in `reid eval RUN_DIR FILE`. device: auto, cpu, cuda or cuda:N. Neither data sets nor plugins
    that only train are needed, unless `losses` are loaded too, for what they explain. Raises
    `reidcore.errors.ReidError` with what is wrong.
    """
    from reidcore.plugins.loading import Plugins
    from reidcore.wiring.make_plan import make_plan

    folder = Path(folder)
    lock, run = read_run(folder, Path(evaluation) if evaluation is not None else None)
    plan = make_plan(
        run,
        Plugins(),
        purpose="train" if losses else "rank",
        allow_missing=losses,
        training=lock["training"],
    )
    if not plan.rankings:
        raise UsageError(f"the run in {folder} has no [[matcher]], so it cannot rank")
    return Search(folder, plan, load_model(folder, plan, device))


class Search:
    """A trained run that makes templates of pictures and ranks them; see `load`.

    rankings: names of the run's rankings; the first is used where none is named.
    """

    def __init__(self, folder: Path, plan: Plan, model: Model):
        self.folder = folder
        self.plan = plan
        self.model = model
        self.rankings = tuple(ranking.name for ranking in plan.rankings)
        self.made_by = _fingerprint(folder, plan)

    def templates(self, pictures: Pictures) -> Templates:
        """Templates of a folder's pictures, of those that a CSV file lists, or of a list of paths.

        The CSV file needs the column path; camera, time and modality are read where they are there.
        A folder that `index` wrote is opened: its templates stay on disk and are read as needed.
        Raises DataError for a picture that is missing or damaged, and for an index of another
        model.
        """
        if isinstance(pictures, str | os.PathLike) and Path(pictures, "index.json").is_file():
            return self._open(Path(pictures))
        rows = _rows_of(pictures)
        batches = list(self._batches(rows))
        parts = {name: concatenate([found[name] for found in batches]) for name in self._matchers()}
        return Templates(rows, parts, self.made_by)

    def index(self, pictures: Pictures, folder: str | os.PathLike[str]) -> Templates:
        """Like `templates`, but writes them into a new folder, batch by batch, and opens it.

        The folder holds index.json, manifest.csv and templates.safetensors, and appears when it is
        complete. Raises UsageError if it exists.
        """
        folder = Path(folder)
        rows = _rows_of(pictures)
        specs = {name: self.plan.matching(name).template for name in self._matchers()}
        with write_index(folder, rows, self.made_by, self.plan.runfile.name) as partial:
            writer = TemplateWriter(partial, specs, len(rows))
            for found in self._batches(rows):
                writer.add(found)
            writer.close()
        return self._open(folder)

    def distances(
        self, a: Templates | Pictures, b: Templates | Pictures, ranking: str | None = None
    ) -> Tensor:
        """float32 [len(a), len(b)] on the CPU before any postprocessor, smaller is closer; `a` is
        the query side."""
        first, second = self._templates(a), self._templates(b)
        context = self._context(self._ranking(ranking), first, second, whole=True)
        with seeded(self.plan.runfile.train.seed, "evaluate"):
            return context.whole().cpu()

    def rank(
        self,
        query: Templates | Pictures,
        gallery: Templates | Pictures,
        top: int = 10,
        ranking: str | None = None,
    ) -> Ranked:
        """The `top` nearest gallery pictures of every query, after the ranking's postprocessors.

        A query's own file is left out of its list. Raises UsageError if a postprocessor needs a
        column, such as time, that the pictures do not have.
        """
        from reidcore.wiring.rankings import check_chain

        if top < 1:
            raise UsageError(f"top must be at least 1, got {top}")
        first, second = self._templates(query), self._templates(gallery)
        table = self._ranking(ranking)
        check_chain(self.plan, table, columns(first.rows) & columns(second.rows))
        context = self._context(table, first, second, whole=bool(table.post))
        own = _own_files(first, second)
        size = min(top, len(second))
        rows = len(first) if table.post else max(1, _BLOCK // len(second))
        found = []
        with seeded(self.plan.runfile.train.seed, "evaluate"):
            for start in range(0, len(first), rows):
                stop = min(start + rows, len(first))
                if table.post:
                    distances = self._processed(table, context.whole(), context)
                else:
                    distances = context.between("query", "gallery", start, stop)
                here = own[:, (own[0] >= start) & (own[0] < stop)].to(distances.device)
                distances[here[0] - start, here[1]] = torch.inf
                found.append(smallest(distances, size))
        index, distance = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Ranked(first.rows, second.rows, index, distance)

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
        """Why the `top` nearest gallery pictures of the first `limit` queries match, pair by pair.

        maps: names such as backbone.layer3, by default the last map that the ranking computes.
        vectors: names such as neck.bn, to find in the maps what speaks for each. identity: the name
        of a training identity that losses score, by default each picture's likeliest. What is found
        and what the run's parts add: `reidcore.search.explain`. The pictures' files are read
        again. Raises UsageError for a map, vector or identity that the run does not have.
        """
        from reidcore.search.explain import listed_pairs

        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, got {limit}")
        asked = self._asked(maps, vectors, identity)  # what is wrong is told before all work
        pairs = listed_pairs(self.rank(query, gallery, top, ranking), limit)
        return self._explained(pairs, ranking, *asked)

    def explain_pairs(
        self,
        pairs: Sequence[Explained],
        ranking: str | None = None,
        maps: Sequence[str] | None = None,
        vectors: Sequence[str] = (),
        identity: str | None = None,
    ) -> Iterator[Explained]:
        """Why the two pictures of chosen pairs match; each pair comes with `found` filled in.

        pairs: of a query and a gallery picture, which need not be near each other, such as
        `Explained(number=1, query=row, rank=1, gallery=other, distance=0.4, found={})`. ranking:
        whose matchers are asked. maps, vectors, identity: as for `explain`.
        """
        return self._explained(pairs, ranking, *self._asked(maps, vectors, identity))

    def _asked(
        self, maps: Sequence[str] | None, vectors: Sequence[str], identity: str | None
    ) -> tuple[Model, Sequence[str], Sequence[str], int | None]:
        """The model that computes all of it, the maps, the vectors, the identity's number."""
        from reidcore.search.explain import (
            choose_identity,
            choose_maps,
            choose_vectors,
            with_features,
        )

        chosen = choose_maps(self.plan, maps)
        chosen_vectors = choose_vectors(self.plan, vectors)
        number = choose_identity(self.plan, identity)
        model = with_features(self.model, self.folder, [*chosen, *chosen_vectors])
        return model, chosen, chosen_vectors, number

    def _explained(
        self,
        pairs: Sequence[Explained],
        ranking: str | None,
        model: Model,
        maps: Sequence[str],
        vectors: Sequence[str],
        identity: int | None,
    ) -> Iterator[Explained]:
        from reidcore.search.explain import explained_pairs

        rows = self._numbered([row for pair in pairs for row in (pair.query, pair.gallery)])
        loader = PictureLoader(self.plan.runfile.data, self.plan.runfile.train.seed)
        matchers = list(self._ranking(ranking).weights)
        return explained_pairs(model, matchers, maps, pairs, loader, rows, vectors, identity)

    def _ranking(self, name: str | None) -> RankingTable:
        if name is None:
            return self.plan.rankings[0]
        for ranking in self.plan.rankings:
            if ranking.name == name:
                return ranking
        raise UsageError(
            f"the run has no ranking {name!r}{nearest(name, self.rankings)}; there are "
            f"{', '.join(self.rankings)}"
        )

    def _matchers(self) -> list[str]:
        """Every matcher that some ranking uses."""
        return list(dict.fromkeys(name for one in self.plan.rankings for name in one.matchers))

    def _templates(self, given: Templates | Pictures) -> Templates:
        if not isinstance(given, Templates):
            return self.templates(given)
        if given.made_by != self.made_by:
            raise UsageError(
                f"these templates were made by {given.made_by}, not by {self.made_by}: their "
                "distances would mean nothing"
            )
        return given

    def _numbered(self, rows: Sequence[Row]) -> Rows:
        """Rows with cameras and modalities numbered as in training."""
        data = DataPlan((), (Loaded(_UNNAMED, tuple(rows), None),), self.plan.data.trained)
        return make_rows(rows, data.camera_numbers, data.modalities)

    def _batches(self, rows: Sequence[Row]) -> Iterator[dict[str, Template]]:
        settings = self.plan.runfile
        # Threads, because a search may be part of a service, which must not be forked.
        data = attrs.evolve(settings.data, cache=0.0, worker_kind="thread")
        loader = PictureLoader(data, settings.train.seed)
        for found in template_batches(
            self.model,
            self._matchers(),
            loader,
            self._numbered(rows),
            settings.eval.views,
            settings.eval.batch,
        ):
            yield {
                name: {key: value.cpu() for key, value in template.items()}
                for name, template in found.items()
            }

    def _context(
        self, ranking: RankingTable, query: Templates, gallery: Templates, whole: bool
    ) -> MatcherRanking:
        """whole: whether the whole matrix is held. If it does not fit on the model's device, it is
        the CPU's, and so is all that is done to it."""
        device = self.model.device
        place = CPU if whole and not fits(4 * len(query) * len(gallery), device) else device
        meta = meta_of(self._numbered([*query.rows, *gallery.rows])).to(place)
        sides = {"query": query.on(device), "gallery": gallery.on(device)}
        return ranking_of(
            self.model,
            ranking,
            meta[: len(query)],
            meta[len(query) :],
            sides,
            self.plan.runfile.eval.memory,
            self.model.pairs,
            memo=gallery.memo.setdefault(repr(ranking), {}),
        )

    def _processed(
        self, ranking: RankingTable, distances: Tensor, context: MatcherRanking
    ) -> Tensor:
        posts = {wired.part.name: wired for wired in self.plan.posts}
        distances = context.offered(distances)
        for name in ranking.post:
            built = build_part(self.plan, posts[name])
            distances = apply_post(posts[name], built, distances, context)
        return context.complete(distances, 0)

    def _open(self, folder: Path) -> Templates:
        rows, parts, made_by = read_index(folder)
        missing = [name for name in self._matchers() if name not in parts]
        if made_by != self.made_by or missing:
            raise UsageError(
                f"{folder} was indexed by {made_by}"
                + (f" without the matcher {missing[0]!r}" if missing else "")
                + f", and this run is {self.made_by}; index its pictures again"
            )
        return Templates(rows, parts, made_by)


_UNNAMED = Source("test", ())


def _fingerprint(folder: Path, plan: Plan) -> str:
    """A short text that differs where templates would: name, weights, picture size, views."""
    digest = hashlib.sha256()
    with open(folder / "weights.safetensors", "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    data, views = plan.runfile.data, plan.runfile.eval.views
    digest.update(repr((data.image, data.interpolation, data.normalize, views)).encode())
    return f"{plan.runfile.name} ({digest.hexdigest()[:12]})"


def _rows_of(pictures: Pictures) -> tuple[Row, ...]:
    if isinstance(pictures, str | os.PathLike):
        path = Path(pictures)
        if path.suffix.lower() == ".csv" and not path.is_dir():
            return tuple(read_manifest(path, labelled=False))
        if path.is_file():
            return (Row(str(path.absolute()), "", split="gallery"),)
        return tuple(list_pictures(path))
    rows = tuple(
        one if isinstance(one, Row) else Row(os.path.abspath(one), "", split="gallery")
        for one in pictures
    )
    if not rows:
        raise DataError("there are no pictures to make templates of")
    return rows


def _own_files(query: Templates, gallery: Templates) -> Tensor:
    """int64 [2, N]: places of a query and of a gallery picture of the same file."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(gallery.rows):
        places.setdefault(os.path.realpath(row.path), []).append(place)
    own = [
        (place, other)
        for place, row in enumerate(query.rows)
        for other in places.get(os.path.realpath(row.path), ())
    ]
    return torch.tensor(own, dtype=torch.int64).reshape(-1, 2).T
