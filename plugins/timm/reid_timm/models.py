"""timm's models: which there are, their feature networks, and the shapes of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from difflib import get_close_matches
from typing import Any, cast

import attrs
import timm
import torch
from timm.layers import Format
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from reid_timm.settings import PRETRAINED, FeaturesSettings
from reidcore.api import WiringError


def check_model(config: FeaturesSettings) -> None:
    """WiringError unless timm has the model, the tag of its weights and, where they are asked for,
    weights of it."""
    name, _, tag = config.model.partition(".")
    if not timm.is_model(config.model):
        near = get_close_matches(name, timm.list_models(), n=3)
        raise WiringError(
            "model",
            f"is {config.model!r}, which timm {timm.__version__} does not have"
            + (f"; similar are {', '.join(near)}" if near else "")
            + ". timm.list_models() lists its models.",
        )
    tags = [one.partition(".")[2] for one in timm.list_models(f"{name}.*", pretrained=True)]
    there = f"timm {timm.__version__} has weights of {name} with the tags {', '.join(tags)}"
    if tag and tag not in tags:
        raise WiringError(
            "model",
            f"is {config.model!r}; {there}"
            if tags
            else f"has the tag {tag!r}, but timm {timm.__version__} has no weights of {name}",
        )
    if config.weights == PRETRAINED and not tags:
        raise WiringError(
            "weights",
            f"is {PRETRAINED!r}, but timm {timm.__version__} has no weights of {name}; give the "
            "path of a checkpoint",
        )


def _arguments(config: FeaturesSettings, image: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` beside the name: the options, and the pictures'
    size where the model is built for one, as vision transformers are for their position
    embedding."""
    published = get_pretrained_cfg(config.model)
    sized = published is not None and published.fixed_input_size
    return {**config.options, **({"img_size": image} if sized else {})}


def whole_model(
    config: FeaturesSettings, image: tuple[int, int], pretrained: bool = False
) -> nn.Module:
    """The model with its classifier, whose tensors have the names of timm's checkpoints."""
    return timm.create_model(config.model, pretrained=pretrained, **_arguments(config, image))


def feature_network(
    config: FeaturesSettings, image: tuple[int, int], stages: Sequence[int]
) -> nn.Module:
    """The part of the model that gives the outputs of `stages`, in timm's numbers from 0 on: a
    module from pixels [B, 3, H, W] to their list, in ascending order (see `as_maps`)."""
    return timm.create_model(
        config.model, features_only=True, out_indices=tuple(stages), **_arguments(config, image)
    )


def as_maps(network: nn.Module, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a feature network's outputs as [B, C, h, w]; some models have channels last."""
    if getattr(network, "output_fmt", Format.NCHW) == Format.NHWC:
        return [output.permute(0, 3, 1, 2) for output in outputs]
    return list(outputs)


def stage_name(index: int) -> str:
    """The map's name of timm's feature `index`."""
    return f"layer{index + 1}"


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A module without memory for its weights, of which only shapes and names are wanted."""
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        # Older versions of timm compute with what they build, which has no values there.
        return make().to("meta")


def _refusal(config: FeaturesSettings, image: tuple[int, int], error: Exception) -> WiringError:
    """Return the error of a model that cannot be built or run, in timm's own words."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if config.options:
        try:
            stage_shapes(attrs.evolve(config, options={}), image)
            return WiringError("options", f"do not suit {config.model!r}: {reason}")
        except WiringError:
            pass
    return WiringError(
        "model",
        f"is {config.model!r}, whose maps timm {timm.__version__} cannot make for pictures of "
        f"{image[0]}x{image[1]}: {reason}",
    )


def stage_shapes(
    config: FeaturesSettings, image: tuple[int, int]
) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every stage by name, for pictures of `image` (height, width).

    The model is built and run without memory for its numbers, so the shapes are exact, and cost no
    more for a large one. WiringError with timm's own words if it cannot be.
    """
    try:
        whole = on_meta(lambda: whole_model(config, image))
        stages = range(len(cast(Sized, whole.feature_info)))
        network = on_meta(lambda: feature_network(config, image, stages)).eval()
        with torch.no_grad():
            maps = as_maps(network, network(torch.empty(2, 3, *image, device="meta")))
    except Exception as error:  # timm raises almost anything for what does not fit
        raise _refusal(config, image, error) from error
    shapes = {}
    for stage, found in zip(stages, maps, strict=True):
        if found.ndim != 4:
            raise WiringError(
                "model",
                f"is {config.model!r}, which gives {list(found.shape[1:])} for each picture and no "
                "maps",
            )
        _, channels, height, width = found.shape
        shapes[stage_name(stage)] = (channels, height, width)
    return shapes
