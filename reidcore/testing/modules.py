"""Checks of modules: backbones, heads, losses and matchers as parts of a network."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.contracts.pictures import Batch, Images
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.model.state_files import load_sections, save_sections
from reidcore.support.seeds import seeded
from reidcore.testing.comparing import check_same_numbers, same
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import batch_of, pictures
from reidcore.training.dry_run import train_once
from reidcore.wiring.plan import Wired


def state_survives_saving(sample: Sample) -> None:
    """Trained, saved and loaded into a fresh build with other random weights, the component gives
    the same to the last bit."""
    plan = sample.plan()
    first, second = trained(plan, seed=0), build_model(plan, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        save_sections(Path(folder, "weights.safetensors"), first.sections())
        load_sections(second, Path(folder, "weights.safetensors"))
    batch = batch_of(plan)
    with torch.no_grad():
        features = first.eval()(batch.images)
    for wired in sample.instances(plan):
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
    """Yield what the part computes from these features."""
    part: Any = dict(model.parts())[wired.part.role]
    model.eval()
    if wired.part.where != "loss":
        outputs = _outputs(model, wired, features, batch.images)
        yield outputs
        if wired.part.where == "matcher":
            yield part.distance(outputs, outputs)
    else:
        model.train()
        yield part(features, batch)
        part.after_step(features, batch)
        yield {key: value.clone() for key, value in part.state_dict().items()}
        yield part(features, batch)


def pictures_do_not_mix(sample: Sample) -> None:
    """In eval mode a picture's outputs, or its template, do not depend on the batch it is in."""
    plan = sample.plan()
    model, images = trained(plan), pictures(plan, 5)
    for wired in sample.instances(plan):
        with torch.no_grad():
            features = model(images)
            whole = _outputs(model, wired, features, images)
            for place in range(len(images)):
                one = slice(place, place + 1)
                alone = {name: value[one] for name, value in features.items()}
                for name, value in _outputs(model, wired, alone, images[one]).items():
                    check_same_numbers(
                        value,
                        whole[name][one],
                        f"{name!r} of a picture alone and in a batch of {len(images)}",
                    )


def computes_in_float64(sample: Sample) -> None:
    """In float64, of float64 pictures and features, the component gives float64 outputs that are
    those of float32 up to rounding; distances stay float32."""
    plan = sample.plan()
    model = trained(plan)
    wide = copy.deepcopy(model).double()
    images = pictures(plan, 5)
    exact = Images(images.pixels.double(), images.modality, images.camera)
    with torch.no_grad():
        # Each part gets the others' features of float32, so that a fault of theirs is not its own.
        features = model(images)
        precise = {
            name: value.double() if value.is_floating_point() else value
            for name, value in features.items()
        }
        for wired in sample.instances(plan):
            expected = _outputs(model, wired, features, images)
            for name, value in _outputs(wide, wired, precise, exact).items():
                floating = expected[name].is_floating_point()
                if wired.part.where != "matcher" and floating and value.dtype != torch.float64:
                    raise ConformanceError(
                        f"{name!r} of float64 pictures and features is {value.dtype}; compute in "
                        "the dtype of what is given, without .float() or dtype=torch.float32"
                    )
                if floating:
                    check_same_numbers(value, expected[name], f"{name!r} in float64 and in float32")


def every_parameter_gets_a_gradient(sample: Sample) -> None:
    """In the sample's training step, of at least one of its instances there, because others may be
    for a procedure; what is not trained has `requires_grad` off."""
    plan = sample.plan()
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
        for wired in sample.instances(plan)
    ]
    if blind and all(blind):
        raise ConformanceError(f"no gradient reaches {', '.join(blind[0][:4])}")


def moves_with_the_model(sample: Sample) -> None:
    """Whatever tensors it holds are parameters or registered buffers, which `to` moves; and where
    there is a GPU, it trains there."""
    plan = sample.plan()
    model = trained(plan)
    for wired in sample.instances(plan):
        part: Any = dict(model.parts())[wired.part.role]
        for name, module in part.named_modules():
            for key, value in _plain_tensors(module):
                place = f"{name}.{key}".lstrip(".")
                raise ConformanceError(
                    f"{place} is a tensor {list(value.shape)} that is neither a parameter nor a "
                    "buffer, so it stays where it is when the model moves, and is not saved; "
                    "register_buffer it"
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


def _outputs(
    model: Model, wired: Wired, features: Mapping[str, Tensor], images: Images
) -> dict[str, Tensor]:
    """Return what the part makes of pictures and their features, by name."""
    part: Any = dict(model.parts())[wired.part.role]
    part.eval()
    if wired.part.where == "backbone":
        return dict(part(images))
    if wired.part.where == "head":
        return dict(part(features, images))
    return dict(part.merge([part.template(features)]))
