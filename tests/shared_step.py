"""Started by torchrun: a training step of every component's sample, shared by all processes and
computed at once, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from reidcore.cli.main import leave
from reidcore.distributed.processes import ALONE, Processes, together
from reidcore.distributed.shared_batches import SharedImages, average_gradients, divided
from reidcore.model.model import Model
from reidcore.modules import Batch, Images
from reidcore.plugins.loading import Plugins
from reidcore.support.seeds import seeded
from reidcore.testing.samples import Sample, trained
from reidcore.testing.toy_inputs import pictures
from reidcore.wiring.plan import Plan

CLOSE = 1e-9
"""Differences by rounding, of the largest number of a tensor, and of 1."""


def batch_of(plan: Plan, count: int) -> Batch:
    """`count` pictures in float64; of several modalities, all of each beside each other."""
    images = pictures(plan, count, seed=3)
    order = images.modality.argsort(stable=True)
    images = images[order[torch.linspace(0, len(order) - 1, count).long()]]
    pid = torch.arange(count) // 2 % max(1, plan.given.identities)
    return Batch(Images(images.pixels.double(), images.modality, images.camera), pid)


def shared(batch: Batch, processes: Processes) -> Batch:
    """The batch as each of several processes gets it."""
    images = batch.images
    division = divided(images.modality.numpy(), processes)
    assert division is not None
    assert sorted(np.concatenate(division.parts).tolist()) == list(range(len(batch)))
    own = images[torch.from_numpy(division.own)]
    made = SharedImages(own, division, images.modality, images.camera, lambda: images.pixels, (0,))
    return Batch(made, batch.pid)


def step(model: Model, batch: Batch, processes: Processes) -> dict[str, torch.Tensor]:
    """Everything that a training step makes, by name."""
    made: dict[str, torch.Tensor] = {}
    with seeded("step"):
        features = model(batch.images)
        loss, terms = model.loss(features, batch)
        loss.backward()
        average_gradients(model.parameters(), processes)
        model.after_step(features, batch)
    made |= {f"term {name}": value for name, value in terms.items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            made[f"gradient {name}"] = parameter.grad
    made |= {f"buffer {name}": value for name, value in model.named_buffers()}
    return made


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to 1 and the largest number."""
    if not other.numel():
        return 0.0
    return float((one.double() - other.double()).abs().max() / (1 + other.double().abs().max()))


def samples() -> Iterator[tuple[str, Plan]]:
    """Every different sample that trains, after the name of its component."""
    plugins = Plugins()
    seen = set()
    for component in plugins.components():
        text = component.component.sample
        if not text or text in seen:
            continue
        seen.add(text)
        plan = Sample(component, plugins).plan()
        if plan.losses:
            yield component.name, plan


def main() -> int:
    wrong = 0
    with together() as processes:
        for name, plan in samples():
            base = trained(plan).double().train()
            for part in base.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.0  # each process draws its own
            batch = batch_of(plan, 11)
            alone = step(copy.deepcopy(base), batch, ALONE)
            found = step(copy.deepcopy(base), shared(batch, processes), processes)
            bad = {
                key: difference(found[key], value) if key in found else float("inf")
                for key, value in alone.items()
            }
            bad = {key: value for key, value in bad.items() if not value <= CLOSE}
            missing = sorted(found.keys() - alone.keys())
            if processes.first:
                used = sorted({wired.part.use for wired in plan.parts})
                verdict = "WRONG" if bad or missing else "equal"
                print(verdict, name, len(alone), *used, flush=True)
                for key, value in list(bad.items())[:5]:
                    print(f"  {key}: {value:.1e}")
                if missing:
                    print(f"  only when shared: {missing[:5]}")
            wrong += bool(bad or missing)
    return int(wrong > 0)


if __name__ == "__main__":
    leave(main())
