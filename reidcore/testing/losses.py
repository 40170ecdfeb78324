"""Checks of losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from reidcore.support.seeds import seeded
from reidcore.testing.comparing import same
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import batch_of


def forward_changes_nothing(sample: Sample) -> None:
    """The loss's forward and backward change no state but that of norm layers, and no feature; two
    forwards are equal."""
    plan = sample.plan()
    model, batch = trained(plan).train(), batch_of(plan)
    with torch.no_grad():
        given = model(batch.images)
    for wired in sample.instances(plan):
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
    """Return all that a forward pass could change: tensors, registered or not, and plain
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
