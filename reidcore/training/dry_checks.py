"""What the dry run demands of what parts give: names, shapes, numbers and promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reidcore.contracts.component import Feature
from reidcore.contracts.parts import Template
from reidcore.errors import PluginError
from reidcore.wiring.plan import Plan, Wired


def check_names(plan: Plan, wired: Wired, outputs: Mapping[str, Tensor]) -> None:
    """Check that the wanted outputs are given, and none that is not declared."""
    if not isinstance(outputs, Mapping):
        return  # The model says so.
    missing = sorted(plan.wanted[wired.part.role] - set(outputs))
    extra = sorted(set(outputs) - set(wired.outputs))
    for names, text in ((missing, "does not give"), (extra, "gives undeclared")):
        if names:
            raise PluginError(f"dry run: {wired.part}: {text} output {', '.join(names)}")


def check_loss(result: Any) -> None:
    """Check that a loss is one finite number, and its logged terms numbers."""
    value, logged = result if isinstance(result, tuple) else (result, {})
    if not isinstance(value, Tensor) or value.ndim != 0:
        raise ValueError(f"the loss is {shown(value)}, not a scalar")
    if not value.isfinite():
        raise ValueError(f"the loss is {value.item()}")
    for term, number in logged.items():
        if torch.as_tensor(number).numel() != 1:
            raise ValueError(f"its term {term!r} is {shown(number)}, not a number")


def check_features(plan: Plan, features: Mapping[str, Tensor], size: int) -> None:
    """Check that every feature has its declared shape and only finite numbers."""
    for wired in (plan.backbone, *plan.heads):
        instance = wired.part.name or "backbone"
        for output in plan.wanted[wired.part.role]:
            declared: Feature = wired.outputs[output]
            tensor = features[f"{instance}.{output}"]
            if tuple(tensor.shape) != (size, *declared.shape):
                raise PluginError(
                    f"dry run: {wired.part}: output {output!r} is declared as {declared} for each "
                    f"picture, but {size} pictures give {list(tensor.shape)}"
                )
            if not tensor.isfinite().all():
                raise PluginError(f"dry run: {wired.part}: output {output!r} is not finite")


def check_template(wired: Wired, template: Template, size: int) -> None:
    """Check the tensors of a template of `size` pictures against what the matcher declares."""
    assert wired.matching is not None
    for key, spec in wired.matching.template.items():
        found = template.get(key)
        if found is None or tuple(found.shape) != (size, *spec.shape):
            raise PluginError(
                f"dry run: {wired.part}: template {key!r} is declared as {list(spec.shape)} for "
                f"each picture, but {size} pictures give {shown(found)}"
            )
        if str(found.dtype) != f"torch.{spec.dtype}":
            raise PluginError(
                f"dry run: {wired.part}: template {key!r} is declared as {spec.dtype}, but is "
                f"{found.dtype}"
            )


def check_distances(wired: Wired, distances: Any, shape: tuple[int, int]) -> None:
    """Check a matcher's promises: float32, finite, not negative, at most 1 if `unit`."""
    place = f"dry run: {wired.part}: distance"
    if not isinstance(distances, Tensor) or tuple(distances.shape) != shape:
        raise PluginError(f"{place} gives {shown(distances)} for {shape[0]} x {shape[1]} pictures")
    if distances.dtype != torch.float32:
        raise PluginError(f"{place} gives {distances.dtype}, not torch.float32")
    if not distances.isfinite().all():
        raise PluginError(f"{place} is not finite")
    if (distances < 0).any():
        raise PluginError(f"{place} is negative: {distances.min().item():g}")
    assert wired.matching is not None
    if wired.matching.unit and (distances > 1).any():
        raise PluginError(
            f"{place} promises to lie in [0, 1], but reaches {distances.max().item():g}"
        )


def check_logits(wired: Wired, logits: Any, shape: tuple[int, int]) -> None:
    """Check that a matcher's logits are finite and one for each pair."""
    if tuple(logits.shape) != shape or not logits.isfinite().all():
        raise PluginError(
            f"dry run: {wired.part}: logits of {shape[0]} x {shape[1]} pictures are "
            f"{shown(logits)}, not finite float32 {list(shape)}"
        )


def shown(value: Any) -> str:
    """Return what a part has given, in a word."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
