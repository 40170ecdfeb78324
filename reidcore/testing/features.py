"""Checks of backbones and heads, which give features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reidcore.contracts.parts import Context
from reidcore.model.building import build_model
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample
from reidcore.testing.toy_inputs import batch_of
from reidcore.wiring.plan import Plan, Wired


def outputs_are_as_declared(sample: Sample) -> None:
    """At two picture sizes, every output is as declared where it is wanted alone and where all are
    wanted, and nothing else is given."""
    for plan in sample.plans():
        model = build_model(plan, 0).eval()
        images = batch_of(plan).images
        with torch.no_grad():
            features = model(images)
        for wired in sample.instances(plan):
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
