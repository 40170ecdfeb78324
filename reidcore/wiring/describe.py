"""The plan of a run as text, with what ranking will cost. Torch-free."""

from __future__ import annotations

from pathlib import Path

import attrs

from reidcore.data.datasets import Loaded
from reidcore.protocols.base import SIDES, scored_name
from reidcore.runfiles.tables import RankingTable
from reidcore.wiring.plan import Plan


def describe_plan(plan: Plan) -> str:
    """The plan as text: features, who reads them, and what ranking will cost."""
    run = plan.runfile
    lines = [f"run {run.name} ({run.path.name})"]
    for one in plan.data.loaded:
        counts = ", ".join(f"{split} {count}" for split, count in one.counts.items())
        state = "" if one.rows is not None else " (assumed)"
        lines.append(f"  {one.source.role} {one.source.name}: {counts}{state}")
    lines.append(
        f"  {plan.given.identities} training identities, image {run.data.image[0]}x"
        f"{run.data.image[1]}, columns in test data: "
        f"{', '.join(sorted(plan.given.test_columns)) or 'none'}"
    )
    for part, path in plan.weights:
        state = "" if Path(path).is_file() else " (not there)"
        lines.append(f"  {part} starts from {path}{state}")
    lines.append("features")
    readers: dict[str, list[str]] = {}
    for wired in plan.parts:
        for _, name in wired.reads:
            readers.setdefault(name, []).append(wired.part.role)
    for provider in (plan.backbone, *plan.heads):
        instance = provider.part.name or "backbone"
        for output, feature in provider.outputs.items():
            name = f"{instance}.{output}"
            who = ", ".join(readers.get(name, [])) or "nobody (not computed)"
            lines.append(f"  {name:24} {feature!s:20} read by {who}")
    lines.append("rankings")
    tests = {name: sizes for one in plan.data.test for name, sizes in _pools(one).items()}
    matching = {wired.part.name: wired.matching for wired in plan.matchers}
    for ranking in plan.rankings:
        used = [matching[name] for name in ranking.weights]
        needed = [matching[name] for name in ranking.matchers]
        stored = sum(spec.bytes for one in needed if one for spec in one.template.values())
        flops = sum(one.pair_flops for one in used if one)
        shortlist = ranking.shortlist
        chain = " -> ".join([_mixture(ranking), *ranking.post])
        lines.append(f"  {ranking.name}: {chain}; template {_bytes(stored)} per picture")
        for test, sizes in tests.items():
            if not sizes.queries or not sizes.gallery:
                lines.append(f"    {test}: number of pairs known when the data are there")
                continue
            pairs = sizes.queries * sizes.gallery
            scored, listed = pairs, ""
            if shortlist is not None:
                scored = sizes.queries * min(sizes.gallery, shortlist.top) * sizes.trials
                listed = f" ({scored} of the shortlist)"
            cost = f", {_flops(scored * flops)}" if flops else ""
            held = f"matrix {_bytes(4 * pairs)}" if ranking.post else "no matrix held"
            trials = f", {sizes.trials} trials of them" if sizes.trials > 1 else ""
            lines.append(
                f"    {test}: {sizes.queries} x {sizes.gallery} pairs{listed}, templates "
                f"{_bytes(stored * sizes.pictures)}, {held}{cost}{trials}"
            )
    heavy = [str(wired.part) for wired in plan.parts if wired.descriptor.heavy]
    lines += [f"note: {part}: its wiring imports torch" for part in heavy]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


@attrs.frozen
class _Sizes:
    """Queries and gallery pictures over all trials of a task, and distinct pictures in both."""

    queries: int
    gallery: int
    pictures: int
    trials: int = 1


def _pools(test: Loaded) -> dict[str, _Sizes]:
    """The sizes of a test set's tasks; 0 where they are not known."""
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
