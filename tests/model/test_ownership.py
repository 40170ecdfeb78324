"""What a part may not hold: other parts, their weights, and modules where torch does not see
them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from running import TINY
from torch import nn

from reidcore.errors import PluginError
from reidcore.model import building
from reidcore.modules import Unowned
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import dry_run
from reidcore.wiring.make_plan import make_plan


def built(monkeypatch, change):
    """The model of the tiny run, each of whose parts `change(role, part, parts before)` has
    changed."""
    parts: dict[str, nn.Module] = {}
    build_part = building.build_part

    def changed(plan, wired, context=None):
        part = build_part(plan, wired, context)
        if wired.part.role == "matcher.look":
            part.inner = nn.Sequential(nn.Linear(2, 2))
        part = change(wired.part.role, part, parts) or part
        parts[wired.part.role] = part
        return part

    monkeypatch.setattr(building, "build_part", changed)
    run = parse_runfile(TINY, Path("tiny.toml"), [])
    return building.build_model(make_plan(run, Plugins([]), allow_missing=True), 0)


class Holder:
    """Lets the part of one role hold, as `held`, what `what` makes of the parts before."""

    def __init__(self, role, what):
        self.role, self.what = role, what

    def __call__(self, role, part, parts):
        if role == self.role:
            part.held = self.what(parts)


TRIPLET, SOFTMAX, NECK = "loss 'triplet' (core.triplet)", "loss 'id' (core.softmax)", "head 'neck'"
MATCHER, BACKBONE = "matcher 'look' (core.cosine)", "backbone (core.resnet)"
SELF = "self.held = Unowned(matcher)"


@pytest.mark.parametrize(
    ("role", "what", "words"),
    [
        ("loss.id", lambda p: p["matcher.look"], [SOFTMAX, MATCHER, SELF]),
        (
            "loss.id",
            lambda p: nn.ModuleList([p["matcher.look"]]),
            [SOFTMAX, MATCHER, "'held.0'", "Unowned(matcher) in a plain list"],
        ),
        (
            "loss.triplet",
            lambda p: nn.ModuleDict({"a": nn.Sequential(p["matcher.look"])}),
            [TRIPLET, MATCHER, "'held.a.0'"],
        ),
        ("head.neck", lambda p: p["backbone"], [NECK, BACKBONE, "Unowned(backbone)"]),
        ("matcher.look", lambda p: p["head.neck"], [MATCHER, NECK, "Unowned(head)"]),
        ("loss.triplet", lambda p: p["loss.id"], [TRIPLET, SOFTMAX, "Unowned(loss)"]),
        (
            "loss.triplet",
            lambda p: p["loss.id"].classifier,
            [TRIPLET, "the module 'classifier' (Linear) of " + SOFTMAX, "'held'", "Unowned"],
        ),
        (
            "loss.id",
            lambda p: p["matcher.look"].inner,
            [SOFTMAX, "the module 'inner' (Sequential) of " + MATCHER],
        ),
        (
            "loss.id",
            lambda p: p["matcher.look"].inner[0].weight,
            [SOFTMAX, "the parameter 'inner.0.weight' of " + MATCHER, "'held'"],
        ),
    ],
)
def test_what_belongs_to_another_part_is_refused(monkeypatch, role, what, words):
    """As an attribute, in a ModuleList or ModuleDict, as a whole, a module or a weight; the text
    says what to write."""
    with pytest.raises(PluginError) as caught:
        built(monkeypatch, Holder(role, what))
    said = str(caught.value)
    assert said.startswith(words[0]) and all(word in said for word in words), said
    assert "saved twice" in said and "reidcore 1" in said and len(said) < 1000


def test_one_module_for_two_parts_is_refused(monkeypatch):
    def change(role, part, parts):
        return parts["loss.id"] if role == "loss.triplet" else None

    with pytest.raises(PluginError, match=r"loss 'triplet' .* returns the same module as that of"):
        built(monkeypatch, change)


@pytest.mark.parametrize(
    "what",
    [
        lambda p: Unowned(p["matcher.look"]),
        lambda p: [Unowned(p["matcher.look"])],
        lambda p: {"a": p["matcher.look"]},  # torch does not see it
        lambda p: RELU,
        lambda p: nn.Linear(2, 2),
    ],
)
def test_what_is_held_well_passes(monkeypatch, what):
    """Unowned, or without any weight, or the part's own, also in two parts alike."""
    model = built(monkeypatch, Holder("loss.id", what))
    model.losses["triplet"].other = RELU
    notes = dry_run(model.plan, model)
    assert model.notes == [] and all("matcher" in note or "held" in note for note in notes)


RELU = nn.ReLU()


@pytest.mark.parametrize(
    ("what", "kind", "cure"),
    [
        (lambda p: [nn.Linear(2, 2)], "list", "nn.ModuleList"),
        (lambda p: {"a": (nn.Linear(2, 2),)}, "dict", "nn.ModuleDict"),
    ],
)
def test_modules_that_torch_does_not_see_are_noted(monkeypatch, what, kind, cure):
    """They would neither be trained nor saved; a frozen teacher may stand there."""
    (note,) = built(monkeypatch, Holder("head.neck", what)).notes
    assert note.startswith(NECK) and f"held is a plain {kind} of modules" in note and cure in note
    frozen = Holder("head.neck", lambda p: [nn.Linear(2, 2).requires_grad_(False)])
    assert built(monkeypatch, frozen).notes == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_when_built(monkeypatch, bad):
    """Whatever a plugin starts from; not where trained weights follow."""

    def change(role, part, parts):
        if role == "head.neck":
            with torch.no_grad():
                part.norm.weight[0] = bad

    with pytest.raises(PluginError, match=r"head 'neck' .* not finite: norm\.weight, 1 of "):
        built(monkeypatch, change)
