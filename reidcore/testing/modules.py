"""Checks of modules as parts of a network: batches, gradients, precision, devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.contracts.pictures import Batch, Images
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.templates import count, take
from reidcore.testing.failures import ConformanceError
from reidcore.testing.stands import Stand, batch_of, pictures, template_of, trained
from reidcore.training.dry_run import train_once
from reidcore.wiring.plan import Wired

_CLOSE = 1e-3
"""Differences by rounding, of the largest value."""


def pictures_do_not_mix(stand: Stand) -> None:
    """In eval mode a picture's outputs, or its template, do not depend on the batch it is in."""
    plan = stand.plan()
    model, images = trained(plan), pictures(plan, 4)
    for wired in stand.instances(plan):
        with torch.no_grad():
            features = model(images)
            whole = _outputs(model, wired, features, images)
            for place in range(len(images)):
                one = slice(place, place + 1)
                alone = {name: value[one] for name, value in features.items()}
                for name, value in _outputs(model, wired, alone, images[one]).items():
                    _same_numbers(
                        value,
                        whole[name][one],
                        f"{name!r} of a picture alone and in a batch of {len(images)}",
                    )


def computes_in_float64(stand: Stand) -> None:
    """A model in float64 gives float64 outputs that are those of float32 up to rounding; distances
    stay float32."""
    plan = stand.plan()
    model = trained(plan)
    wide = copy.deepcopy(model).double()
    images = pictures(plan, 4)
    exact = Images(images.pixels.double(), images.modality, images.camera)
    with torch.no_grad():
        features, precise = model(images), wide(exact)
        for wired in stand.instances(plan):
            expected = _outputs(model, wired, features, images)
            for name, value in _outputs(wide, wired, precise, exact).items():
                floating = expected[name].is_floating_point()
                if wired.part.where != "matcher" and floating and value.dtype != torch.float64:
                    raise ConformanceError(f"{name!r} of float64 pictures is {value.dtype}")
                if floating:
                    _same_numbers(value, expected[name], f"{name!r} in float64 and in float32")


def every_parameter_gets_a_gradient(stand: Stand) -> None:
    """In the sample's training step, of at least one of its instances there, because others may be
    for a procedure; what is not trained has `requires_grad` off."""
    plan = stand.plan()
    if not plan.losses:
        raise ConformanceError("its sample has no loss")
    model = build_model(plan, 0)
    train_once(plan, model, batch_of(plan))
    parts: Mapping[str, Any] = dict(model.parts())
    blind = [
        [
            name
            for name, value in parts[wired.part.role].named_parameters()
            if value.requires_grad and value.grad is None
        ]
        for wired in stand.instances(plan)
    ]
    if blind and all(blind):
        raise ConformanceError(f"no gradient reaches {', '.join(blind[0][:4])}")


def moves_with_the_model(stand: Stand) -> None:
    """Whatever tensors it holds are parameters or registered buffers, which `to` moves; and where
    there is a GPU, it trains there."""
    plan = stand.plan()
    model = trained(plan)
    for wired in stand.instances(plan):
        part: Any = dict(model.parts())[wired.part.role]
        for name, module in part.named_modules():
            for key, value in _plain_tensors(module):
                place = f"{name}.{key}".lstrip(".")
                raise ConformanceError(
                    f"{place} is a tensor {list(value.shape)} that is neither a parameter nor a "
                    "buffer, so it stays where it is when the model moves; register_buffer it"
                )
    if torch.cuda.is_available():
        there = build_model(plan, 0).to("cuda")
        batch = batch_of(plan)
        train_once(plan, there, Batch(batch.images.to("cuda"), batch.pid.to("cuda")))


def _plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers", "_modules"):
            continue
        values = value.values() if isinstance(value, dict) else value
        for one in values if isinstance(values, list | tuple | type({}.values())) else [values]:
            if isinstance(one, Tensor):
                yield key, one


def takes_an_empty_gallery(stand: Stand) -> None:
    """No query or no gallery picture gives no distance; views that are equal merge into one of the
    same shape."""
    plan = stand.plan()
    model = trained(plan)
    for wired in stand.instances(plan):
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


def _outputs(
    model: Model, wired: Wired, features: Mapping[str, Tensor], images: Images
) -> dict[str, Tensor]:
    """What the part makes of pictures and their features."""
    part: Any = dict(model.parts())[wired.part.role]
    part.eval()
    if wired.part.where == "backbone":
        return dict(part(images))
    if wired.part.where == "head":
        return dict(part(features, images))
    return dict(part.merge([part.template(features)]))


def _same_numbers(found: Tensor, expected: Tensor, what: str) -> None:
    worst = float((found.double() - expected.double()).abs().amax()) if found.numel() else 0.0
    largest = float(expected.double().abs().amax()) if expected.numel() else 0.0
    if worst > _CLOSE * max(largest, 1e-6):
        raise ConformanceError(
            f"{what} differ by up to {worst:g}, where the largest is {largest:g}"
        )
