"""The entries of data.train and data.test of a run file. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from reidcore.contracts.rows import SPLITS
from reidcore.errors import nearest
from reidcore.protocols.base import Protocol
from reidcore.protocols.by_name import PROTOCOLS
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, Source
from reidcore.runfiles.strict import Fault, shown, structure
from reidcore.runfiles.tables import SOURCE_KEYS

Path_ = tuple[str | int, ...]
"""Keys and list indices that lead to a place in a run file."""


def read_source(
    problems: Problems,
    role: Literal["train", "test"],
    entry: Mapping[str, Any],
    path: Path_,
    protocol: Protocol | None = None,
) -> Source | None:
    """One entry; None, with the problems told, if it is none. protocol: what [eval] says."""
    place = f"[data] {role}"
    table = dict(entry)
    texts: dict[str, str] = {}
    for key in ("manifest", "read", "root", "name"):
        value = table.pop(key, "")
        if not isinstance(value, str):
            problems.add((*path, key), place, f"expected text, got {shown(value)} at .{key}")
            return None
        texts[key] = value
    splits = table.pop("splits", [])
    if not isinstance(splits, list) or not all(s in SPLITS for s in splits):
        problems.add(
            (*path, "splits"),
            place,
            f"expected a list of {', '.join(SPLITS)}, got {shown(splits)} at .splits",
        )
        return None
    if "protocol" in table:
        stated = table.pop("protocol")
        if role == "train":
            text = "'protocol' is for test sets; training pictures have none"
            problems.add((*path, "protocol"), place, text)
        else:
            protocol = stated_protocol(problems, stated, (*path, "protocol"), place)
    if not texts["manifest"] and not texts["read"]:
        for key in entry:
            if near := nearest(key, ("manifest", "read")):
                problems.add((*path, key), place, f"unknown key {key!r}{near}")
                return None
    if bool(texts["manifest"]) == bool(texts["read"]):
        problems.add(
            path,
            place,
            "needs either 'manifest', a CSV file, or 'read', a reader such as "
            "core.demo" + ("; it has both" if texts["manifest"] else f", got {shown(entry)}"),
        )
        return None
    if texts["manifest"]:
        if texts["root"]:
            table["root"] = texts["root"]
        known = ("manifest", *SOURCE_KEYS[role])
        for key in table:
            near = nearest(key, [one for one in known if one not in entry])
            keys = f"; the keys here are {', '.join(known)}"
            text = f"unknown key {key!r} beside 'manifest'{near or keys}"
            problems.add((*path, key), place, text)
        manifest = Path(texts["manifest"])
        # pictures/manifest.csv is called by its folder.
        own = manifest.parent.name if manifest.stem == "manifest" else manifest.stem
        name = texts["name"] or own or manifest.stem
        return Source(
            role,
            path,
            manifest=texts["manifest"],
            splits=tuple(splits),
            name=name,
            protocol=protocol,
        )
    reader = Part(role, "reader", texts["name"], texts["read"], table, path)
    name = texts["name"] or texts["read"].rpartition(".")[2]
    return Source(
        role,
        path,
        reader=reader,
        root=texts["root"],
        splits=tuple(splits),
        name=name,
        protocol=protocol,
    )


def stated_protocol(problems: Problems, value: Any, path: Path_, place: str) -> Protocol | None:
    """The protocol that stands at `path`; None, with the problems told, if it is none."""
    protocol, faults = read_protocol(value)
    problems.faults(path, f"{place}: protocol", faults)
    return protocol


def read_protocol(value: Any) -> tuple[Protocol | None, list[Fault]]:
    """(protocol, []) or (None, faults) for what a run file says: a name, or a table with `use` and
    the protocol's settings."""
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
