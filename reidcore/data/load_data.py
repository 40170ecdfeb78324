"""Reads the data sets of a run, or takes what is known of absent ones. Torch-free."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import OPTIONAL, Facts
from reidcore.data.ask_reader import ask_reader
from reidcore.data.datasets import DataPlan, Loaded
from reidcore.data.manifest import find_data, lookup_rule, read_manifest
from reidcore.errors import DataError, PluginError, nearest
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.protocols.base import POOL, Protocol
from reidcore.runfiles.runfile import Source

UNKNOWN = Facts(
    identities=1000,
    cameras=("1", "2"),
    modalities=("visible", "infrared"),
    columns=frozenset(OPTIONAL),
    counts={"train": 10000, "query": 100, "gallery": 1000},
)
"""Assumed of absent data where the reader knows nothing of them, so that all else is checked: large
and complete, so that nothing is refused for what they may well have."""


def load_sources(
    entries: Sequence[tuple[Source, Any]], *, make: bool, allow_missing: bool
) -> DataPlan:
    """Return the data sets of all entries, with their rows; no picture is opened.

    entries: pairs of an entry and its reader's config, None for manifests. make: readers that draw
    their data on first use may do so. allow_missing: take the reader's facts where data are
    absent; otherwise that is a `DataError` (exit code 4) naming the absolute paths tried.
    """
    loader = _Loader()
    _require_manifests(source for source, reader in entries if reader is None)
    plan = loader.load_all(entries, make=False, allow_missing=True)
    if not allow_missing:
        require_data(plan)  # before anything is drawn, which takes a while
        plan = loader.load_all(entries, make=make, allow_missing=False)
    return plan


def require_data(plan: DataPlan) -> None:
    """Raise `DataError` (exit code 4) if data are absent that no reader makes."""
    _refuse_absent("data", [(one.source, one.missing) for one in plan.loaded if one.missing])


def _require_manifests(sources: Iterable[Source]) -> None:
    """Raise `DataError` (exit code 4) if manifests are absent, with all of them."""
    tried = [(source, find_data(source.manifest)) for source in sources]
    _refuse_absent("manifest", [(source, path) for source, path in tried if _is_absent(path)])


def _is_absent(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:
        return False  # reading it says why


def _refuse_absent(what: str, absent: Sequence[tuple[Source, Path | str]]) -> None:
    """Raise `DataError` with the entries whose data are not at these paths, and where relative ones
    are looked up."""
    if not absent:
        return
    lines = [f"{_place(source)}: {what} not found at {path}" for source, path in absent]
    named = [os.path.expanduser(source.manifest or source.root) for source, _ in absent]
    if not all(os.path.isabs(one) for one in named):
        lines.append(lookup_rule())
    raise DataError("\n".join(lines))


class _Loader:
    """Loads data sets; what several entries read is read once."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Row, ...]] = {}

    def load_all(
        self, entries: Sequence[tuple[Source, Any]], make: bool, allow_missing: bool
    ) -> DataPlan:
        found = [self._load(source, reader, make, allow_missing) for source, reader in entries]
        return DataPlan(
            tuple(one for one in found if one.source.role == "train"),
            tuple(one for one in found if one.source.role == "test"),
        )

    def _load(self, source: Source, reader: Any, make: bool, allow_missing: bool) -> Loaded:
        if reader is None:
            path = find_data(source.manifest)
            rows = self._read(str(path), lambda: read_manifest(path))
            return _chosen(source, _protocol(source, None), rows, str(path))
        default = None if source.root else getattr(reader, "default_root", None)
        if default is None and not source.root:
            raise DataError(f"{_place(source)}: missing key 'root', the folder of the data set")
        root = find_data(source.root) if default is None else Path(default())
        protocol = _protocol(source, reader)
        if _exists(source, root) or (make and default is not None):
            rows = self._read(f"{reader!r} {root}", lambda: _ask(source, reader, "rows", root))
            return _chosen(source, protocol, rows, str(root))
        absent = _assumed(source, protocol, _ask(source, reader, "facts"))
        if default is not None:
            note = f"{_place(source)}: will be made at {root} on first use"
            return attrs.evolve(absent, note=note, missing="" if allow_missing else str(root))
        where = f"{_place(source)}: data not found at {root.absolute()}"
        if not allow_missing:
            raise DataError(where)
        has = ", ".join(sorted(absent.columns)) or "none"
        note = f"{where}; assumed {absent.identities} identities, columns {has}"
        return attrs.evolve(absent, note=note, missing=str(root.absolute()))

    def _read(self, key: str, read: Callable[[], Sequence[Row]]) -> tuple[Row, ...]:
        if key not in self._rows:
            self._rows[key] = tuple(read())
        return self._rows[key]


def _exists(source: Source, root: Path) -> bool:
    """Return whether there is something at a path, which may be one that the system refuses."""
    try:
        return root.exists()
    except OSError as error:
        raise DataError(
            f"{_place(source)}: root {root} cannot be read: {error.strerror or error}"
        ) from None


def _place(source: Source) -> str:
    """Return an entry as messages name it, such as "[data] test 'market1501'"."""
    return f"[data] {source.role} {source.name!r}"


def _protocol(source: Source, reader: Any) -> Protocol | None:
    """Return the protocol of a test set: the run file's, else the reader's, else cross_camera."""
    if source.role == "train" or source.protocol is not None:
        return source.protocol
    if reader is None:
        return PROTOCOLS["cross_camera"]()
    name = (_ask(source, reader, "facts") or UNKNOWN).protocol
    if name not in PROTOCOLS:
        use = source.reader.use if source.reader else ""
        hint = nearest(str(name), PROTOCOLS) or f"; there are {', '.join(PROTOCOLS)}"
        raise PluginError(f"facts() of {use} states the protocol {name!r}{hint}")
    return PROTOCOLS[name]()


def _ask(source: Source, reader: Any, method: str, *given: Path) -> Any:
    use = source.reader.use if source.reader else ""
    return ask_reader(_place(source), use, reader, method, *given)


def _splits(source: Source, protocol: Protocol | None, have: Collection[str]) -> tuple[str, ...]:
    """Return the splits that are used of a data set that has those of `have`."""
    return source.splits or (("train",) if protocol is None else protocol.splits(have))


def _assumed(source: Source, protocol: Protocol | None, facts: Facts | None) -> Loaded:
    """Return an absent data set, as its reader's facts describe it; without any it fits."""
    known = facts or UNKNOWN
    splits = _splits(source, protocol, known.counts)
    loaded = Loaded(source, None, known, splits=splits, protocol=protocol)
    return attrs.evolve(loaded, unfit=_unfit(loaded, known.counts)) if facts else loaded


def _chosen(source: Source, protocol: Protocol | None, rows: tuple[Row, ...], where: str) -> Loaded:
    """Return a data set with the rows of the splits that are used.

    where: what was read, for messages. Raises `DataError` if a split has no picture.
    """
    place = _place(source)
    counts = Counter(row.split for row in rows)
    have = ", ".join(f"{split} {count}" for split, count in counts.items()) or "no pictures"
    splits = _splits(source, protocol, counts)
    chosen = tuple(row for row in rows if row.split in splits)
    loaded = Loaded(source, chosen, None, splits=splits, protocol=protocol)
    if protocol is None:
        if not chosen:
            raise DataError(
                f"{place}: no picture of {where} is in split {' or '.join(splits)}; it has {have}"
            )
        return loaded
    needed = protocol.splits(splits)
    lacking = [split for split in needed if not loaded.counts[split]]
    if needed == POOL and chosen:
        lacking = []  # a pool may be of any splits
    if not lacking:
        return attrs.evolve(loaded, unfit=_unfit(loaded, counts))
    whole = attrs.evolve(loaded, rows=rows)
    fitting = _fitting(whole.columns, whole.modalities, counts)
    if not fitting:
        raise DataError(f"{place}: {where} has no {lacking[0]} pictures; it has {have}")
    unfit = f"needs pictures in {' and '.join(needed)}; {where} has {have}"
    return attrs.evolve(loaded, unfit=f"{unfit}. Protocols that fit: {', '.join(fitting)}")


def _unfit(loaded: Loaded, counts: Mapping[str, int]) -> str:
    """Return what a test set lacks for its protocol, and the protocols that fit; "" if nothing."""
    if loaded.protocol is None:
        return ""
    text = loaded.protocol.misfit(loaded.columns, loaded.modalities)
    for column in sorted(loaded.protocol.columns - loaded.columns):
        # Filled in part: the column is there for all to see.
        if any(getattr(row, column) not in ("", None) for row in loaded.rows or ()):
            text += f"; {loaded.gap(column)}"
    fitting = _fitting(loaded.columns, loaded.modalities, counts) if text else []
    return f"{text}. Protocols that fit: {', '.join(fitting)}" if fitting else text


def _fitting(
    columns: Collection[str], modalities: Sequence[str], counts: Mapping[str, int]
) -> list[str]:
    """Return the protocols that score such a data set with their usual settings."""
    have = {split for split, count in counts.items() if count}
    known = ((name, protocol()) for name, protocol in PROTOCOLS.items())
    return [
        name
        for name, protocol in known
        if have.issuperset(protocol.splits(have)) and not protocol.misfit(columns, modalities)
    ]
