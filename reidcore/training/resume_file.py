"""Reads resume.safetensors, all that an unfinished run needs to go on, and checks what it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.errors import DataError
from reidcore.model.finite import is_finite, tensors_in
from reidcore.model.state_files import load_state
from reidcore.runfolder.score_files import check_scores
from reidcore.support.json_files import Found
from reidcore.support.wording import in_words
from reidcore.training.optimizers import lay_out_as_parameters

COMPUTED = ("fused", "foreach", "capturable")
"""Settings of an optimizer's groups that say how a step is computed, not what it is."""


@attrs.frozen(eq=False)
class Saved:
    """What `Saves` has saved: tensors by part and key, states of the procedure's objects by name,
    rows of means.csv, the last scores, those by epoch, and the best one."""

    model: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]
    history: list[dict[str, float]]
    scores: dict[str, Any] | None
    scored: list[dict[str, Any]]
    evaluation_due: bool
    best: float


def read_saved(path: Path) -> Saved:
    """Return what a resume file holds. Raises DataError if it is missing or damaged."""
    found = Found(load_state(path), path)
    for section in found["model"].table().values():
        for one in section.table().values():
            if not isinstance(one.value, Tensor):
                raise one.refused("a tensor")
    for row in found["history"].items():
        for number in row.table().values():
            number.number()
    if found["scores"].value is not None:
        check_scores(found["scores"])
    scored = found.get("scored")  # older files have none
    for one in scored.items() if scored is not None else ():
        one["epoch"].integer(1)
        check_scores(one["scores"])
    best = found["best"]
    if best.value != -math.inf:  # before the first evaluation
        best.number()
    return Saved(
        found["model"].value,
        {key: one.value for key, one in found["state"].table().items()},
        found["history"].value,
        found["scores"].value,
        scored.value if scored is not None else [],
        found["evaluation_due"].flag(),
        best.value,
    )


def load_part(name: str, part: Any, state: Any, path: Path) -> None:
    """Load the state of one of the procedure's objects.

    Raises DataError, naming it, where the state does not fit. path: of the file it comes from.
    """
    numbers = _numbers(part)
    for key, value in tensors_in(state):
        # A copy into weights would make numbers of them.
        if isinstance(part, torch.optim.Optimizer) and not _is_plain(value):
            kind = str(value.dtype).removeprefix("torch.")
            raise DataError(f"{path}: the state of {name} does not fit: {key} is {kind}")
    try:
        if isinstance(part, torch.optim.Optimizer):
            state = _computed_as(part, state)
        part.load_state_dict(state)
    except Exception as error:
        raise DataError(f"{path}: the state of {name} does not fit: {in_words(error)}") from None
    if isinstance(part, torch.optim.Optimizer):
        if (wrong := _misfit(part, numbers)) is not None:
            raise DataError(f"{path}: the state of {name} does not fit: {wrong}")
        lay_out_as_parameters(part)


def _numbers(part: Any) -> list[tuple[int, str, int]]:
    """Return (group, setting, how many numbers it is) of an optimizer's parameter groups."""
    if not isinstance(part, torch.optim.Optimizer):
        return []
    return [
        (place, key, len(value) if isinstance(value, tuple) else 1)
        for place, group in enumerate(part.param_groups)
        for key, value in group.items()
        if key not in ("params", *COMPUTED) and isinstance(value, int | float | tuple)
    ]


def _computed_as(optimizer: torch.optim.Optimizer, state: Any) -> dict[str, Any]:
    """Return a state with how the optimizer computes a step, which follows from the device."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    own = [
        {**saved, **{key: group[key] for key in COMPUTED if key in group}}
        for saved, group in groups
    ]
    return {**state, "param_groups": own}


def _misfit(optimizer: torch.optim.Optimizer, numbers: list[tuple[int, str, int]]) -> str | None:
    """Return what of a loaded optimizer would fail, or go wrong without a word, at the next
    step."""
    for place, key, count in numbers:
        value = optimizer.param_groups[place].get(key)
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) != count or not all(_is_number(one) for one in values):
            return f"{key} of its parameter group {place} is no number"
    keys: set[str] | None = None
    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, Tensor):
            return "it is of other parameters"
        if not isinstance(state, dict) or (keys is not None and set(state) != keys):
            return "parameters have state of several kinds"
        keys = set(state)
        for key, value in state.items():
            if not isinstance(value, Tensor):
                continue
            if value.numel() != 1 and value.shape != parameter.shape:
                return f"{key} has the shape {list(value.shape)} for {list(parameter.shape)}"
            if not value.is_floating_point() or not is_finite(value):
                return f"{key} holds what is no number"
    return None


def _is_plain(value: Tensor) -> bool:
    return value.dtype != torch.bool and not value.is_complex()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
