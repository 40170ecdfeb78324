"""Evaluation: protocol, distances, postprocessors, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.api import Row
from reidcore.datasets import Loaded
from reidcore.errors import DataError, PluginError, ReidError
from reidcore.kept import KeptBlocks
from reidcore.matcher_ranking import MatcherRanking, ranking_of
from reidcore.metrics import PerQuery, Scores, rank_queries, summarize
from reidcore.model import Model, build_part
from reidcore.modules import Rows
from reidcore.pictures import PictureLoader, make_rows, meta_of
from reidcore.plan import Plan, Wired
from reidcore.progress import Reporter
from reidcore.scoring import make_templates
from reidcore.seeds import seeded
from reidcore.tables import Eval, RankingTable
from reidcore.text_table import aligned

_ROWS = 512
"""Queries whose scores are computed at a time."""


@attrs.frozen(eq=False)
class TestSet:
    """Query and gallery of one test set, with identities numbered over both."""

    name: str
    query: Rows
    gallery: Rows
    query_file: Tensor
    gallery_file: Tensor


def make_test_set(loaded: Loaded, plan: Plan) -> TestSet:
    """Splits a test entry's rows into query and gallery."""
    assert loaded.rows is not None
    every = make_rows(loaded.rows, plan.data.camera_numbers, plan.given.modalities)
    splits = [row.split for row in loaded.rows]
    number = {path: index for index, path in enumerate(dict.fromkeys(every.paths))}

    def side(split: str) -> tuple[Rows, Tensor]:
        rows = every.where([found == split for found in splits])
        return rows, torch.tensor([number[path] for path in rows.paths], dtype=torch.int64)

    (query, query_file), (gallery, gallery_file) = side("query"), side("gallery")
    return TestSet(loaded.source.name, query, gallery, query_file, gallery_file)


def require_matches(rows: Sequence[Row], name: str, same_camera: str) -> None:
    """Raises DataError with explaining counts if no query can have a match in the gallery."""
    gallery: dict[str, list[Row]] = {}
    for row in rows:
        if row.split == "gallery":
            gallery.setdefault(row.pid, []).append(row)
    reasons = {"identity": 0, "camera": 0, "file": 0}
    queries = [row for row in rows if row.split == "query"]
    for query in queries:
        others = gallery.get(query.pid, [])
        if not others:
            reasons["identity"] += 1
            continue
        files = [row for row in others if row.path != query.path]
        if not files:
            reasons["file"] += 1
            continue
        if same_camera != "keep" and query.camera:
            files = [row for row in files if row.camera != query.camera]
        if files:
            return
        reasons["camera"] += 1
    cameras = {row.camera for row in rows if row.camera}
    raise DataError(
        f"[data] test {name!r}: none of the {len(queries)} queries has a match in the gallery: "
        f"{reasons['identity']} have an identity that is not in the gallery, {reasons['camera']} "
        f"have gallery pictures of their identity from their own camera only (eval.same_camera = "
        f"{same_camera!r}; the data have {len(cameras)} cameras), {reasons['file']} find only "
        "their own file. "
        + (
            'With one camera, set eval.same_camera = "keep".'
            if reasons["camera"]
            else "Check the pids of the query and gallery splits."
        )
    )


def cross_camera(test: TestSet, rows: slice, same_camera: str) -> tuple[Tensor, Tensor]:
    """(match, ignored) bool [q, G] for some of the queries (Zheng et al. 2015, section 5).

    A match has the query's identity. Ignored are, with "drop", matches of the query's camera, with
    "drop_all", all pictures of it; always the query's own file. Unknown cameras are nobody's.
    """
    query_pid = torch.from_numpy(test.query.pid[rows])
    gallery_pid = torch.from_numpy(test.gallery.pid)
    match = query_pid[:, None] == gallery_pid
    ignored = test.query_file[rows][:, None] == test.gallery_file
    if same_camera != "keep":
        query_camera = torch.from_numpy(test.query.camera[rows])[:, None]
        same = (query_camera == torch.from_numpy(test.gallery.camera)) & (query_camera >= 0)
        ignored |= same & match if same_camera == "drop" else same
    return match, ignored


def evaluate(
    plan: Plan, model: Model, loader: PictureLoader, reporter: Reporter, kept: KeptBlocks
) -> dict[str, Any]:
    """{test set: {ranking: {stage: scores}}} for every test set and ranking.

    Stages are "plain" and, after each postprocessor, the chain so far, such as "rerank+tlift".
    kept: where the distances of long jobs are kept until all scores are there, so that an
    evaluation that was killed goes on. Seeded anew, so that a part that draws random numbers gives
    the same scores every time.
    """
    with seeded(plan.runfile.train.seed, "evaluate"):
        scores = _evaluate(plan, model, loader, reporter, kept)
    kept.discard()
    return scores


def _evaluate(
    plan: Plan, model: Model, loader: PictureLoader, reporter: Reporter, kept: KeptBlocks
) -> dict[str, Any]:
    settings = plan.runfile.eval
    ranks = wanted_ranks(settings, plan.runfile.train.best)
    longest = max(50, *ranks)
    results: dict[str, Any] = {}
    built = {wired.part.name: (wired, build_part(plan, wired)) for wired in plan.posts}
    for loaded in plan.data.test:
        if loaded.rows is None:
            raise DataError(
                f"[data] test {loaded.source.name!r}: data not found at {loaded.missing}"
            )
        test = make_test_set(loaded, plan)
        names = list(dict.fromkeys(name for one in plan.rankings for name in one.matchers))
        sides = {}
        for side, rows in (("query", test.query), ("gallery", test.gallery)):
            reporter.say(f"{test.name}: templates of {len(rows)} {side} pictures")
            sides[side] = make_templates(model, names, loader, rows, settings.views, settings.batch)
        results[test.name] = {}
        kept.begin(test.name)
        for ranking in plan.rankings:
            context = ranking_of(
                model, ranking, meta_of(test.query).to(model.device),
                meta_of(test.gallery).to(model.device), sides, settings.memory, model.pairs, kept,
            )  # fmt: skip
            reporter.say(f"{test.name}: ranking {ranking.name}{_share(ranking, test)}")
            if not ranking.post:
                stages = {"plain": _streamed(context, test, settings)}
            else:
                stages = _chain(context, test, settings, ranking.post, built)
            results[test.name][ranking.name] = {
                stage: as_json(summarize(parts, longest), ranks) for stage, parts in stages.items()
            }
    return results


def wanted_ranks(settings: Eval, best: str) -> list[int]:
    """The CMC ranks to report: those asked for, and the one that chooses the best epoch."""
    chosen = [int(best.removeprefix("rank-"))] if best.startswith("rank-") else []
    return list(dict.fromkeys([*settings.ranks, *chosen]))


def _share(ranking: RankingTable, test: TestSet) -> str:
    """What a shortlist leaves of the pairs, for the line that announces the ranking."""
    if ranking.shortlist is None:
        return ""
    top, gallery = min(ranking.shortlist.top, len(test.gallery)), len(test.gallery)
    return (
        f", {top} of {gallery} gallery pictures of each query, the nearest by "
        f"{ranking.shortlist.by}: {top / gallery:.1%} of all pairs"
    )


def _streamed(context: MatcherRanking, test: TestSet, settings: Eval) -> list[PerQuery]:
    """Scores by blocks of queries: no postprocessor needs the matrix, so none is held."""
    return [
        _rank(context.between("query", "gallery", rows.start, rows.stop), test, rows, settings)
        for rows in _blocks(test)
    ]


def _blocks(test: TestSet) -> Iterator[slice]:
    for start in range(0, len(test.query), _ROWS):
        yield slice(start, min(start + _ROWS, len(test.query)))


def _rank(distances: Tensor, test: TestSet, rows: slice, settings: Eval) -> PerQuery:
    match, ignored = cross_camera(test, rows, settings.same_camera)
    device = distances.device
    return rank_queries(distances, match.to(device), ignored.to(device))


def _chain(
    context: MatcherRanking,
    test: TestSet,
    settings: Eval,
    posts: Sequence[str],
    built: Mapping[str, tuple[Wired, Any]],
) -> dict[str, list[PerQuery]]:
    distances = context.between("query", "gallery", 0, len(test.query))
    stages = {"plain": [_rank(distances[rows], test, rows, settings) for rows in _blocks(test)]}
    distances = context.offered(distances)
    done: list[str] = []
    for name in posts:
        wired, post = built[name]
        distances = apply_post(wired, post, distances, context)
        done.append(name)
        stages["+".join(done)] = [
            _rank(context.complete(distances[rows], rows.start), test, rows, settings)
            for rows in _blocks(test)
        ]
    return stages


@torch.no_grad()
def apply_post(wired: Wired, post: Any, distances: Tensor, context: Any) -> Tensor:
    """One postprocessor, with its result checked."""
    shape = distances.shape
    try:
        result = post(distances, context)
    except ReidError as error:
        raise type(error)(f"{wired.part}: {error}") from error
    if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
        found = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else result
        raise PluginError(f"{wired.part}: returned {found} for float32 {list(shape)} distances")
    if not result.isfinite().all():
        raise PluginError(f"{wired.part}: returned distances that are not finite")
    return result


def as_json(scores: Scores, ranks: Sequence[int]) -> dict[str, Any]:
    """Scores as fractions, rounded to 6 decimals, with the whole CMC curve."""
    cmc = [round(value, 6) for value in scores.cmc.tolist()]
    named = {f"rank-{rank}": cmc[rank - 1] for rank in ranks}
    return {
        "mAP": round(scores.map, 6),
        **named,
        "mINP": round(scores.minp, 6),
        "queries": scores.valid,
        "queries_without_match": scores.total - scores.valid,
        "cmc": cmc,
    }


def score_table(results: Mapping[str, Any]) -> str:
    """Scores as aligned text, in percent."""
    rows = [
        (test, ranking, stage, found)
        for test, rankings in results.items()
        for ranking, stages in rankings.items()
        for stage, found in stages.items()
    ]
    if not rows:
        return "no test set"
    numbers = [key for key in rows[0][3] if key not in ("cmc", "queries", "queries_without_match")]
    header = ["test set", "ranking", "stage", *numbers, "queries"]
    table = [header]
    for test, ranking, stage, found in rows:
        percents = [_percent(found, key) for key in numbers]
        table.append([test, ranking, stage, *percents, _queries(found.get("queries", ""))])
    return aligned(table, 3)


def _percent(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if isinstance(value, Mapping):
        return f"{100 * value['mean']:.1f} ± {100 * value['deviation']:.1f}"
    return "" if value is None else f"{100 * value:.1f}"


def _queries(found: Any) -> str:
    return f"{found['mean']:g}" if isinstance(found, Mapping) else str(found)
