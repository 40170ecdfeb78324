"""Reads the entries of data.train and data.test of a run file. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.row_labels import SPLITS
from reidcore.errors import nearest
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.protocols.base import Protocol
from reidcore.runfiles.keys import SOURCE_KEYS, KeyPath
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, Role, Source
from reidcore.runfiles.strict import Fault, structure
from reidcore.runfiles.tables import Data, Eval
from reidcore.runfiles.value_words import shown


def read_entries(data: Data | None, evaluation: Eval | None, problems: Problems) -> list[Source]:
    """Return the entries of data.train and data.test.

    Test sets that state no protocol have the one of [eval].
    """
    usual = None
    if evaluation is not None and evaluation.protocol is not None:
        usual = stated_protocol(problems, evaluation.protocol, ("eval", "protocol"), "[eval]")
    if data is None:
        return []
    entries: list[Source] = []
    role: Role
    for role, value in (("train", data.train), ("test", data.test)):
        tables = value if isinstance(value, list) else [value]
        for index, table in enumerate(tables):
            path = ("data", role, index) if isinstance(value, list) else ("data", role)
            entry = read_entry(problems, role, table, path)
            if entry is not None and role == "test" and entry.protocol is None:
                entry = attrs.evolve(entry, protocol=usual)
            entries += [entry] if entry is not None else []
    names = [entry.name for entry in entries if entry.role == "test"]
    for entry in entries:
        if entry.role == "test" and names.count(entry.name) > 1:
            problems.add(
                (*entry.path, "name"),
                f"[data] test {entry.name!r}",
                "two test sets have this name; give each its own 'name'",
            )
    return entries


def read_entry(
    problems: Problems, role: Role, entry: Mapping[str, Any], path: KeyPath
) -> Source | None:
    """Return the entry that stands at the path; None, after noting the problem, if it is none."""
    place = f"[data] {role}"
    table = dict(entry)
    texts: dict[str, str] = {}
    for key in ("manifest", "read", "root", "name"):
        value = table.pop(key, "")
        if not isinstance(value, str):
            problems.add((*path, key), place, f"expected text, got {shown(value)} at .{key}")
            return None
        if not value.isprintable():
            text = f"expected text on one line, got {shown(value)} at .{key}"
            problems.add((*path, key), place, text)
            return None
        texts[key] = value
    splits = table.pop("splits", [])
    if not isinstance(splits, list) or not all(one in SPLITS for one in splits):
        text = f"expected a list of {', '.join(SPLITS)}, got {shown(splits)} at .splits"
        problems.add((*path, "splits"), place, text)
        return None
    protocol = None
    if "protocol" in table:
        stated = table.pop("protocol")
        if role == "train":
            text = "'protocol' is for test sets; training pictures have none"
            problems.add((*path, "protocol"), place, text)
        else:
            protocol = stated_protocol(problems, stated, (*path, "protocol"), place)
    if not _says_what_to_read(problems, entry, path, place):
        return None
    source = Source(role, path, splits=tuple(splits), protocol=protocol)
    if texts["read"]:
        return attrs.evolve(
            source,
            reader=Part(role, "reader", texts["name"], texts["read"], table, path),
            root=texts["root"],
            name=texts["name"] or texts["read"].rpartition(".")[2],
        )
    if texts["root"]:
        table["root"] = texts["root"]
    known = ("manifest", *SOURCE_KEYS[role])
    for key in table:
        near = nearest(key, [one for one in known if one not in entry])
        hint = near or f"; the keys here are {', '.join(known)}"
        problems.add((*path, key), place, f"unknown key {key!r} beside 'manifest'{hint}")
    name = texts["name"] or _manifest_name(Path(texts["manifest"]))
    return attrs.evolve(source, manifest=texts["manifest"], name=name)


def _says_what_to_read(
    problems: Problems, entry: Mapping[str, Any], path: KeyPath, place: str
) -> bool:
    """Return whether an entry has either a manifest or a reader; note the problem if not."""
    manifest, read = entry.get("manifest"), entry.get("read")
    if bool(manifest) != bool(read):
        return True
    if not manifest:
        for key in entry:
            if near := nearest(key, ("manifest", "read")):
                problems.add((*path, key), place, f"unknown key {key!r}{near}")
                return False
    found = "; it has both" if manifest else f", got {shown(entry)}"
    text = f"needs either 'manifest', a CSV file, or 'read', a reader such as core.demo{found}"
    problems.add(path, place, text)
    return False


def _manifest_name(file: Path) -> str:
    """Return the name of a data set without one; pictures/manifest.csv is called by its folder."""
    return (file.parent.name if file.stem == "manifest" else file.stem) or file.stem


def stated_protocol(problems: Problems, value: Any, path: KeyPath, place: str) -> Protocol | None:
    """Return the protocol that stands at the path; None, after noting problems, if it is none."""
    protocol, faults = read_protocol(value)
    problems.add_faults(path, f"{place}: protocol", faults)
    return protocol


def read_protocol(value: Any) -> tuple[Protocol | None, list[Fault]]:
    """Return (protocol, []) or (None, faults) for the protocol that a run file states.

    value: its name, or a table with `use` and its settings.
    """
    table = dict(value) if isinstance(value, Mapping) else {"use": value}
    use = table.pop("use", None)
    known = ", ".join(PROTOCOLS)
    if use is None:
        return None, [Fault((), f"missing key 'use', the protocol: {known}")]
    if not isinstance(use, str):
        expected = "text" if isinstance(value, Mapping) else "text or table"
        path = ("use",) if isinstance(value, Mapping) else ()
        return None, [Fault(path, f"expected {expected}, got {shown(use)}")]
    if use not in PROTOCOLS:
        hint = nearest(use, PROTOCOLS) or f"; there are {known}"
        return None, [Fault((), f"there is no protocol {use!r}{hint}")]
    return structure(PROTOCOLS[use], table, ("use",))
