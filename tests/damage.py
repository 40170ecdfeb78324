"""Good run files and the damage that is done to them: one mistake a file, and what must be said.

A file is a list of tables with one key a line, so the line of every key is known.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from reidcore.plugins.loading import Plugins
from reidcore.runfiles import tables
from reidcore.runfiles.keys import COMPONENT_TABLES

FILES = Path(__file__).with_name("run_files")


@attrs.define
class Table:
    """`[[head]]` and its lines; the header of the keys above all tables is ""."""

    header: str
    keys: dict[str, str]

    @property
    def name(self) -> str:
        return self.header.strip("[]")


@attrs.define
class Document:
    """A run file that can be damaged: tables in their order, values as TOML text."""

    tables: list[Table]

    @classmethod
    def parse(cls, text: str) -> Document:
        tables = [Table("", {})]
        for line in text.splitlines():
            if line.startswith("["):
                tables.append(Table(line, {}))
            elif line and not line.startswith("#"):
                key, _, value = line.partition(" = ")
                tables[-1].keys[key] = value
        return cls(tables)

    def lines(self) -> list[tuple[str, int, str]]:
        """(line, index of its table, its key or "") from top to bottom."""
        lines = [("# A comment, so that lines and keys are not numbered alike.", -1, "")]
        for index, table in enumerate(self.tables):
            lines += [("", -1, ""), (table.header, index, "")] if table.header else []
            lines += [(f"{key} = {value}", index, key) for key, value in table.keys.items()]
        return lines

    def text(self) -> str:
        return "\n".join(line for line, _, _ in self.lines()) + "\n"

    def line(self, index: int, key: str = "") -> int:
        """The line of a key, or of the table's header."""
        found = [n for n, (_, i, k) in enumerate(self.lines(), 1) if i == index and k == key]
        return found[0] if found else 0

    def find(self, header: str, name: str = "") -> int:
        """The index of the first table with this header and, if given, this `name`."""
        for index, table in enumerate(self.tables):
            if table.header == header and (not name or table.keys.get("name") == f'"{name}"'):
                return index
        raise LookupError(f"no {header} {name}")

    def copy(self) -> Document:
        return copy.deepcopy(self)


@attrs.frozen
class Case:
    """A damaged file: its kind, the name that must be said, and the line (0: none) it stands in.

    says: what else the message must contain. single: whether it is the only problem.
    """

    kind: str
    what: str
    text: str
    name: str
    line: int
    says: str = ""
    single: bool = True
    sets: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.what}"


@attrs.define
class Damager:
    """Makes cases from one good file."""

    label: str
    good: Document
    cases: list[Case] = attrs.field(factory=list)

    def case(
        self, kind: str, what: str, bad: Document, index: int, key: str, name: str, **more: Any
    ) -> None:
        line = bad.line(index, key) if index >= 0 else 0
        self.cases.append(Case(kind, f"{self.label}-{what}", bad.text(), name, line, **more))

    def value(
        self,
        kind: str,
        header: str,
        key: str,
        value: str,
        name: str = "",
        *,
        of: str = "",
        **more: Any,
    ) -> None:
        """One key gets another value, or is added."""
        bad = self.good.copy()
        index = bad.find(header, of)
        bad.tables[index].keys[key] = value
        what = f"{header}{of}.{key}={value}"
        self.case(kind, what, bad, index, key, name or key.split(".")[-1], **more)


def field_type(annotation: Any) -> Any:
    """The annotation without `| None` and without the name's role."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [one for one in arguments if one is not types.NoneType]
        if len(members) == 1:
            return field_type(members[0])
    return getattr(annotation, "__supertype__", annotation)


def wrong_types(annotation: Any) -> list[str]:
    """TOML values that do not have the declared type."""
    kind = field_type(annotation)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType):
        return ["3", "[]"] if str in typing.get_args(kind) else ["3", '"x"']
    if isinstance(origin, type) and attrs.has(origin):
        return ["3", "[]"]
    return {
        bool: ["1", '"true"'],
        int: ["5.5", "true"],
        float: ['"0.1"', "[0.5]"],
        str: ["3", '["x"]'],
        list: ["3", '"x"'],
        tuple: ["3", '"x"'],
        dict: ["3", '"x"'],
    }.get(origin, [])


def beyond(field: attrs.Attribute[Any]) -> Iterator[str]:
    """TOML values just outside the declared range."""
    kind = field_type(field.type)
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    number = inner[-1] if inner else kind
    for bound, limit in field.metadata["bounds"].items():
        step = {"at_least": -1, "above": 0, "at_most": 1, "below": 0}[bound]
        value = repr(number(limit + step))
        if origin is tuple:
            value = f"[{value}, {value}]"
        yield {list: f"[{value}]", dict: f"{{ backbone = {value} }}"}.get(origin, value)


def misspelt(key: str) -> str:
    """A typo that is near its key: the last letter twice, or the last two swapped."""
    if len(key) < 5 or key[-1] == key[-2]:
        return key + key[-1]
    return key[:-2] + key[-1] + key[-2]


def classes(document: Document, plugins: Plugins) -> Iterator[tuple[int, type, tuple[str, ...]]]:
    """(index of a table, attrs class of its keys, the core's keys in it)."""
    nested = {"steps": tables.Steps, "cosine": tables.Cosine, "warmup": tables.Warmup}
    for index, table in enumerate(document.tables):
        name = table.name
        if name in tables.CORE_TABLES:
            yield index, tables.CORE_TABLES[name], ()
        elif name == "ranking":
            yield index, tables.RankingTable, ()
        elif name.startswith("optim."):
            yield index, nested[name.split(".")[1]], ()
        elif "use" in table.keys or "read" in table.keys:
            full = (table.keys.get("use") or table.keys["read"]).strip('"')
            kinds = {"data.batch": "sampler", "data.augment": "augmentation"}
            kind = "reader" if "read" in table.keys else kinds.get(name) or COMPONENT_TABLES[name]
            core = tuple(
                sorted({"use", "name", "weight", "read", "root", "splits"} & table.keys.keys())
            )
            yield index, plugins.component(kind, full).component.config, core


def by_schema(damager: Damager, plugins: Plugins) -> None:
    """Wrong types, ranges, choices, missing and misspelt keys, from the classes themselves."""
    good = damager.good
    for index, cls, core in classes(good, plugins):
        table = good.tables[index]
        of = table.keys.get("name", "").strip('"')
        place = table.header + of
        hints = typing.get_type_hints(cls)

        def put(kind: str, key: str, value: str, index: int = index, place: str = place) -> None:
            bad = good.copy()
            bad.tables[index].keys[key] = value
            damager.case(kind, f"{place}.{key}={value}", bad, index, key, key)

        fields = {field.name: field for field in attrs.fields(cls)}
        for key, field in fields.items():
            inside = any(other.name == f"{table.name}.{key}" for other in good.tables)
            annotation = hints[key]
            for value in [] if inside else wrong_types(annotation):
                put("wrong type", key, value)
            if field_type(annotation) == tuple[int, int] or key == "betas":
                put("wrong length", key, "[16]")
            for value in beyond(field.evolve(type=annotation)):
                put("out of range", key, value)
            if typing.get_origin(field_type(annotation)) is Literal:
                put("unknown choice", key, '"nonsense"' if key != "depth" else "17")
        for key in table.keys:
            if key in ("use", "name") or (table.name == "ranking" and key == "matcher"):
                continue
            bad = good.copy()
            keys = bad.tables[index].keys
            bad.tables[index].keys = {misspelt(k) if k == key else k: v for k, v in keys.items()}
            damager.case(
                "misspelt key",
                f"{place}.{misspelt(key)}",
                bad,
                index,
                misspelt(key),
                misspelt(key),
                says=f"did you mean '{key}'?",
                single=False,
            )
        required = [key for key, field in fields.items() if field.default is attrs.NOTHING]
        for key in [*required, *core]:
            if key in ("root", "splits", "weight", "read") or f"[{table.name}.{key}]" in (
                other.header for other in good.tables
            ):
                continue
            if key == "name" and table.name in ("post", "data.test"):
                continue
            bad = good.copy()
            del bad.tables[index].keys[key]
            damager.case("missing key", f"{place}.{key}", bad, index, "", key)
        bad = good.copy()
        bad.tables[index].keys["zzz"] = "1"
        damager.case("unknown key", f"{place}.zzz", bad, index, "zzz", "zzz")


def by_tables(damager: Damager) -> None:
    """Tables that are missing, misspelt, or a list where one is expected and the reverse."""
    good = damager.good
    for index, table in enumerate(good.tables):
        if "." in table.name or not table.name:
            continue
        name = table.name
        single = len([t for t in good.tables if t.name.split(".")[0] == name]) == 1
        if name in ("data", "backbone", "train", "optim"):
            bad = good.copy()
            bad.tables = [t for t in bad.tables if t.name.split(".")[0] != name]
            damager.case("missing table", name, bad, -1, "", f"[{name}]")
        if single:
            bad = good.copy()
            bad.tables[index].header = table.header.replace(name, misspelt(name))
            damager.case(
                "misspelt table",
                misspelt(name),
                bad,
                index,
                "",
                misspelt(name),
                says=f"did you mean '{name}'?",
                single=False,
            )
            bad = good.copy()
            listed = table.header.startswith("[[")
            bad.tables[index].header = f"[{name}]" if listed else f"[[{name}]]"
            kind = "one table for a list" if listed else "a list for one table"
            if name not in ("repeat", "procedure", "backbone"):
                damager.case(kind, name, bad, index, "", name, single=True)
    for name in ("scheduler", "zzz", "model", "losses.id", "tool"):
        bad = good.copy()
        bad.tables.append(Table(f"[{name}]", {"x": "1"}))
        head = name.split(".")[0]
        single = head != "losses"
        kind = "unknown table" if single else "misspelt table"
        damager.case(kind, name, bad, len(bad.tables) - 1, "", head, single=single)
