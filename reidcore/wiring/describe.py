"""The plan of a run as text, with what ranking will cost. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from reidcore.contracts.component import Feature
from reidcore.data.datasets import Loaded
from reidcore.protocols.base import SIDES, scored_name
from reidcore.runfiles.tables import RankingTable
from reidcore.wiring.plan import Plan


def describe_plan(plan: Plan) -> str:
    """Return the plan as text: data, features with who reads them, and the cost of ranking."""
    tests = {name: sizes for one in plan.data.test for name, sizes in _sizes_by_task(one).items()}
    heavy = [str(wired.part) for wired in plan.parts if wired.descriptor.heavy]
    lines = [
        f"run {plan.runfile.name} ({plan.runfile.path.name})",
        *_data_lines(plan),
        "features",
        *_feature_lines(plan),
        "rankings",
        *(line for ranking in plan.rankings for line in _ranking_lines(plan, ranking, tests)),
        *(f"note: {part}: its wiring imports torch" for part in heavy),
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def plan_as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data, with its settings as the run record has them."""
    readers = _readers(plan)
    return {
        "run": plan.runfile.name,
        "file": str(plan.runfile.path),
        "data": [
            {
                "role": one.source.role,
                "name": one.source.name,
                "splits": dict(one.counts),
                "assumed": one.rows is None,
            }
            for one in plan.data.loaded
        ],
        "identities": plan.given.identities,
        "parts": [{"role": one.part.role, "use": one.part.use} for one in plan.parts],
        "features": [
            {
                "name": name,
                "kind": feature.kind,
                "shape": list(feature.shape),
                "read_by": readers.get(name, []),
            }
            for name, feature in _features(plan)
        ],
        "weights": [{"part": part, "file": path} for part, path in plan.weights],
        "notes": list(plan.notes),
        "settings": plan.resolved(),
    }


def _readers(plan: Plan) -> dict[str, list[str]]:
    """Return the roles of the parts that read a feature, by its name."""
    readers: dict[str, list[str]] = {}
    for wired in plan.parts:
        for _, name in wired.reads:
            readers.setdefault(name, []).append(wired.part.role)
    return readers


def _features(plan: Plan) -> Iterator[tuple[str, Feature]]:
    for provider in (plan.backbone, *plan.heads):
        for output, feature in provider.outputs.items():
            yield f"{provider.instance}.{output}", feature


def _data_lines(plan: Plan) -> Iterator[str]:
    for one in plan.data.loaded:
        counts = ", ".join(f"{split} {count}" for split, count in one.counts.items())
        state = "" if one.rows is not None else " (assumed)"
        yield f"  {one.source.role} {one.source.name}: {counts}{state}"
    height, width = plan.given.image
    columns = ", ".join(sorted(plan.given.test_columns)) or "none"
    yield (
        f"  {plan.given.identities} training identities, image {height}x{width}, columns in test "
        f"data: {columns}"
    )
    for part, path in plan.weights:
        state = "" if os.path.isfile(path) else " (not there)"
        yield f"  {part} starts from {path}{state}"
    for part, name, run in plan.teachers:
        yield f"  {part} learns from {name + ' (not there)' if run is None else run.folder}"


def _feature_lines(plan: Plan) -> Iterator[str]:
    readers = _readers(plan)
    for name, feature in _features(plan):
        who = ", ".join(readers.get(name, [])) or "nobody (not computed)"
        yield f"  {name:24} {feature!s:20} read by {who}"


def _ranking_lines(plan: Plan, ranking: RankingTable, tests: Mapping[str, _Sizes]) -> Iterator[str]:
    matchings = [plan.matching(name) for name in ranking.matchers]
    stored = sum(spec.bytes for one in matchings for spec in one.template.values())
    flops = sum(plan.matching(name).pair_flops for name in ranking.weights)
    chain = " -> ".join([_mixture(ranking), *ranking.post])
    yield f"  {ranking.name}: {chain}; template {_bytes(stored)} per picture"
    for test, sizes in tests.items():
        if sizes.queries and sizes.gallery:
            yield f"    {test}: {_cost(ranking, sizes, stored, flops)}"
        else:
            yield f"    {test}: number of pairs known when the data are there"


def _cost(ranking: RankingTable, sizes: _Sizes, stored: int, flops: int) -> str:
    """Return the pairs, memory and arithmetic of a ranking of one task.

    stored: bytes of a picture's templates. flops: arithmetic of one pair.
    """
    scored = pairs = sizes.queries * sizes.gallery
    listed = ""
    if ranking.shortlist is not None:
        scored = sizes.queries * min(sizes.gallery, ranking.shortlist.top) * sizes.trials
        listed = f" ({scored} of the shortlist)"
    cost = f", {_flops(scored * flops)}" if flops else ""
    held = f"matrix {_bytes(4 * pairs)}" if ranking.post else "no matrix held"
    trials = f", {sizes.trials} trials of them" if sizes.trials > 1 else ""
    return (
        f"{sizes.queries} x {sizes.gallery} pairs{listed}, templates "
        f"{_bytes(stored * sizes.pictures)}, {held}{cost}{trials}"
    )


@attrs.frozen
class _Sizes:
    """Queries and gallery pictures over all trials of a task; pictures: distinct ones in both."""

    queries: int
    gallery: int
    pictures: int
    trials: int = 1


def _sizes_by_task(test: Loaded) -> dict[str, _Sizes]:
    """Return the sizes of a test set's tasks by name; 0 where they are not known."""
    name, counts = test.source.name, test.counts
    if test.rows is None or test.protocol is None:
        queries, gallery = counts.get("query", 0), counts.get("gallery", 0)
        return {name: _Sizes(queries, gallery, queries + gallery)}
    found = {}
    for task in test.protocol.tasks(test.rows):
        query, others = (
            {number for trial in task.trials for number in getattr(trial, side)} for side in SIDES
        )
        found[scored_name(name, task)] = _Sizes(
            len(query), len(others), len(query | others), len(task.trials)
        )
    return found


def _mixture(ranking: RankingTable) -> str:
    """Return the matchers of a ranking with their weights, its shortlist and its scale."""
    terms = [name if w == 1 else f"{w:g} {name}" for name, w in ranking.weights.items()]
    text = " + ".join(terms)
    if ranking.shortlist is not None:
        text += f" of the {ranking.shortlist.top} nearest by {ranking.shortlist.by}"
    return text if ranking.scale == "none" else f"{text} (scale {ranking.scale})"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _flops(count: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if count < 1000:
            return f"{count:.1f} {unit}FLOP"
        count /= 1000
    return f"{count:.1f} PFLOP"
