"""A component standing in its sample: the plan and model around it, and toys to feed it with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.given import Given
from reidcore.contracts.parts import Matcher, Template
from reidcore.contracts.pictures import Batch, Images, Meta, Rows
from reidcore.errors import RunFileError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.ranking.templates import view_of
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfiles.runfile import RunFile
from reidcore.support.seeds import seeded
from reidcore.testing.failures import ConformanceError
from reidcore.training.dry_run import dry_run, random_batch, train_once
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, Wired


class Stand:
    """The run that a component's `sample` describes."""

    def __init__(self, component: LoadedComponent, plugins: Plugins):
        self.component = component
        self.plugins = plugins

    def run(self, *sets: str) -> RunFile:
        sample = self.component.component.sample
        if not sample:
            raise ConformanceError("it has no sample, a smallest run file in which it stands")
        return parse_runfile(sample, Path("sample.toml"), sets)

    def plan(self, *sets: str) -> Plan:
        """The sample's plan; data that are absent are assumed as their reader declares."""
        return make_plan(self.run(*sets), self.plugins, allow_missing=True)

    def instances(self, plan: Plan) -> list[Wired]:
        """The component's own parts of the plan."""
        return [wired for wired in plan.parts if wired.part.use == self.component.name]

    def plans(self) -> Iterator[Plan]:
        """The plan at the sample's picture size and at one half as large again, which the
        component may refuse by naming a setting of its own."""
        yield self.plan()
        height, width = self.run().data.image
        try:
            other = self.plan(f"data.image=[{height * 3 // 2}, {width * 3 // 2}]")
        except RunFileError as error:
            fields = [field.name for field in attrs.fields(self.component.component.config)]
            mine = [line for line in error.problems if self.component.name in line]
            if not any(re.search(rf"\b{name}\b", line) for name in fields for line in mine):
                raise
        else:
            yield other


def run_dry(text: str, path: Path, plugins: Plugins, *sets: str) -> Plan:
    """A run file's plan, wired and dry-run."""
    plan = make_plan(parse_runfile(text, path, sets), plugins, allow_missing=True)
    dry_run(plan, build_model(plan, 0))
    return plan


def trained(plan: Plan, seed: int = 0) -> Model:
    """A model after one step and all moments, so that nothing has its first value."""
    with seeded("conformance"):
        model = build_model(plan, seed)
        if plan.losses:
            train_once(plan, model, random_batch(plan, torch.device("cpu"), training=True))
        return model.eval()


def pictures(plan: Plan, count: int, seed: int = 0) -> Images:
    """At least `count` random pictures of all modalities and cameras."""
    images: list[Images] = []
    while sum(map(len, images)) < count:
        images.append(random_batch(plan, torch.device("cpu"), seed + len(images)).images)
    return Images(
        torch.cat([one.pixels for one in images]),
        torch.cat([one.modality for one in images]),
        torch.cat([one.camera for one in images]),
    )


def batch_of(plan: Plan) -> Batch:
    return random_batch(plan, torch.device("cpu"), seed=7)


@torch.no_grad()
def template_of(model: Model, matcher: Matcher, images: Images) -> Template:
    """What ranking stores of the pictures."""
    model.eval()
    views = [model(view_of(images, view)) for view in model.plan.given.views]
    return matcher.merge([matcher.template(features) for features in views])


def meta_of(images: Images, seed: int) -> Meta:
    """Cameras and modalities as they are, random times within an hour."""
    draw = torch.Generator().manual_seed(seed)
    times = torch.rand(len(images), generator=draw, dtype=torch.float64) * 3600
    return Meta(images.camera, times, images.modality)


def toy_rows(given: Given, identities: int, each: int = 4) -> Rows:
    """Rows without pictures: `each` of every identity for every modality, over all cameras."""
    count = identities * each * max(1, len(given.modalities))
    order = np.arange(count)
    return Rows(
        paths=[f"/toy/{i}.jpg" for i in order],
        pid=order % identities,
        camera=order // identities % max(1, given.cameras),
        time=order.astype(np.float64),
        modality=order // (identities * each),
        names=[str(i) for i in range(identities)],
        listed=[f"toy row {i}" for i in order],
    )


class ToyAsk:
    """Answers a sampler with numbers that follow from the pictures' indices alone."""

    def __init__(self, given: Given):
        self._given = given

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        shape = self._given.feature(name).shape
        return torch.stack([_noise(int(index), shape) for index in indices])

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        assert matcher in self._given.matchers, f"there is no matcher {matcher!r}"
        return torch.cat([_noise(int(i) + 10**6, (1, 10**4))[:, list(b)].abs() for i in a])


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_global_seed(seed: int, function: Callable[[], Any]) -> Any:
    """Calls with other states of the global generators, which must not matter."""
    import random

    with seeded("conformance"):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return function()


def same(first: Any, second: Any) -> bool:
    """Bit-identical tensors, in dicts and lists as well."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
