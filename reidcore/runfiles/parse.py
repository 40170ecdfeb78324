"""Run files: TOML text, `--set`, and the tables that belong to the core.

Components' own keys are checked later, when their plugins are loaded (`reidcore.wiring.make_plan`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reidcore.contracts.settings import INSTANCE
from reidcore.errors import UsageError, nearest
from reidcore.runfiles.core_tables import check_training, read_core_tables, read_rankings
from reidcore.runfiles.data_entries import read_entries
from reidcore.runfiles.evaluation_file import replace_evaluation
from reidcore.runfiles.format import check_format, name_posts
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.keys import COMPONENT_TABLES, LISTS, TOP_KEYS, KeyPath
from reidcore.runfiles.overrides import apply_sets, flatten, set_value
from reidcore.runfiles.part_tables import read_part, read_parts
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, RunFile
from reidcore.runfiles.tables import Data
from reidcore.runfiles.toml_files import parse_toml
from reidcore.runfiles.value_words import dotted, shown

LONGEST_NAME = 200
"""Bytes of a run's name, which is that of a folder."""


def parse_runfile(
    text: str,
    path: Path,
    sets: Sequence[str] = (),
    other: Path | None = None,
    other_sets: Sequence[str] = (),
) -> RunFile:
    """Check the core's part of a run file's text, and return it as an object.

    path: for messages. sets: `--set key=value`, applied first. other: a file whose test sets,
    rankings, postprocessors and evaluation replace the run file's; other_sets are applied after
    it. Raises `RunFileError` (exit code 2) with every problem found.
    """
    table = parse_toml(text, path)
    problems = Problems(path, KeyLines(text))
    check_format(table, problems)
    stated = table.get("format")
    name_posts(table)
    apply_sets(table, sets, problems.lines)
    if other is not None:
        replace_evaluation(table, other, problems)
    apply_sets(table, other_sets, problems.lines)
    if stated is not table.get("format"):
        check_format(table, problems)
    _check_integers(table, (), problems)
    return _read(table, text, problems)


def _read(table: dict[str, Any], text: str, problems: Problems) -> RunFile:
    """Return the run file, or raise all its problems, in the order in which they are found."""
    plugins = _plugins(table, problems)
    _check_top_keys(table, plugins, problems)
    name = _name(table, problems)
    core = read_core_tables(table, problems)
    entries = read_entries(core.data, core.eval, problems)
    augment, batch = _parts_of_data(core.data, problems)
    parts = _parts(table, problems)
    procedure = _procedure(table, problems)
    rankings = read_rankings(table.get("ranking", []), problems)
    check_training(core, table, problems)
    repeat = _repeat(table, problems)
    watching = _observer_tables(table, plugins, problems)
    problems.raise_any()
    assert procedure is not None
    assert core.data is not None
    assert core.train is not None
    assert core.eval is not None
    return RunFile(
        path=problems.path,
        text=text,
        table=table,
        lines=problems.lines,
        name=name,
        plugins=tuple(plugins),
        watching=watching,
        data=core.data,
        sources=tuple(entries),
        augment=tuple(augment),
        batch=batch,
        parts=tuple(parts),
        procedure=procedure,
        rankings=tuple(rankings),
        train=core.train,
        optim=core.optim,
        eval=core.eval,
        repeat=repeat,
    )


def _check_top_keys(table: Mapping[str, Any], plugins: Sequence[str], problems: Problems) -> None:
    for key in table:
        if key in TOP_KEYS or key in plugins:
            continue
        hint = nearest(key, (*TOP_KEYS, *plugins)) or f"; known are {', '.join(TOP_KEYS)}"
        if isinstance(table[key], dict) and INSTANCE.fullmatch(key) and "did you mean" not in hint:
            hint += f", and tables of the observers in 'plugins', where {key!r} is not"
        problems.add((key,), "", f"unknown table or key {key!r}{hint}")


def _check_integers(value: Any, path: KeyPath, problems: Problems) -> None:
    """Note integers of more than 64 bits, which no number of torch and no line of text holds."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_integers(item, (*path, key), problems)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_integers(item, (*path, index), problems)
    elif isinstance(value, int) and value.bit_length() > 64:
        text = f"expected an int of at most 64 bits, got {shown(value)} at {dotted(path)}"
        problems.add(path, "", text)
        problems.raise_any()  # which other messages could not quote


def _name(table: Mapping[str, Any], problems: Problems) -> str:
    name = table.get("name", problems.path.stem)
    if isinstance(name, str) and re.fullmatch(r"[\w][\w.\-]*", name):
        if len(name.encode()) <= LONGEST_NAME:
            return name
        text = f"key 'name' must have at most {LONGEST_NAME} bytes, got {shown(name)}"
        problems.add(("name",), "", text)
        return ""
    text = f"key 'name' must be letters, digits, '.', '_' or '-', got {shown(name)}"
    problems.add(("name",), "", text)
    return ""


def _plugins(table: Mapping[str, Any], problems: Problems) -> list[str]:
    plugins = table.get("plugins", [])
    if isinstance(plugins, list) and all(isinstance(name, str) for name in plugins):
        return plugins
    text = f"key 'plugins' must be a list of names, got {shown(plugins)}"
    problems.add(("plugins",), "", text)
    return []


def _observer_tables(
    table: Mapping[str, Any], plugins: Sequence[str], problems: Problems
) -> dict[str, Mapping[str, Any]]:
    """Return the tables of observers by plugin, each of which `plugins` names."""
    found = {}
    for name in plugins:
        if name in TOP_KEYS or name not in table:
            continue
        if isinstance(table[name], dict):
            found[name] = table[name]
        else:
            problems.add((name,), f"[{name}]", f"expected table, got {shown(table[name])}")
    return found


def _parts_of_data(data: Data | None, problems: Problems) -> tuple[list[Part], Part | None]:
    """Return the augmentations and the sampler, which stand inside [data]."""
    if data is None:
        return [], None
    augment = [
        part
        for index, table in enumerate(data.augment)
        if (
            part := read_part(
                problems, "augment", "augmentation", table, ("data", "augment", index)
            )
        )
    ]
    if data.batch is None:
        return augment, None
    return augment, read_part(problems, "batch", "sampler", data.batch, ("data", "batch"))


def _parts(table: Mapping[str, Any], problems: Problems) -> list[Part]:
    """Return the backbone, heads, matchers, losses and postprocessors."""
    parts: list[Part] = []
    for where, kind in COMPONENT_TABLES.items():
        if where in LISTS:
            parts += read_parts(problems, where, kind, table.get(where, []))
    if "backbone" not in table:
        problems.add((), "", "table [backbone] is missing")
        return parts
    backbone = read_part(problems, "backbone", "backbone", table["backbone"], ("backbone",))
    return [backbone, *parts] if backbone is not None else parts


def _procedure(table: Mapping[str, Any], problems: Problems) -> Part | None:
    if "procedure" not in table:
        return Part("procedure", "procedure", "", "core.train", {}, ())
    return read_part(problems, "procedure", "procedure", table["procedure"], ("procedure",))


def _repeat(table: Mapping[str, Any], problems: Problems) -> dict[str, tuple[Any, ...]]:
    """Return the values of each key of [repeat], one for each repeat."""
    stated = table.get("repeat", {})
    if not isinstance(stated, dict):
        problems.add(("repeat",), "", f"[repeat]: expected table, got {shown(stated)}")
        return {}
    repeat: dict[str, tuple[Any, ...]] = {}
    for key, values in flatten(stated).items():
        if isinstance(values, list) and values:
            repeat[key] = tuple(values)
        else:
            text = f"{key!r} must be a list with a value for each repeat, got {shown(values)}"
            problems.add(("repeat", key), "[repeat]", text)
    lengths = {key: len(values) for key, values in repeat.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{key!r} has {length}" for key, length in lengths.items())
        problems.add(("repeat",), "[repeat]", f"lists must be equally long: {text}")
    for key, values in repeat.items():
        if key.partition(".")[0] in problems.unusable:
            continue
        try:
            set_value(copy.deepcopy(dict(table)), key, values[0])
        except UsageError as error:
            problems.add(("repeat", key), "[repeat]", str(error))
    return repeat
