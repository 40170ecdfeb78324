"""A component in its sample run: the run file, the plan and a trained model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch

from reidcore.errors import RunFileError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfiles.runfile import RunFile
from reidcore.support.seeds import seeded
from reidcore.testing.failures import ConformanceError
from reidcore.training.dry_run import dry_run, random_batch, train_once
from reidcore.training.teachers import find_run
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, Wired


class Sample:
    """A component and the run that its `sample` describes."""

    def __init__(self, component: LoadedComponent, plugins: Plugins):
        self.component = component
        self.plugins = plugins

    def run(self, *sets: str) -> RunFile:
        sample = self.component.component.sample
        if not sample:
            raise ConformanceError("it has no sample, a smallest run file in which it stands")
        return parse_runfile(sample, Path("sample.toml"), sets)

    def plan(self, *sets: str) -> Plan:
        """Return the plan of the run; data that are absent are assumed as their reader declares."""
        return make_plan(self.run(*sets), self.plugins, allow_missing=True, find_run=find_run)

    def instances(self, plan: Plan) -> list[Wired]:
        """Return the component's own parts of the plan."""
        found = [wired for wired in plan.parts if wired.part.use == self.component.name]
        if not found and self.component.kind != "reader":
            used = ", ".join(sorted({wired.part.use for wired in plan.parts}))
            raise ConformanceError(f"its sample does not use it, but {used}")
        return found

    def plans(self) -> Iterator[Plan]:
        """Yield the plan at the sample's picture size and at a larger one, which the component may
        refuse by naming a setting of its own. One of the two is not square."""
        yield self.plan()
        height, width = self.run().data.image
        wide = width * 2 if height == width else width * 3 // 2
        try:
            other = self.plan(f"data.image=[{height * 3 // 2}, {wide}]")
        except RunFileError as error:
            fields = [field.name for field in attrs.fields(self.component.component.config)]
            mine = [line for line in error.problems if self.component.name in line]
            if not any(re.search(rf"\b{name}\b", line) for name in fields for line in mine):
                raise
        else:
            yield other


def run_dry(text: str, path: Path, plugins: Plugins, *sets: str) -> Plan:
    """Return the plan of a run file after its dry run."""
    plan = make_plan(
        parse_runfile(text, path, sets), plugins, allow_missing=True, find_run=find_run
    )
    dry_run(plan, build_model(plan, 0))
    return plan


def trained(plan: Plan, seed: int = 0) -> Model:
    """Return a model after one training step, so that no weight or state has its first value."""
    with seeded("conformance"):
        model = build_model(plan, seed)
        if plan.losses:
            train_once(plan, model, random_batch(plan, torch.device("cpu"), training=True))
        return model.eval()
