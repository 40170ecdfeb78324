"""Run files: TOML text, `--set`, and the tables that belong to the core.

Components' own keys are checked later, when their plugins are loaded (`reidcore.wiring.make_plan`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.contracts.settings import INSTANCE
from reidcore.errors import UsageError, nearest
from reidcore.runfiles.data_entries import read_source, stated_protocol
from reidcore.runfiles.overrides import apply_sets, flatten, set_value
from reidcore.runfiles.problems import Lines, Problems, parse_toml, read_text
from reidcore.runfiles.runfile import Part, RunFile, Source
from reidcore.runfiles.strict import shown, structure
from reidcore.runfiles.tables import (
    CORE_TABLES,
    FORMAT,
    KINDS,
    LISTS,
    MEANS,
    TOP_KEYS,
    Data,
    Eval,
    RankingTable,
)


def parse_runfile(
    text: str,
    path: Path,
    sets: Sequence[str] = (),
    other: Path | None = None,
    other_sets: Sequence[str] = (),
) -> RunFile:
    """Checks the core's part of a run file's text, after applying `--set`; `path` is for messages.

    other: a file whose test sets, rankings, postprocessors and evaluation replace the run file's;
    other_sets are applied after it. Raises `RunFileError` (exit code 2) with every problem found.
    """
    table = parse_toml(text, path)
    problems = Problems(path, Lines(text))
    _check_format(table, problems)
    _name_posts(table)
    apply_sets(table, sets, problems.lines)
    if other is not None:
        _replace_evaluation(table, other, problems)
    apply_sets(table, other_sets, problems.lines)
    return _Reader(table, text, path, problems).read()


def _check_format(table: Mapping[str, Any], problems: Problems) -> None:
    version = table.get("format")
    if type(version) is not int or version < 1:
        found = "is missing" if version is None else f"is {shown(version)}"
        problems.add(("format",), "", f"key 'format' {found}; this core reads format = {FORMAT}")
    elif version > FORMAT:
        problems.add(
            ("format",),
            "",
            f"key 'format' is {version}, but this core reads format = {FORMAT}; upgrade reidcore",
        )
        problems.done()


def _name_posts(table: Mapping[str, Any]) -> None:
    for index, post in enumerate(table.get("post", []) if _tables(table.get("post")) else []):
        post.setdefault("name", f"post{index}")


def _replace_evaluation(table: dict[str, Any], path: Path, problems: Problems) -> None:
    """Puts the evaluation tables of the file at `path` in the place of the table's own.

    Rankings and postprocessors name each other, so either replaces both.
    """
    text = read_text(path)
    other = parse_toml(text, path)
    lines = Lines(text)
    faults = Problems(path, lines)
    _check_format(other, faults)
    for key, value in other.items():
        if key == "data" and not isinstance(value, dict):
            faults.add((key,), "[data]", f"expected table, got {shown(value)}")
            continue
        inner = list(value) if key == "data" else []
        if key not in ("format", "data", "ranking", "post", "eval"):
            faults.add((key,), "", f"unknown table or key {key!r} in an evaluation file{ONLY}")
        for name in inner:
            if name != "test":
                faults.add(
                    (key, name), "[data]", f"unknown key {name!r} in an evaluation file{ONLY}"
                )
    faults.done()
    _name_posts(other)
    if "test" in other.get("data", {}):
        table["data"]["test"] = other["data"]["test"]
        problems.lines.replace(("data", "test"), path, lines)
    group = ("ranking", "post") if "ranking" in other or "post" in other else ()
    for key in (*group, *(["eval"] if "eval" in other else [])):
        table[key] = other.get(key, [])
        problems.lines.replace((key,), path, lines)


ONLY = "; it has format, test in [data], [[ranking]], [[post]] and [eval], which replace the run's"


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


class _Reader:
    def __init__(self, table: dict[str, Any], text: str, path: Path, problems: Problems):
        self.table = table
        self.text = text
        self.path = path
        self.problems = problems
        self.unusable: set[str] = set()
        """Tables whose instances cannot be told apart; what refers into them is not checked."""

    def read(self) -> RunFile:
        table, problems = self.table, self.problems
        for key in table:
            if key not in TOP_KEYS:
                problems.add(
                    (key,),
                    "",
                    f"unknown table or key {key!r}{nearest(key, TOP_KEYS)}"
                    + ("" if nearest(key, TOP_KEYS) else f"; known are {', '.join(TOP_KEYS)}"),
                )
        name = table.get("name", self.path.stem)
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\-]*", name):
            problems.add(
                ("name",),
                "",
                f"key 'name' must be letters, digits, '.', '_' or '-', got {shown(name)}",
            )
        plugins = table.get("plugins", [])
        if not isinstance(plugins, list) or not all(isinstance(p, str) for p in plugins):
            problems.add(
                ("plugins",), "", f"key 'plugins' must be a list of names, got {shown(plugins)}"
            )
            plugins = []
        core: dict[str, Any] = {}
        if isinstance(table.get("optim"), dict) and isinstance(table["optim"].get("scale"), dict):
            # `head.neck = 0.1` without quotes is a table in a table to TOML.
            table["optim"]["scale"] = flatten(table["optim"]["scale"])
        for key, cls in CORE_TABLES.items():
            if _tables(table.get(key)):
                problems.add(
                    (key,),
                    "",
                    f"[[{key}]] must be written [{key}]: one table, got a list of "
                    f"{len(table[key])}",
                )
                core[key] = None
                self.unusable.add(key)
                continue
            if key not in table and key in ("optim", "eval"):
                core[key] = Eval() if key == "eval" else None
                continue
            if key not in table:
                problems.add((), "", f"table [{key}] is missing")
                core[key] = None
                continue
            core[key], faults = structure(cls, table[key])
            if not isinstance(table[key], dict):
                self.unusable.add(key)
            problems.faults((key,), f"[{key}]", faults)
        sources, augment, batch = self._data(core["data"], core["eval"])
        parts: list[Part] = []
        for where, kind in KINDS.items():
            if where in LISTS:
                parts += self._list(where, kind)
        if "backbone" in table:
            backbone = self._part("backbone", "backbone", table["backbone"], ("backbone",))
            parts[:0] = [backbone] if backbone else []
        else:
            problems.add((), "", "table [backbone] is missing")
        procedure: Part | None = Part("procedure", "procedure", "", "core.train", {}, ())
        if "procedure" in table:
            procedure = self._part("procedure", "procedure", table["procedure"], ("procedure",))
        rankings = self._rankings()
        optim, train = core["optim"], core["train"]
        if train is not None and train.epochs > 0:
            if optim is None and "optim" not in table:
                problems.add((), "", "table [optim] is missing, and [train] epochs is above 0")
            if core["data"] is not None:
                if core["data"].train == []:
                    problems.add(
                        ("data",), "[data]", "missing key 'train', and [train] epochs is above 0"
                    )
                if core["data"].batch is None:
                    problems.add(
                        ("data",), "[data]", "missing key 'batch', and [train] epochs is above 0"
                    )
        if optim is not None and optim.steps is not None and optim.cosine is not None:
            problems.add(("optim",), "[optim]", "'steps' and 'cosine' exclude each other; keep one")
        repeat = self._repeat()
        problems.done()
        assert procedure is not None
        return RunFile(
            path=self.path,
            text=self.text,
            table=table,
            lines=problems.lines,
            name=name,
            plugins=tuple(plugins),
            data=core["data"],
            sources=tuple(sources),
            augment=tuple(augment),
            batch=batch,
            parts=tuple(parts),
            procedure=procedure,
            rankings=tuple(rankings),
            train=core["train"],
            optim=optim,
            eval=core["eval"],
            repeat=repeat,
        )

    def _part(
        self, where: str, kind: str, table: Any, path: tuple[str | int, ...], index: int = -1
    ) -> Part | None:
        problems = self.problems
        place = f"[[{where}]] number {index + 1}" if index >= 0 else f"[{'.'.join(map(str, path))}]"
        if not isinstance(table, dict):
            problems.add(path, place, f"expected table, got {shown(table)}")
            return None
        use = table.get("use")
        name = table.get("name", "")
        named = f"{kind} {name!r}" if isinstance(name, str) and name else place
        if not isinstance(use, str):
            found = f"got {shown(use)}" if use is not None else "the component to use"
            text = (
                f"expected text, {found} at .use"
                if use is not None
                else f"missing key 'use', {found}"
            )
            problems.add((*path, "use"), named, text)
        if where in LISTS:
            if "name" not in table:
                self.unusable.add(where)
                problems.add(path, place, "missing key 'name'")
            elif not isinstance(name, str) or not INSTANCE.fullmatch(name):
                self.unusable.add(where)
                problems.add(
                    (*path, "name"),
                    place,
                    f"expected a name of a-z, 0-9 and _ that starts with a letter, got "
                    f"{shown(name)} at .name",
                )
            elif where == "loss" and name in MEANS:
                problems.add(
                    (*path, "name"),
                    place,
                    f"the name {name!r} is a column of means.csv; choose another at .name",
                )
            elif where == "head" and name == "backbone":
                problems.add(
                    (*path, "name"),
                    place,
                    "the name 'backbone' is the backbone's own; choose another at .name",
                )
        weight = table.get("weight", 1.0) if where == "loss" else 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
            problems.add(
                (*path, "weight"),
                named,
                f"expected a number of at least 0, got {shown(weight)} at .weight",
            )
            weight = 1.0
        if not isinstance(use, str):
            return None
        part = Part(where, kind, str(name), use, {}, path, float(weight))
        own = {key: value for key, value in table.items() if key not in part.core_keys}
        return attrs.evolve(part, table=own)

    def _list(self, where: str, kind: str) -> list[Part]:
        tables = self.table.get(where, [])
        if not isinstance(tables, list):
            self.unusable.add(where)
            self.problems.add(
                (where,),
                "",
                f"[{where}] must be written [[{where}]]: a list of tables, got {shown(tables)}",
            )
            return []
        parts = []
        for index, table in enumerate(tables):
            part = self._part(where, kind, table, (where, index), index)
            if part is not None:
                parts.append(part)
        seen: set[str] = set()
        for index, part in enumerate(parts):
            if part.name and part.name in seen:
                self.problems.add(
                    (*part.path, "name"),
                    f"[[{where}]] number {index + 1}",
                    f"the name {part.name!r} is taken by another [[{where}]]",
                )
            seen.add(part.name)
        return parts

    def _rankings(self) -> list[RankingTable]:
        tables = self.table.get("ranking", [])
        if not isinstance(tables, list):
            self.problems.add(
                ("ranking",),
                "",
                f"[ranking] must be written [[ranking]]: a list of tables, got {shown(tables)}",
            )
            return []
        rankings: list[RankingTable] = []
        for index, table in enumerate(tables):
            ranking, faults = structure(RankingTable, table)
            name = table.get("name") if isinstance(table, dict) else None
            place = (
                f"ranking {name!r}" if isinstance(name, str) else f"[[ranking]] number {index + 1}"
            )
            self.problems.faults(("ranking", index), place, faults)
            if ranking is None:
                continue
            if not INSTANCE.fullmatch(ranking.name):
                self.problems.add(
                    ("ranking", index, "name"),
                    place,
                    f"expected a name of a-z, 0-9 and _ that starts with a letter, got "
                    f"{shown(ranking.name)} at .name",
                )
            if bool(ranking.matcher) == bool(ranking.fuse):
                found = "both are set" if ranking.fuse else "neither is set"
                self.problems.add(
                    ("ranking", index), place, f"needs either matcher or fuse, but {found}"
                )
            if ranking.name in [other.name for other in rankings]:
                self.problems.add(
                    ("ranking", index, "name"),
                    f"[[ranking]] number {index + 1}",
                    f"the name {ranking.name!r} is taken by another [[ranking]]",
                )
            rankings.append(ranking)
        return rankings

    def _data(
        self, data: Data | None, evaluation: Eval | None
    ) -> tuple[list[Source], list[Part], Part | None]:
        protocol = None
        if evaluation is not None and evaluation.protocol is not None:
            protocol = stated_protocol(
                self.problems, evaluation.protocol, ("eval", "protocol"), "[eval]"
            )
        if data is None:
            return [], [], None
        sources: list[Source] = []
        role: Literal["train", "test"]
        for role, value in (("train", data.train), ("test", data.test)):
            entries = value if isinstance(value, list) else [value]
            for index, entry in enumerate(entries):
                path = ("data", role, index) if isinstance(value, list) else ("data", role)
                usual = protocol if role == "test" else None
                source = read_source(self.problems, role, entry, path, usual)
                if source is not None:
                    sources.append(source)
        names = [source.name for source in sources if source.role == "test"]
        for source in sources:
            if source.role == "test" and names.count(source.name) > 1:
                self.problems.add(
                    (*source.path, "name"),
                    f"[data] test {source.name!r}",
                    "two test sets have this name; give each its own 'name'",
                )
        augment = [
            part
            for index, table in enumerate(data.augment)
            if (part := self._part("augment", "augmentation", table, ("data", "augment", index)))
        ]
        batch = None
        if data.batch is not None:
            batch = self._part("batch", "sampler", data.batch, ("data", "batch"))
        return sources, augment, batch

    def _repeat(self) -> dict[str, tuple[Any, ...]]:
        table = self.table.get("repeat", {})
        if not isinstance(table, dict):
            self.problems.add(("repeat",), "", f"[repeat]: expected table, got {shown(table)}")
            return {}
        repeat: dict[str, tuple[Any, ...]] = {}
        for key, values in flatten(table).items():
            if not isinstance(values, list) or not values:
                self.problems.add(
                    ("repeat", key),
                    "[repeat]",
                    f"{key!r} must be a list with a value for each repeat, got {shown(values)}",
                )
                continue
            repeat[key] = tuple(values)
        lengths = {key: len(values) for key, values in repeat.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{key!r} has {length}" for key, length in lengths.items())
            self.problems.add(("repeat",), "[repeat]", f"lists must be equally long: {text}")
        for key in repeat:
            if key.partition(".")[0] in self.unusable:
                continue
            try:
                set_value(copy.deepcopy(self.table), key, repeat[key][0])
            except UsageError as error:
                self.problems.add(("repeat", key), "[repeat]", str(error))
        return repeat
