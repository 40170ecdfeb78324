"""Reads the tables of components, apart from the components' own keys. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from reidcore.contracts.settings import INSTANCE
from reidcore.runfiles.keys import LARGEST, LISTS, MEANS, KeyPath
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part
from reidcore.runfiles.value_words import shown

NAME_FORM = "expected a name of a-z, 0-9 and _ that starts with a letter"


def read_part(problems: Problems, where: str, kind: str, table: Any, path: KeyPath) -> Part | None:
    """Return the part whose table stands at the path; None, after noting the problem, if it has no
    component.

    where: the part's table, or augment or batch. kind: of the component.
    """
    place = _place(where, path)
    if not isinstance(table, dict):
        problems.add(path, place, f"expected table, got {shown(table)}")
        return None
    use = table.get("use")
    name = table.get("name", "")
    named = f"{kind} {name!r}" if isinstance(name, str) and name else place
    if use is None:
        problems.add((*path, "use"), named, "missing key 'use', the component to use")
    elif not isinstance(use, str):
        problems.add((*path, "use"), named, f"expected text, got {shown(use)} at .use")
    if where in LISTS:
        _check_name(problems, where, table, path)
    weight = table.get("weight", 1.0) if where == "loss" else 1.0
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= LARGEST:
        most = f" and at most {LARGEST:g}" if number and weight > LARGEST else ""
        text = f"expected a number of at least 0{most}, got {shown(weight)} at .weight"
        problems.add((*path, "weight"), named, text)
        weight = 1.0
    if not isinstance(use, str):
        return None
    part = Part(where, kind, str(name), use, {}, path, float(weight))
    own = {key: value for key, value in table.items() if key not in part.core_keys}
    return attrs.evolve(part, table=own)


def read_parts(problems: Problems, where: str, kind: str, tables: Any) -> list[Part]:
    """Return the parts of a list of tables, such as `[[head]]`."""
    if not isinstance(tables, list):
        problems.unusable.add(where)
        problems.add((where,), "", not_a_list(where, tables))
        return []
    found = [
        read_part(problems, where, kind, table, (where, index))
        for index, table in enumerate(tables)
    ]
    parts = [part for part in found if part is not None]
    seen: set[str] = set()
    for index, part in enumerate(parts):
        if part.name and part.name in seen:
            problems.add(
                (*part.path, "name"), _place(where, (where, index)), taken(part.name, where)
            )
        seen.add(part.name)
    return parts


def not_a_list(where: str, found: Any) -> str:
    """Return the message about `[head]` where `[[head]]` is meant."""
    return f"[{where}] must be written [[{where}]]: a list of tables, got {shown(found)}"


def taken(name: str, where: str) -> str:
    """Return the message about a name that two tables of a list have."""
    return f"the name {name!r} is taken by another [[{where}]]"


def _place(where: str, path: KeyPath) -> str:
    """Return a table as messages name it: "[backbone]", or "[[head]] number 1"."""
    if path[0] == where and len(path) == 2:
        return f"[[{where}]] number {int(path[1]) + 1}"
    return f"[{'.'.join(map(str, path))}]"


def _check_name(problems: Problems, where: str, table: Mapping[str, Any], path: KeyPath) -> None:
    """Note a name that is missing, is none, or means something else already."""
    place = _place(where, path)
    name = table.get("name")
    if "name" not in table:
        problems.unusable.add(where)
        problems.add(path, place, "missing key 'name'")
    elif not isinstance(name, str) or not INSTANCE.fullmatch(name):
        problems.unusable.add(where)
        problems.add((*path, "name"), place, f"{NAME_FORM}, got {shown(name)} at .name")
    elif where == "loss" and name in MEANS:
        text = f"the name {name!r} is a column of means.csv; choose another at .name"
        problems.add((*path, "name"), place, text)
    elif where == "head" and name == "backbone":
        text = "the name 'backbone' is the backbone's own; choose another at .name"
        problems.add((*path, "name"), place, text)
