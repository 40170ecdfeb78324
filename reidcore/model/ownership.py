"""Finds modules and weights that several parts of a model hold, and those that nobody owns.

What two parts hold would reach the optimizer twice, and be saved twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from reidcore.errors import PluginError
from reidcore.model.model import Model
from reidcore.wiring.plan import Wired

UNOWNED = "`from reidcore.modules import Unowned`"


def check_owned(model: Model) -> None:
    """Raise PluginError, which says what to write, if a part holds another part or its weights
    without `Unowned`."""
    wired = _wired(model)
    parts = {id(module): role for role, module in reversed(list(model.parts()))}
    owners: dict[int, tuple[str, str]] = {}
    for role, part in model.parts():
        own: dict[int, tuple[str, str]] = {}
        for name, module in part.named_modules():
            owner = parts.get(id(module), role)
            if owner != role:
                raise PluginError(_holds_part(wired[role], wired[owner], name))
            if id(module) in owners and any(True for _ in module.parameters()):
                other, theirs = owners[id(module)]
                what = f"the module {theirs!r} ({type(module).__name__}) of {wired[other].part}"
                raise PluginError(_shares(wired[role], what, name, "its own module"))
            own[id(module)] = role, name
        for name, parameter in part.named_parameters():
            if id(parameter) in owners:
                other, theirs = owners[id(parameter)]
                what = f"the parameter {theirs!r} of {wired[other].part}"
                raise PluginError(_shares(wired[role], what, name, "a parameter of its own"))
            own[id(parameter)] = role, name
        owners |= own


def hidden_notes(model: Model) -> list[str]:
    """Return a note on every part that keeps modules to train in a plain list or dictionary, where
    torch does not see them: they are neither trained nor saved."""
    wired = _wired(model)
    known = {id(module) for module in model.modules()}
    notes = []
    for role, part in model.parts():
        for name, module in part.named_modules():
            for key, value in vars(module).items():
                hidden = [
                    one
                    for one in _in_containers(value)
                    if id(one) not in known and any(p.requires_grad for p in one.parameters())
                ]
                if hidden:
                    path = f"{name}.{key}" if name else key
                    kind = "nn.ModuleDict" if isinstance(value, Mapping) else "nn.ModuleList"
                    notes.append(
                        f"{wired[role].part}: {path} is a plain {type(value).__name__} of "
                        f"modules, which are neither trained nor saved; make it an {kind}"
                    )
    return notes


def _in_containers(value: Any, depth: int = 3) -> Iterator[nn.Module]:
    """Yield the modules in a list, tuple, set or dictionary, and in such inside of it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if depth and isinstance(value, list | tuple | set | frozenset):
        for one in value:
            if isinstance(one, nn.Module):
                yield one
            else:
                yield from _in_containers(one, depth - 1)


def _wired(model: Model) -> dict[str, Wired]:
    plan = model.plan
    parts = (plan.backbone, *plan.heads, *plan.matchers, *plan.losses)
    return {one.part.role: one for one in parts}


def _holds_part(holder: Wired, held: Wired, name: str) -> str:
    if not name:
        return (
            f"{holder.part}: its build function returns the same module as that of {held.part}, "
            f"which would be trained and saved twice; build a new one for each ({holder.owner})"
        )
    attribute, _, inside = name.partition(".")
    word = held.part.where
    write = f"self.{attribute} = Unowned({word}), and self.{attribute}() gives it back"
    if inside:
        write = f"hold Unowned({word}) in a plain list or dictionary {attribute!r}"
    return (
        f"{holder.part}: holds {held.part} as its module {name!r}, which would be trained and "
        f"saved twice. Write {write} ({UNOWNED}) ({holder.owner})"
    )


def _shares(holder: Wired, what: str, name: str, own: str) -> str:
    return (
        f"{holder.part}: holds {what} as {name!r}, which would be trained and saved twice. Build "
        f"{own} for each part, or hold the module as Unowned(module) in all but one ({UNOWNED}) "
        f"({holder.owner})"
    )
