"""Templates and features of pictures, made batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.contracts.component import TensorSpec
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Images, Rows
from reidcore.data.pictures import PictureLoader
from reidcore.distributed.processes import ALONE, Processes
from reidcore.distributed.shared_batches import RemoteImages
from reidcore.model.model import Model


def view_of(images: Images, view: str) -> Images:
    """A test view: plain, flip (mirrored left to right), zoom (the middle 7/8 of height and width,
    enlarged bilinearly to the whole) or zoom_flip (zoom, mirrored)."""
    pixels = images.pixels
    if view.startswith("zoom"):
        height, width = pixels.shape[-2:]
        tall, wide = height * 7 // 8, width * 7 // 8
        top, left = (height - tall) // 2, (width - wide) // 2
        middle = pixels[..., top : top + tall, left : left + wide]
        pixels = F.interpolate(middle, (height, width), mode="bilinear", align_corners=False)
    if view.endswith("flip"):
        pixels = pixels.flip(-1)
    return Images(pixels, images.modality, images.camera)


@torch.no_grad()
def extract(
    model: Model, loader: PictureLoader, rows: Rows, size: int, processes: Processes = ALONE
) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
    """(features, batch) in row order, eval mode, test transform; the mode is restored after each
    batch, so the caller may train in between. Processes share the batches, and each gets all
    features."""
    batches = _batches(rows, size)
    own = _read(model, loader, _own_rows(rows, batches, processes), size)
    if processes.count == 1:
        yield from own
        return
    for first in range(0, len(batches), processes.count):
        together = batches[first : first + processes.count]
        mine = next(own) if processes.number < len(together) else None
        for number, places in enumerate(together):
            here = mine if number == processes.number else None
            nothing = torch.empty(0, device=model.device)
            features = {
                name: processes.of(number, here[0][name] if here else nothing)
                for name in model.feature_names
            }
            yield features, here[1] if here else _remote(loader, rows.take(places), model.device)


def _read(
    model: Model, loader: PictureLoader, rows: Rows, size: int
) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
    """`extract` in one process."""
    device = model.device
    for batch in loader.plain(rows, size):
        batch = Batch(batch.images.to(device), batch.pid.to(device))
        training = model.training
        model.eval()
        try:
            features = model(batch.images)
        finally:
            model.train(training)
        yield features, batch


def _remote(loader: PictureLoader, rows: Rows, device: torch.device) -> Batch:
    """A batch that another process has made features of."""
    images = RemoteImages(
        torch.from_numpy(rows.modality).to(device),
        torch.from_numpy(rows.camera).to(device),
        lambda: next(loader.plain(rows, len(rows))).images.pixels.to(device),
    )
    return Batch(images, torch.from_numpy(rows.pid).to(device))


def _batches(rows: Rows, size: int) -> list[range]:
    return [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def _own_rows(rows: Rows, batches: Sequence[range], processes: Processes) -> Rows:
    """The rows of this process's share of batches."""
    if processes.count == 1:
        return rows
    return rows.take([row for _, batch in processes.share(batches) for row in batch])


@torch.no_grad()
def template_batches(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str] = ("plain",),
    size: int = 64,
) -> Iterator[dict[str, Template]]:
    """{matcher: template} of `size` rows after `size` rows, views merged, on the model's device."""
    matchers = {name: model.matchers[name] for name in names}
    training = model.training
    for batch in loader.plain(rows, size):
        images = batch.images.to(model.device)
        seen: dict[str, list[Template]] = {name: [] for name in names}
        model.eval()
        try:
            for view in views:
                features = model(view_of(images, view))
                for name, matcher in matchers.items():
                    seen[name].append(matcher.template(features))
            merged = {name: matcher.merge(seen[name]) for name, matcher in matchers.items()}
        finally:
            model.train(training)
        yield merged


def make_templates(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str] = ("plain",),
    size: int = 64,
    processes: Processes = ALONE,
    folder: Path | None = None,
    host: bool = False,
) -> dict[str, Template]:
    """{matcher: template} of all rows, views merged, on the model's device, or with `host` in the
    CPU's memory, or where there is a `folder` in a file of it that is mapped. Processes share the
    batches, and each gets all templates."""
    batches = _batches(rows, size)
    places = [slice(batch.start, batch.stop) for batch in batches]
    mine = [batch for _, batch in processes.share(places)]
    own = _own_rows(rows, batches, processes)
    whole = {
        name: {
            key: _empty(len(rows), spec, model.device, host, folder and folder / f"{name}.{key}")
            for key, spec in model.plan.matching(name).template.items()
        }
        for name in names
    }
    found = template_batches(model, names, loader, own, views, size)
    for batch, templates in zip(mine, found, strict=True):
        for name, template in templates.items():
            for key, value in template.items():
                whole[name][key][batch] = value
    for name in names:
        for key in whole[name]:
            processes.complete(whole[name][key], places)
    return whole


def _empty(
    images: int, spec: TensorSpec, device: torch.device, host: bool, file: Path | None
) -> Tensor:
    """Room for one tensor of the templates of so many pictures."""
    shape, dtype = (images, *spec.shape), getattr(torch, spec.dtype)
    if file is None and host:
        # From pinned memory a GPU fetches tiles while it computes.
        return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
    if file is None:
        return torch.empty(shape, dtype=dtype, device=device)
    size = prod(shape)
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)


def concatenate(templates: Sequence[Template]) -> Template:
    """Templates joined along the images' axis."""
    return {key: torch.cat([one[key] for one in templates]) for key in templates[0]}


def count(template: Template) -> int:
    """Number of images."""
    return next(iter(template.values())).shape[0]


def take(template: Template, index: slice | Tensor) -> Template:
    """The template of some of the images."""
    return {
        key: value[index.to(value.device) if isinstance(index, Tensor) else index]
        for key, value in template.items()
    }


def moved(template: Template, device: torch.device) -> Template:
    """The template on a device; from pinned memory without waiting."""
    return {key: value.to(device, non_blocking=True) for key, value in template.items()}
