"""Checks of postprocessors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.given import WiringError
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Meta
from reidcore.contracts.wiring_methods import call_wiring
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import take
from reidcore.runfiles.tables import RankingTable
from reidcore.testing.comparing import same
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import batch_of, meta_of, pictures, template_of
from reidcore.wiring.plan import Plan
from reidcore.wiring.rankings import follow_chain

Side = tuple[dict[str, Template], Meta]
"""Templates by matcher, and what ranking may know of the pictures."""


def _chains(sample: Sample, plan: Plan) -> list[tuple[RankingTable, str]]:
    """Return (ranking, name of the postprocessor) wherever the sample ranks with the component."""
    mine = {wired.part.name for wired in sample.instances(plan)}
    found = [(ranking, name) for ranking in plan.rankings for name in ranking.post if name in mine]
    if not found:
        raise ConformanceError("its sample has no ranking with it")
    return found


def _sides(plan: Plan, model: Model, ranking: RankingTable) -> tuple[Side, Side]:
    sides = []
    for size, seed in ((6, 0), (14, 100)):
        images = pictures(plan, size, seed)
        templates = {
            name: template_of(model, model.matchers[name], images) for name in ranking.matchers
        }
        sides.append((templates, meta_of(images, seed)))
    return sides[0], sides[1]


def _pairs(plan: Plan, model: Model, ranking: RankingTable) -> dict[str, Pairs]:
    """Return the distances of a random batch's pairs, to which scales are fitted."""
    batch = batch_of(plan)
    same = batch.pid[:, None] == batch.pid
    found = {}
    for name in ranking.weights:
        template = template_of(model, model.matchers[name], batch.images)
        distances = model.matchers[name].distance(template, template).detach()
        found[name] = Pairs(distances[same], distances[~same])
    return found


def _apply(
    plan: Plan, model: Model, ranking: RankingTable, last: str, query: Side, gallery: Side
) -> Tensor:
    """Return the distances after the ranking's postprocessors up to `last`."""
    sides = Sides(query[1], gallery[1], {"query": query[0], "gallery": gallery[0]})
    pairs = _pairs(plan, model, ranking)
    context = MatcherRanking(make_fusion(ranking, model, pairs), sides)
    found = context.between("query", "gallery", 0, len(query[1]))
    distances = context.before_postprocessing(found)
    posts = {wired.part.name: wired for wired in plan.posts}
    for name in ranking.post[: ranking.post.index(last) + 1]:
        distances = build_postprocessor(plan, posts[name])(distances, context)
    return distances.clone()


def changes_only_the_distances(sample: Sample) -> None:
    """Templates, cameras, times and the model are as before; the result is in [0, 1] if promised,
    and the same a second time."""
    plan = sample.plan()
    model = trained(plan)
    for ranking, name in _chains(sample, plan):
        query, gallery = _sides(plan, model, ranking)
        things: dict[str, Any] = {"the model": model.sections()}
        for side, (templates, meta) in (("query", query), ("gallery", gallery)):
            things[f"the {side} templates"] = templates
            things |= {f"{side}.{key}": value for key, value in attrs.asdict(meta).items()}
        before = _copied(things)
        first = _apply(plan, model, ranking, name, query, gallery)
        changed = [key for key in things if not same(before[key], things[key])]
        if changed:
            raise ConformanceError(f"it changes {', '.join(changed)}")
        if not same(first, _apply(plan, model, ranking, name, query, gallery)):
            raise ConformanceError("called a second time, it gives other distances")
        low, high = float(first.min()), float(first.max())
        if _stays_unit(plan, ranking, name) and not (low >= -1e-5 and high <= 1 + 1e-5):
            raise ConformanceError(f"it promises [0, 1], but gives {low:g} to {high:g}")


def names_a_missing_column(sample: Sample) -> None:
    """Without cameras, times and modalities it is refused by a sentence that names what is missing,
    or gives finite distances all the same."""
    plan = sample.plan()
    model = trained(plan)
    for wired in sample.instances(plan):
        for missing in ("camera", "time", "modality"):
            columns = plan.given.test_columns - {missing}
            given = attrs.evolve(plan.given, test_columns=columns, unit=True)
            try:
                call_wiring("postprocessor", wired.config, "check", given)
            except WiringError as error:
                if missing not in str(error):
                    raise ConformanceError(
                        f"without the column {missing} its check() says {str(error)!r}, which does "
                        "not name it; use given.need_column"
                    ) from None
            else:
                _without(sample, plan, model, wired.part.name, missing)


def _without(sample: Sample, plan: Plan, model: Model, name: str, missing: str) -> None:
    unknown = {"camera": -1, "time": torch.nan, "modality": 0}[missing]
    for ranking, post in _chains(sample, plan):
        if post == name:
            sides = [
                (
                    templates,
                    attrs.evolve(
                        meta, **{missing: torch.full_like(getattr(meta, missing), unknown)}
                    ),
                )
                for templates, meta in _sides(plan, model, ranking)
            ]
            _apply(plan, model, ranking, name, *sides)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return value.clone()


def _stays_unit(plan: Plan, ranking: RankingTable, last: str) -> bool:
    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    chain = attrs.evolve(ranking, post=ranking.post[: ranking.post.index(last) + 1])
    return follow_chain(
        chain, promised, plan.given, posts, lambda post, given: post.config.check(given)
    )


def follows_the_gallery_order(sample: Sample) -> None:
    """With the gallery in another order, the distances are the same in that order."""
    plan = sample.plan()
    model = trained(plan)
    for ranking, name in _chains(sample, plan):
        query, (templates, meta) = _sides(plan, model, ranking)
        order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(0))
        mixed = {key: take(template, order) for key, template in templates.items()}
        there = _apply(plan, model, ranking, name, query, (templates, meta))[:, order]
        here = _apply(plan, model, ranking, name, query, (mixed, meta[order]))
        if not torch.allclose(here, there, rtol=1e-4, atol=1e-5):
            worst = float((here - there).abs().max())
            raise ConformanceError(
                f"with the gallery in another order, distances differ by up to {worst:g}"
            )
