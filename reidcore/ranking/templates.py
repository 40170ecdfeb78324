"""Test views of pictures, and stored templates: room for them, parts of them, moving them.

`reidcore.ranking.comparer` makes templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.contracts.component import TensorSpec
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Images
from reidcore.errors import ReidError
from reidcore.model.finite import faults, is_finite
from reidcore.support.files import reserve, writing


def view_of(images: Images, view: str) -> Images:
    """Return a test view of the images.

    view: plain, flip (mirrored left to right), zoom (the middle 7/8 of height and width, enlarged
    bilinearly to the whole) or zoom_flip (zoom, mirrored).
    """
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


@attrs.frozen
class Storage:
    """The place where templates are stored: the memory of `device`; or, with `host`, that of the
    CPU; or the files of a `folder`, which are mapped."""

    device: torch.device
    host: bool = False
    folder: Path | None = None

    def empty(self, name: str, pictures: int, spec: TensorSpec) -> Tensor:
        """Return an uninitialized tensor for a part of so many pictures' templates. name: of its
        file. Raises OutputError where the disk has no room for it."""
        shape, dtype = (pictures, *spec.shape), getattr(torch, spec.dtype)
        if self.folder is not None:
            size = prod(shape)
            if not size:
                return torch.empty(shape, dtype=dtype)
            file = self.folder / name
            with writing(file), open(file, "wb") as handle:
                reserve(handle.fileno(), pictures * spec.bytes)
            return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
        if self.host:
            # From pinned memory a GPU fetches tiles while it computes.
            return torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
        return torch.empty(shape, dtype=dtype, device=self.device)


def concatenate(templates: Sequence[Template]) -> Template:
    """Return templates of several lists of pictures as those of one list."""
    return {key: torch.cat([one[key] for one in templates]) for key in templates[0]}


def count(template: Template) -> int:
    """Return the number of pictures."""
    return next(iter(template.values())).shape[0]


def take(template: Template, index: slice | Tensor) -> Template:
    """Return the template of some of the pictures, by their places."""
    return {
        key: value[index.to(value.device) if isinstance(index, Tensor) else index]
        for key, value in template.items()
    }


def moved(template: Template, device: torch.device) -> Template:
    """Return the template on a device; from pinned memory it comes without waiting."""
    return {key: value.to(device, non_blocking=True) for key, value in template.items()}


def require_finite(matcher: str, template: Template, names: Sequence[str]) -> None:
    """Raise ReidError, naming the first such picture, if a template is not finite. names: of the
    pictures."""
    for key, value in template.items():
        if not is_finite(value):
            good = value.isfinite().flatten(1).all(1) if value.ndim > 1 else value.isfinite()
            first = int((~good).nonzero()[0])
            raise ReidError(
                f"the template {matcher}.{key} of picture {names[first]} is not finite: "
                f"{faults(value[first])}; nothing can be ranked by it"
            )
