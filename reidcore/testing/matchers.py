"""Checks of matchers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reidcore.contracts.parts import Matcher, Template
from reidcore.model.model import Model
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.templates import count, take
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import pictures, template_of
from reidcore.training.dry_checks import check_distances
from reidcore.wiring.plan import Plan


def tiles_give_the_whole(sample: Sample) -> None:
    """Distances computed in tiles of any shape are those computed at once."""
    plan = sample.plan()
    model = trained(plan)
    for wired in sample.instances(plan):
        matcher = model.matchers[wired.part.name]
        for a, b in _sides(plan, model, matcher):
            with torch.no_grad():
                whole = matcher.distance(a, b)
                single = compute_distances(
                    matcher, plan.matching(wired.part.name), a, b, memory=1e-9
                )
                rows = torch.cat([matcher.distance(take(a, part), b) for part in _cut(count(a))])
                columns = torch.cat(
                    [matcher.distance(a, take(b, part)) for part in _cut(count(b))], 1
                )
            # Relative to the largest: a Euclidean distance by one matrix product rounds like that.
            atol = 1e-6 + 5e-5 * float(whole.abs().max())
            for shape, tiled in (("pairs", single), ("rows", rows), ("columns", columns)):
                if not torch.allclose(tiled, whole, rtol=0, atol=atol):
                    worst = float((tiled - whole).abs().max())
                    raise ConformanceError(
                        f"computed in single {shape}, distances differ by up to {worst:g}; a "
                        "pair's distance must not depend on which others are computed with it"
                    )


def _sides(plan: Plan, model: Model, matcher: Matcher) -> Iterator[tuple[Template, Template]]:
    """Yield templates of 5 and of 7 pictures: of their features, then of features that differ
    more than those of a network that is hardly trained."""
    for shuffled in (False, True):
        yield (
            template_of(model, matcher, pictures(plan, 5), shuffled),
            template_of(model, matcher, pictures(plan, 7, seed=100), shuffled),
        )


def _cut(size: int) -> list[slice]:
    return [slice(0, 1), slice(1, 1 + size // 2), slice(1 + size // 2, size)]


def distances_keep_their_promises(sample: Sample) -> None:
    """Distances are float32, finite, not negative, at most 1 if `unit`, symmetric if so declared;
    equal pictures included."""
    plan = sample.plan()
    model = trained(plan)
    for wired in sample.instances(plan):
        matcher, matching = model.matchers[wired.part.name], plan.matching(wired.part.name)
        for a, b in _sides(plan, model, matcher):
            with torch.no_grad():
                for x, y in ((a, b), (a, a)):
                    check_distances(wired, matcher.distance(x, y), (count(x), count(y)))
                there, back = matcher.distance(a, b), matcher.distance(b, a).T
            if matching.symmetric and not torch.allclose(there, back, rtol=1e-4, atol=1e-5):
                worst = float((there - back).abs().max())
                raise ConformanceError(
                    f"declared symmetric, but d(a, b) - d(b, a) reaches {worst:g}"
                )


def distances_have_a_gradient(sample: Sample) -> None:
    """Distances can be trained: gradients reach the features and the matcher's parameters."""
    plan = sample.plan()
    model, images = trained(plan), pictures(plan, 5)
    with torch.no_grad():
        found = model.eval()(images)
    for wired in sample.instances(plan):
        matcher = model.matchers[wired.part.name]
        matcher.zero_grad(set_to_none=True)
        features = {name: value.clone().requires_grad_() for name, value in found.items()}
        template = matcher.template(features)
        half = count(template) // 2
        near = take(template, slice(0, half)), take(template, slice(half, None))
        distances = matcher.distance(*near)
        if not distances.requires_grad:
            raise ConformanceError("distances have no gradient")
        distances.sum().backward()
        read = [name for _, name in wired.reads]
        blind = [name for name in read if features[name].grad is None]
        if blind:
            raise ConformanceError(f"no gradient reaches {', '.join(blind)}")
        parameters = [p for p in matcher.parameters() if p.requires_grad]
        if parameters and all(parameter.grad is None for parameter in parameters):
            raise ConformanceError("no gradient reaches its parameters")


def takes_an_empty_gallery(sample: Sample) -> None:
    """No query or no gallery picture gives no distance; views that are equal merge into one of the
    same shape."""
    plan = sample.plan()
    model = trained(plan)
    for wired in sample.instances(plan):
        matcher, matching = model.matchers[wired.part.name], plan.matching(wired.part.name)
        some = template_of(model, matcher, pictures(plan, 3))
        none = take(some, slice(0, 0))
        for a, b in ((some, none), (none, some)):
            shape = compute_distances(matcher, matching, a, b).shape
            if tuple(shape) != (count(a), count(b)):
                raise ConformanceError(
                    f"{count(a)} x {count(b)} pictures give distances {list(shape)}"
                )
        with torch.no_grad():
            merged = matcher.merge([some, some])
        for key, value in merged.items():
            if value.shape != some[key].shape or value.dtype != some[key].dtype:
                raise ConformanceError(
                    f"two views merge into {key!r} {value.dtype} {list(value.shape)}; of one it is "
                    f"{some[key].dtype} {list(some[key].shape)}"
                )
