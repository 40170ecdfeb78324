"""Checks of backbones, heads, losses and matchers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from reidcore.contracts.parts import Context
from reidcore.contracts.pictures import Batch
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.model.state_files import load_sections, save_sections
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.templates import count, take
from reidcore.support.seeds import seeded
from reidcore.testing.failures import ConformanceError
from reidcore.testing.stands import Stand, batch_of, pictures, same, template_of, trained
from reidcore.training.dry_run import check_distances
from reidcore.wiring.plan import Plan, Wired


def outputs_are_as_declared(stand: Stand) -> None:
    """At two picture sizes, every output is as declared where it is wanted alone and where all are
    wanted, and nothing else is given."""
    for plan in stand.plans():
        model = build_model(plan, 0).eval()
        images = batch_of(plan).images
        with torch.no_grad():
            features = model(images)
        for wired in stand.instances(plan):
            every = tuple(wired.outputs)
            for wanted in {every, *((name,) for name in every)}:
                _check_outputs(plan, wired, wanted, features, images)


def _check_outputs(
    plan: Plan, wired: Wired, wanted: tuple[str, ...], features: dict[str, Tensor], images: Any
) -> None:
    context = Context(plan.given, wired.part.name, wanted)
    part = wired.build()(wired.config, context).eval()
    head = wired.part.where == "head"
    with torch.no_grad():
        found = part(features, images) if head else part(images)
    asked = f"with {', '.join(wanted)} wanted"
    undeclared = sorted(set(found) - set(wired.outputs))
    if undeclared:
        raise ConformanceError(f"{asked} it gives {', '.join(undeclared)}, which is not declared")
    for name in wanted:
        shape = (len(images), *wired.outputs[name].shape)
        if name not in found or tuple(found[name].shape) != shape:
            got = list(found[name].shape) if name in found else "nothing"
            raise ConformanceError(
                f"{asked} output {name!r} is {got}; declared is {wired.outputs[name]} for each of "
                f"{len(images)} pictures of {plan.given.image}"
            )


def state_survives_saving(stand: Stand) -> None:
    """Trained, saved and loaded into a fresh build with other random weights, the component gives
    the same to the last bit."""
    plan = stand.plan()
    first, second = trained(plan, seed=0), build_model(plan, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        save_sections(Path(folder, "weights.safetensors"), first.sections())
        load_sections(second, Path(folder, "weights.safetensors"))
    batch = batch_of(plan)
    with torch.no_grad():
        features = first.eval()(batch.images)
    for wired in stand.instances(plan):
        with seeded("conformance"):
            before = list(_results(first, wired, features, batch))
        with seeded("conformance"):
            after = list(_results(second, wired, features, batch))
        if not same(before, after):
            raise ConformanceError(
                f"{wired.part.role} gives other numbers after its state was saved and loaded; what "
                "it keeps outside of parameters and registered buffers is lost"
            )


@torch.no_grad()
def _results(model: Model, wired: Wired, features: dict[str, Tensor], batch: Batch) -> Iterator:
    """What the part computes from these features."""
    part: Any = dict(model.parts())[wired.part.role]
    model.eval()
    if wired.part.where == "backbone":
        yield dict(part(batch.images))
    elif wired.part.where == "head":
        yield dict(part(features, batch.images))
    elif wired.part.where == "matcher":
        template = part.merge([part.template(features)])
        yield template
        yield part.distance(template, template)
    else:
        model.train()
        yield part(features, batch)
        part.after_step(features, batch)
        yield {key: value.clone() for key, value in part.state_dict().items()}
        yield part(features, batch)


def forward_changes_nothing(stand: Stand) -> None:
    """The loss's forward and backward change no state but that of norm layers, and no feature; two
    forwards are equal."""
    plan = stand.plan()
    model, batch = trained(plan).train(), batch_of(plan)
    with torch.no_grad():
        given = model(batch.images)
    for wired in stand.instances(plan):
        loss = model.losses[wired.part.name]
        features = {name: value.clone().requires_grad_() for name, value in given.items()}
        before = _state(model)
        values = []
        for _ in range(2):
            with seeded("conformance"):
                result = loss(features, batch)
            value = result[0] if isinstance(result, tuple) else result
            values.append(value.detach().clone())
            if value.requires_grad:
                value.backward()
            after = _state(model)
            changed = sorted(key for key in before if not same(before[key], after.get(key)))
            changed += sorted(after.keys() - before.keys())
            if changed:
                raise ConformanceError(
                    f"forward changes {', '.join(changed[:4])}; change state in after_step, "
                    "after_epoch or before_training"
                )
            if not all(torch.equal(features[name], given[name]) for name in given):
                raise ConformanceError("forward overwrites the features it reads")
        if not torch.equal(values[0], values[1]):
            raise ConformanceError(f"two forwards give {values[0]:g} and {values[1]:g}")


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything that a forward pass could change: tensors, registered or not, and plain
    attributes; norm layers left out."""
    plain = (bool, int, float, str, Tensor, list, tuple, dict)
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, _NormBase):
            continue
        own = {**module._parameters, **module._buffers}
        own |= {key: value for key, value in vars(module).items() if not key.startswith("_")}
        for key, value in own.items():
            if isinstance(value, Tensor):
                state[f"{name}.{key}"] = value.detach().clone()
            elif isinstance(value, plain):
                state[f"{name}.{key}"] = repr(value)
    return state


def tiles_give_the_whole(stand: Stand) -> None:
    """Distances computed in tiles of any shape are those computed at once."""
    plan = stand.plan()
    model = trained(plan)
    for wired in stand.instances(plan):
        matcher = model.matchers[wired.part.name]
        a = template_of(model, matcher, pictures(plan, 5))
        b = template_of(model, matcher, pictures(plan, 7, seed=100))
        with torch.no_grad():
            whole = matcher.distance(a, b)
            single = compute_distances(matcher, plan.matching(wired.part.name), a, b, memory=1e-9)
            rows = torch.cat([matcher.distance(take(a, part), b) for part in _cut(count(a))])
            columns = torch.cat([matcher.distance(a, take(b, part)) for part in _cut(count(b))], 1)
        # Relative to the largest: a Euclidean distance by one matrix product rounds like that.
        atol = 1e-6 + 5e-5 * float(whole.abs().max())
        for shape, tiled in (("pairs", single), ("rows", rows), ("columns", columns)):
            if not torch.allclose(tiled, whole, rtol=0, atol=atol):
                worst = float((tiled - whole).abs().max())
                raise ConformanceError(
                    f"computed in single {shape}, distances differ by up to {worst:g}; a pair's "
                    "distance must not depend on which others are computed with it"
                )


def _cut(size: int) -> list[slice]:
    return [slice(0, 1), slice(1, 1 + size // 2), slice(1 + size // 2, size)]


def distances_keep_their_promises(stand: Stand) -> None:
    """Distances are float32, finite, not negative, at most 1 if `unit`, symmetric if so declared;
    equal pictures included."""
    plan = stand.plan()
    model = trained(plan)
    for wired in stand.instances(plan):
        matcher, matching = model.matchers[wired.part.name], plan.matching(wired.part.name)
        a = template_of(model, matcher, pictures(plan, 5))
        b = template_of(model, matcher, pictures(plan, 7, seed=100))
        with torch.no_grad():
            for x, y in ((a, b), (a, a)):
                check_distances(wired, matcher.distance(x, y), (count(x), count(y)))
            there, back = matcher.distance(a, b), matcher.distance(b, a).T
        if matching.symmetric and not torch.allclose(there, back, rtol=1e-4, atol=1e-5):
            worst = float((there - back).abs().max())
            raise ConformanceError(f"declared symmetric, but d(a, b) - d(b, a) reaches {worst:g}")


def distances_have_a_gradient(stand: Stand) -> None:
    """Distances can be trained: gradients reach the features and the matcher's parameters."""
    plan = stand.plan()
    model, images = trained(plan), pictures(plan, 5)
    with torch.no_grad():
        found = model.eval()(images)
    for wired in stand.instances(plan):
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
