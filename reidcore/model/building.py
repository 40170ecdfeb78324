"""Builds the parts of a plan and assembles them into a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn

from reidcore.contracts.parts import Context, Initial, Matcher
from reidcore.contracts.wiring_methods import Unkept, unchanged
from reidcore.data.pictures import PictureLoader
from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import DataError, PluginError, ReidError, UsageError
from reidcore.model.finite import faults, is_finite
from reidcore.model.model import Model
from reidcore.model.ownership import check_owned, hidden_notes
from reidcore.support.seeds import seed_all, seeded
from reidcore.support.too_much import is_too_much, largest
from reidcore.support.wording import a_or_an, in_words, shortened
from reidcore.wiring.blame import failure
from reidcore.wiring.plan import Plan, Wired


def choose_device(name: str) -> torch.device:
    """Return the device of this name; auto is cuda if there is one, else cpu. Of processes that
    torchrun has started, each takes a GPU of its own. Raises UsageError for a GPU that is not
    there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices; use "
            'device = "auto" or "cpu"'
        )
    return device


def context_of(
    plan: Plan,
    wired: Wired,
    matchers: Mapping[str, Matcher] | None = None,
    initial: Initial = "offer",
) -> Context:
    """Return what the part's build function is given beside its settings."""
    role = wired.part.role
    return Context(plan.given, wired.part.name, plan.wanted.get(role, ()), matchers, initial)


def build_part(plan: Plan, wired: Wired, context: Context | None = None) -> Any:
    """Build a part; whatever its build function raises becomes an error that names the part."""
    try:
        with unchanged(wired.config):
            part = wired.build()(wired.config, context or context_of(plan, wired))
        _check_kind(wired, part)
        return part
    except DataError as error:
        raise DataError(f"{wired.part}: {error}") from error
    except ReidError:
        raise
    except (Exception, SystemExit) as error:
        settings = attrs.asdict(wired.config)
        if is_too_much(error, settings):
            which = largest(settings)
            raise UsageError(
                f"{wired.part}: {f'{which} asks' if which else 'it asks'} for more than this "
                f"machine can hold: {shortened(in_words(error), 200)}"
            ) from error
        raise failure(wired, "building it", error) from error


def _check_kind(wired: Wired, part: object) -> None:
    """Raise `Unkept` if a build function returned something else than a part of its kind."""
    kind = wired.part.kind
    if kind in ("backbone", "head", "loss", "matcher"):
        fits, wanted = isinstance(part, nn.Module), "a module of torch"
    elif kind == "sampler":
        fits, wanted = hasattr(part, "epoch"), "an object with a method epoch"
    else:
        fits, wanted = callable(part), "what can be called"
    if not fits:
        found = "nothing" if part is None else a_or_an(type(part).__name__)
        build = wired.component.component.build
        raise Unkept(f"{build} returned {found}, not {wanted}; has it a `return`?")


def build_model(plan: Plan, seed: int, initial: Initial = "offer") -> Model:
    """Build every part and assemble them. `initial` is as in `reidcore.modules.Context`.

    A part's random weights follow from the seed and its role alone, so that adding another part
    changes nothing.
    """
    notes: list[str] = []
    with seeded(seed, "build"):

        def build(wired: Wired, matchers: Mapping[str, Matcher] | None = None) -> Any:
            seed_all(seed, "build", wired.part.role)
            context = context_of(plan, wired, matchers, initial)
            part = build_part(plan, wired, context)
            if initial != "none":
                _require_finite(wired, part)
            notes.extend(f"{wired.part}: {text}" for text in context.notes)
            return part

        backbone = build(plan.backbone)
        heads = {wired.part.name: build(wired) for wired in plan.heads}
        matchers = {wired.part.name: build(wired) for wired in plan.matchers}
        losses = {wired.part.name: build(wired, matchers) for wired in plan.losses}
    model = Model(plan, backbone, heads, matchers, losses)
    check_owned(model)
    model.notes += [*notes, *hidden_notes(model)]
    return model


def _require_finite(wired: Wired, part: nn.Module) -> None:
    """Raise PluginError if weights that training starts from are not finite."""
    for name, value in part.named_parameters():
        if not is_finite(value):
            raise PluginError(
                f"{wired.part}: it was built with a weight that is not finite: {name}, "
                f"{faults(value)} ({wired.owner})"
            )


def make_loader(plan: Plan, device: torch.device, processes: Processes = ALONE) -> PictureLoader:
    """Return the run's picture loader, with its augmentations."""
    settings, seed = plan.runfile.data, plan.runfile.train.seed
    with seeded(seed, "build", "data.augment"):
        augment = [build_part(plan, part) for part in plan.augment]
    return PictureLoader(settings, seed, augment, device, processes)
