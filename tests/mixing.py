"""The mixing matrix: components of all installed plugins put together in one run.

Every composition is a run file made from the components' samples: a backbone, `core.bnneck` on its
last map, a head, a matcher on what the head gives, a loss, and a chain of postprocessors. Where a
part needs what the head does not give, the heads of its own sample stand beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import tomli

from reidcore.contracts.settings import LossName, MatcherName
from reidcore.errors import RunFileError
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.plugins.samples import run_file_text
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import dry_run
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, Wired
from reidcore.wiring.references import references

FACTORS = ("backbone", "head", "matcher", "loss", "post")
COVERED = (
    ("backbone", "head"),
    ("backbone", "matcher"),
    ("backbone", "loss"),
    ("head", "matcher"),
    ("head", "loss"),
    ("matcher", "loss"),
    ("matcher", "post"),
)
"""Pairs of kinds of which `covering` has every combination."""
REASONS = (
    r"\b(?:map|vector|tensor|length|rows|column|modality|modalities|logits)\b|\d+x\d+"
    r"|in \[0, 1\]|first postprocessor"
)
"""What a refusal must name: a feature's kind or shape, a column, a modality, or what a matcher or a
chain of distances promises."""

_DEMO = {
    "read": "core.demo",
    "train_identities": 4,
    "test_identities": 2,
    "pictures": 8,
    "infrared_cameras": 2,
}
_DATA = {
    "train": _DEMO,
    "test": [_DEMO],
    "image": [128, 32],
    "augment": [],
    "batch": {"use": "core.two_modalities", "ids": 2, "per_id": 2},
}


@attrs.frozen
class Chain:
    """Postprocessors behind a matcher whose distances may be calibrated."""

    posts: tuple[str, ...] = ()
    scale: str = "none"

    def __str__(self) -> str:
        names = (*(() if self.scale == "none" else (self.scale,)), *self.posts)
        return " + ".join(names) or "no post"


@attrs.frozen
class Mix:
    """One composition, by the components' full names."""

    backbone: str
    head: str
    matcher: str
    loss: str
    post: Chain

    def __str__(self) -> str:
        return ", ".join(str(getattr(self, factor)) for factor in FACTORS)


@attrs.frozen
class _Sample:
    """A component in its sample: the tables, the plan, and its own part of it."""

    table: Mapping[str, Any]
    plan: Plan
    wired: Wired


class Mixer:
    """Compositions of the components of `names`, by default of all installed plugins."""

    def __init__(self, plugins: Plugins | None = None, names: Collection[str] | None = None):
        self._plugins = plugins if plugins is not None else Plugins()
        self._names = sorted(self._plugins.names() if names is None else names)
        self._samples: dict[str, _Sample] = {}

    def components(self, kind: str) -> list[str]:
        """Full names of the components of a kind that have a sample."""
        return [name for name, one in self._components.items() if one.kind == kind]

    @cached_property
    def _components(self) -> dict[str, LoadedComponent]:
        every = [one for name in self._names for one in self._plugins.load(name).components]
        return {one.name: one for one in every if one.component.sample}

    @cached_property
    def choices(self) -> dict[str, list[Any]]:
        """{factor: all its values}. A postprocessor stands alone, behind calibrated distances, and
        behind re-ranking."""
        chains = [Chain()]
        for name in self.components("postprocessor"):
            chains += [Chain((name,)), Chain((name,), "logistic")]
            if name != "core.rerank":
                chains.append(Chain(("core.rerank", name)))
        return {
            **{kind: self.components(kind) for kind in FACTORS if kind != "post"},
            "post": chains,
        }

    def all(self) -> Iterator[Mix]:
        """Every backbone with every head and every matcher; the losses and chains that fit the
        matcher take turns."""
        losses, chains = (
            {one: self._fitting(factor, one) for one in self.choices["matcher"]}
            for factor in ("loss", "post")
        )
        trios = itertools.product(*(self.choices[factor] for factor in FACTORS[:3]))
        for number, (backbone, head, matcher) in enumerate(trios):
            loss, chain = (some[matcher][number % len(some[matcher])] for some in (losses, chains))
            yield Mix(backbone, head, matcher, loss, chain)

    def _fitting(self, factor: str, matcher: str) -> list[Any]:
        return [
            value
            for value in self.choices[factor]
            if not self.refusal(self.plain(**{factor: value, "matcher": matcher}), dry=False)
        ]

    def covering(self, kinds: Sequence[tuple[str, str]] = COVERED) -> list[Mix]:
        """Few compositions with every pair of these kinds in one of them, always the same ones."""
        missing = {
            (first, a, second, b)
            for first, second in kinds
            for a, b in itertools.product(self.choices[first], self.choices[second])
        }
        mixes = []
        while missing:
            chosen: dict[str, Any] = {}
            for factor in sorted(FACTORS, key=lambda one: -len(self.choices[one])):
                chosen[factor] = max(
                    self.choices[factor],
                    key=lambda value: (
                        len(_pairs({**chosen, factor: value}, kinds) & missing),
                        sum((factor, value) in ((a, b), (c, d)) for a, b, c, d in missing),
                    ),
                )
            mixes.append(Mix(**chosen))
            missing -= _pairs(chosen, kinds)
        return mixes

    def plain(self, **chosen: Any) -> Mix:
        """The core's parts, apart from those that are named; a loss on a matcher brings the one of
        its sample."""
        usual = ("core.resnet", "core.bnneck", "core.cosine", "core.softmax", Chain())
        if "loss" in chosen and "matcher" not in chosen:
            sample = self._sample(chosen["loss"])
            named = [
                name for _, kind, name in references(sample.wired.config) if kind is MatcherName
            ]
            uses = [one.part.use for one in sample.plan.matchers if one.part.name in named]
            chosen = {**chosen, **dict(zip(("matcher",), uses, strict=False))}
        values: dict[str, Any] = {**dict(zip(FACTORS, usual, strict=True)), **chosen}
        return Mix(**values)

    def refusal(self, mix: Mix, dry: bool = True) -> str:
        """Why the parts do not fit, "" if they do; a composition that is wired is `dry` run too.

        Raises whatever else goes wrong.
        """
        run = parse_runfile(self.text(mix), Path("mix.toml"))
        try:
            plan = make_plan(run, self._plugins, allow_missing=True)
        except RunFileError as error:
            return " ".join(re.sub(r"^mix\.toml:\d+: ", "", one) for one in error.problems)
        if dry:
            dry_run(plan, build_model(plan, 0))
        return ""

    def text(self, mix: Mix) -> str:
        """The run file of a composition."""
        backbone = self._sample(mix.backbone)
        composed = _Composed(
            [f"backbone.{n}" for n, f in backbone.wired.outputs.items() if f.kind == "map"]
        )
        composed.heads.append({"name": "neck", "use": "core.bnneck", "source": composed.maps[-1]})
        head = self._sample(mix.head)
        composed.add_heads(head, "h", up_to=head.wired.part.name)
        given = {
            f"h_{head.wired.part.name}.{name}": feature.kind
            for name, feature in head.wired.outputs.items()
        }
        matcher, loss = self._sample(mix.matcher), self._sample(mix.loss)
        found, reads = composed.bound(matcher, matcher.wired, "m", given)
        matchers = [{**found, "name": "m"}]
        losses = [{"name": "base", "use": "core.softmax", "features": ["neck.bn"]}]
        names = [name for _, kind, name in references(loss.wired.config) if kind is LossName]
        on_matcher = any(kind is MatcherName for _, kind, _ in references(loss.wired.config))
        for wired in loss.plan.losses:
            if wired.part.name in names or wired is loss.wired:
                # What trains a matcher reads what the matcher does.
                has = reads if on_matcher else {**given, "neck.bn": "vector"}
                table, _ = composed.bound(loss, wired, "l", has)
                losses.append({**table, "name": f"l_{wired.part.name}"})
        posts = []
        for number, name in enumerate(mix.post.posts):
            sample = self._sample(name)
            posts.append({**_own_table(sample, sample.wired), "name": f"p{number}"})
        ranking = {
            "name": "main",
            "matcher": "m",
            "scale": mix.post.scale,
            "post": [post["name"] for post in posts],
        }
        return run_file_text(
            {
                "data": _DATA,
                "backbone": _own_table(backbone, backbone.wired),
                "head": composed.heads,
                "matcher": matchers,
                "loss": losses,
                "post": posts,
                "ranking": [ranking],
                "train": {"epochs": 1},
                "optim": {"lr": 1e-3},
            }
        )

    def _sample(self, name: str) -> _Sample:
        if name not in self._samples:
            text = self._components[name].component.sample or ""
            plan = make_plan(
                parse_runfile(text, Path("sample.toml")), self._plugins, allow_missing=True
            )
            (wired, *_) = [one for one in plan.parts if one.part.use == name]
            self._samples[name] = _Sample(tomli.loads(text), plan, wired)
        return self._samples[name]


class _Composed:
    """Heads of a composition as they come together, and the maps of its backbone."""

    def __init__(self, maps: Sequence[str]):
        self.maps = list(maps)
        self.heads: list[dict[str, Any]] = []

    def add_heads(self, sample: _Sample, prefix: str, up_to: str = "") -> None:
        """The sample's heads, on this backbone; with `up_to`, none behind that one."""
        for wired in sample.plan.heads:
            name = f"{prefix}_{wired.part.name}"
            if not any(head["name"] == name for head in self.heads):
                names = {ref: self._moved(sample, ref, prefix) for _, ref in wired.reads}
                self.heads.append({**_own_table(sample, wired, names), "name": name})
            if wired.part.name == up_to:
                return

    def bound(
        self, sample: _Sample, wired: Wired, prefix: str, given: Mapping[str, str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The part's table, reading what is `given`, {feature: kind}, as far as kinds fit; and what
        it reads, {feature: kind}."""
        names: dict[str, str] = {}
        for _, kind, name in references(wired.config):
            if kind is MatcherName:
                names[name] = "m"
            elif kind is LossName:
                names[name] = f"{prefix}_{name}"
        fitting = {
            name: self._fitting(name, sample.plan.given.features[name].kind, given)
            for _, name in wired.reads
        }
        if not all(fitting.values()):
            # What belongs together, such as a vector and its kernel, comes from one head.
            fitting = {name: self._moved(sample, name, prefix) for name in fitting}
            if any(name.startswith(f"{prefix}_") for name in fitting.values()):
                self.add_heads(sample, prefix)
        reads: dict[str, str] = {
            new: sample.plan.given.features[old].kind for old, new in fitting.items()
        }
        return _own_table(sample, wired, {**names, **fitting}), reads

    def _fitting(self, name: str, kind: str, given: Mapping[str, str]) -> str:
        """What is given in place of a feature: of its name, else of its kind; tensors have no
        common meaning and go by name."""
        short = name.partition(".")[2]
        fits = [one for one, has in given.items() if has == kind]
        same = [one for one in fits if one.partition(".")[2] == short]
        return next(iter(same or (fits if kind != "tensor" else [])), "")

    def _moved(self, sample: _Sample, name: str, prefix: str) -> str:
        """A feature of the sample under its name here. Maps of the backbone are counted from the
        last."""
        instance, _, short = name.partition(".")
        if instance != "backbone":
            return f"{prefix}_{name}"
        theirs = [one for one, has in sample.plan.backbone.outputs.items() if has.kind == "map"]
        if short not in theirs:
            return name
        return self.maps[-min(len(theirs) - theirs.index(short), len(self.maps))]


def _own_table(
    sample: _Sample, wired: Wired, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A part's table of the sample, with other names in its settings."""
    found = sample.table[wired.part.where]
    tables = found if isinstance(found, list) else [found]
    (table, *_) = [one for one in tables if one.get("name", wired.part.name) == wired.part.name]
    fields = {field for field, *_ in references(wired.config)}
    return {
        key: _renamed(value, names or {}) if key in fields else value
        for key, value in table.items()
    }


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        # Two features of a sample may be one here.
        return list(dict.fromkeys(names.get(one, one) for one in value))
    return names.get(value, value)


def _pairs(
    chosen: Mapping[str, Any], kinds: Sequence[tuple[str, str]]
) -> set[tuple[str, Any, str, Any]]:
    return {
        (first, chosen[first], second, chosen[second])
        for first, second in kinds
        if first in chosen and second in chosen
    }


def names_a_reason(refusal: str) -> bool:
    """Whether a refusal says what does not fit, see `REASONS`."""
    return re.search(REASONS, refusal) is not None
