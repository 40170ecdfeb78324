"""Checks of postprocessors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
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
from reidcore.runfiles.tables import RankingTable, Shortlist
from reidcore.testing.comparing import same
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import batch_of, meta_of, pictures, template_of
from reidcore.wiring.plan import Plan
from reidcore.wiring.rankings import follow_chain

QUERIES, GALLERY = 7, 16
"""Pictures of the two sides. Not as many on both, so that what is turned round is seen."""
LISTED = 3
"""Pictures of a shortlist."""
Side = tuple[dict[str, Template], Meta]
"""Templates by matcher, and what ranking may know of the pictures."""


def _chains(sample: Sample, plan: Plan) -> list[tuple[RankingTable, str]]:
    """Return (ranking, name of the postprocessor) wherever the sample ranks with the component: as
    the sample does, and with a shortlist, unless that is refused."""
    mine = {wired.part.name for wired in sample.instances(plan)}
    found = [(ranking, name) for ranking in plan.rankings for name in ranking.post if name in mine]
    if not found:
        raise ConformanceError("its sample has no ranking with it")
    for ranking, name in list(found):
        short = Shortlist(by=next(iter(ranking.weights)), top=LISTED)
        try:
            _stays_unit(plan, shortened := attrs.evolve(ranking, shortlist=short), name)
        except WiringError:
            continue
        found.append((shortened, name))
    return found


def _sides(plan: Plan, model: Model, ranking: RankingTable) -> tuple[Side, Side]:
    sides = []
    for size, seed in ((QUERIES, 0), (GALLERY, 100)):
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


def _context(
    plan: Plan, model: Model, ranking: RankingTable, query: Side, gallery: Side
) -> MatcherRanking:
    sides = Sides(query[1], gallery[1], {"query": query[0], "gallery": gallery[0]})
    return MatcherRanking(make_fusion(ranking, model, _pairs(plan, model, ranking)), sides)


def _apply(
    plan: Plan,
    context: MatcherRanking,
    ranking: RankingTable,
    last: str,
    change: Callable[[Tensor], Tensor] = Tensor.clone,
) -> Tensor:
    """Return the distances after the ranking's postprocessors up to `last`, which gets what
    `change` makes of those before."""
    found = context.between("query", "gallery", 0, len(context.query))
    distances = context.before_postprocessing(found)
    posts = {wired.part.name: wired for wired in plan.posts}
    for name in ranking.post[: ranking.post.index(last)]:
        distances = build_postprocessor(plan, posts[name])(distances, context)
    return build_postprocessor(plan, posts[last])(change(distances), context).clone()


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
        context = _context(plan, model, ranking, query, gallery)
        first = _apply(plan, context, ranking, name)
        changed = [key for key in things if not same(before[key], things[key])]
        if changed:
            raise ConformanceError(f"it changes {', '.join(changed)}")
        if not same(first, _apply(plan, context, ranking, name)):
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
            _apply(plan, _context(plan, model, ranking, *sides), ranking, name)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return value.clone()


def _stays_unit(plan: Plan, ranking: RankingTable, last: str | None) -> bool:
    """Return whether the distances lie in [0, 1] after `last`, or after all postprocessors. Raises
    WiringError for a postprocessor that does not fit."""
    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    chain = ranking
    if last is not None:
        chain = attrs.evolve(ranking, post=ranking.post[: ranking.post.index(last) + 1])
    return follow_chain(
        chain, promised, plan.given, posts, lambda post, given: post.config.check(given)
    )


def follows_the_gallery_order(sample: Sample) -> None:
    """With the gallery in another order, the distances are the same in that order."""
    plan = sample.plan()
    model = trained(plan)
    for ranking, name in _chains(sample, plan):
        query, gallery = _sides(plan, model, ranking)
        templates, meta = gallery
        order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(0))
        mixed = {key: take(template, order) for key, template in templates.items()}
        context = _context(plan, model, ranking, query, gallery)
        there = _apply(plan, context, ranking, name)[:, order]
        context = _context(plan, model, ranking, query, (mixed, meta[order]))
        here = _apply(plan, context, ranking, name)
        if not torch.allclose(here, there, rtol=1e-4, atol=1e-5):
            worst = float((here - there).abs().max())
            raise ConformanceError(
                f"with the gallery in another order, distances differ by up to {worst:g}"
            )


def takes_scored_pairs_alone_into_account(sample: Sample) -> None:
    """In a ranking with a shortlist, the distances of scored pairs do not depend on what stands in
    for the others, which is never nearer; or such a ranking is refused."""
    plan = sample.plan()
    model = trained(plan)
    for ranking, name in _chains(sample, plan):
        context = _context(plan, model, ranking, *_sides(plan, model, ranking))
        scored = context.scored(0, len(context.query))
        if scored is None:
            continue
        before = attrs.evolve(ranking, post=ranking.post[: ranking.post.index(name)])
        unit = _stays_unit(plan, before, None)
        first, second = (
            _apply(plan, context, ranking, name, partial(_filled, scored, unit, turned))[scored]
            for turned in (False, True)
        )
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
            worst = float((first - second).abs().max())
            raise ConformanceError(
                "in a ranking with a shortlist, distances of scored pairs differ by up to "
                f"{worst:g} with what stands in for pairs that are not scored; leave out what "
                "ranking.scored(start, stop) does not name, or call given.need_every_distance() "
                "in check()"
            )


def _filled(scored: Tensor, unit: bool, turned: bool, distances: Tensor) -> Tensor:
    """Return the distances with others for pairs that are not scored, but none that is nearer than
    those that are."""
    farthest = distances.where(scored, -torch.inf).amax(1, keepdim=True)
    room = (1 - farthest).clamp(min=0) if unit else farthest.abs() + 1
    share = torch.linspace(0.25, 1, distances.shape[1], device=distances.device)
    return distances.where(scored, farthest + room * (share.flip(0) if turned else share))
