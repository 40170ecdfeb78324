"""The data sets of a run: found or assumed, and what wiring needs to know of them. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.component import Facts, Row
from reidcore.contracts.rows import columns, modality_names
from reidcore.data.manifest import find_data, manifest_hash, read_manifest
from reidcore.data.numbering import Numbering
from reidcore.errors import DataError, PluginError, ReidError, nearest
from reidcore.protocols.base import POOL, Protocol
from reidcore.protocols.by_name import PROTOCOLS
from reidcore.runfiles.runfile import Source
from reidcore.support.wording import in_words


@attrs.frozen
class Loaded:
    """One entry of data.train or data.test: its rows, or what its reader declares.

    missing: the absolute path that was tried, if the data are absent. splits: those that are used.
    protocol: of a test set. unfit: what a test set lacks for its protocol, "" if nothing.
    """

    source: Source
    rows: tuple[Row, ...] | None
    facts: Facts | None
    note: str = ""
    missing: str = ""
    splits: tuple[str, ...] = ()
    protocol: Protocol | None = None
    unfit: str = ""

    @property
    def columns(self) -> frozenset[str]:
        if self.rows is not None:
            return columns(self.rows)
        assert self.facts is not None
        return frozenset(self.facts.columns)

    @property
    def counts(self) -> Mapping[str, int]:
        if self.rows is not None:
            return Counter(row.split for row in self.rows)
        assert self.facts is not None
        counts = self.facts.counts
        return {split: counts[split] for split in self.splits if split in counts}

    @property
    def identities(self) -> int:
        if self.rows is not None:
            return len({row.pid for row in self.rows})
        assert self.facts is not None
        return self.facts.identities_in(self.splits)

    @property
    def modalities(self) -> tuple[str, ...]:
        if self.rows is not None:
            return modality_names(self.rows)
        assert self.facts is not None
        return modality_names(Row("", "", modality=name) for name in self.facts.modalities)


@attrs.frozen
class DataPlan:
    """All data sets of a run.

    trained: for evaluation, the lock file's record of the training data, which are not read.
    trials: those trained on, by the reader that divides its people in several ways.
    """

    train: tuple[Loaded, ...]
    test: tuple[Loaded, ...]
    trained: Mapping[str, Any] = attrs.field(factory=dict)
    trials: Mapping[str, Sequence[int]] = attrs.field(factory=dict)

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        return (*self.train, *self.test)

    @property
    def identities(self) -> int:
        return sum(one.identities for one in self.train)

    @property
    def cameras(self) -> int:
        total = 0
        for one in self.train:
            if one.rows is not None:
                total += len({row.camera for row in one.rows if row.camera})
            elif one.facts is not None:
                total += len(one.facts.cameras)
        return total

    @property
    def numbering(self) -> Numbering:
        """The numbers of all cameras and modalities; for evaluation those of training, and further
        ones for what is new in the test data."""
        known = Numbering.of_training(self.trained)
        rows = [row for one in self.loaded for row in one.rows or ()]
        return known.extended(rows, _modalities(self.loaded))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the order of their numbers, over training and test pictures."""
        return self.numbering.modalities

    @property
    def train_modalities(self) -> tuple[str, ...]:
        """Those of the training pictures, in the same order."""
        return tuple(self.trained.get("train_modalities", ())) or _modalities(self.train)

    @property
    def camera_numbers(self) -> dict[str, int]:
        """Numbers by name; for evaluation those of training, and further ones for new cameras."""
        return self.numbering.cameras

    @property
    def train_columns(self) -> frozenset[str]:
        return _common(self.train)

    @property
    def test_columns(self) -> frozenset[str]:
        return _common(self.test)

    @property
    def notes(self) -> list[str]:
        return [one.note for one in self.loaded if one.note]

    @property
    def hashes(self) -> dict[str, str]:
        """Manifest hash by role and name of each data set; several of one name are counted."""
        hashes: dict[str, str] = {}
        for one in self.loaded:
            name = f"{one.source.role} {one.source.name}"
            same = sum(key == name or key.startswith(f"{name} (") for key in hashes)
            hashes[f"{name} ({same + 1})" if same else name] = manifest_hash(one.rows or ())
        return hashes

    def training_rows(self) -> list[Row]:
        """The training rows of all entries; several entries' identities are kept apart."""
        rows: list[Row] = []
        for index, one in enumerate(self.train):
            assert one.rows is not None
            several = len(self.train) > 1
            rows += [
                attrs.evolve(row, pid=f"{index}:{row.pid}") if several else row for row in one.rows
            ]
        return rows


def _common(loaded: Sequence[Loaded]) -> frozenset[str]:
    sets = [one.columns for one in loaded]
    return frozenset.intersection(*sets) if sets else frozenset()


def _modalities(loaded: Sequence[Loaded]) -> tuple[str, ...]:
    """Those that rows, or readers whose data are absent, state."""
    rows = [row for one in loaded for row in one.rows or ()]
    stated = {name for one in loaded if one.facts is not None for name in one.facts.modalities}
    return modality_names([*rows, *(Row("", "", modality=name) for name in stated)])


def load_sources(
    entries: Sequence[tuple[Source, Any]], *, make: bool, allow_missing: bool
) -> DataPlan:
    """Reads every entry's rows; no picture is opened.

    entries: pairs of (source, reader config or None). make: readers that draw their data on first
    use may do so. allow_missing: take the reader's facts where the data are absent; otherwise
    absent data are a DataError (exit code 4) naming the absolute path tried.
    """
    cache: dict[str, tuple[Row, ...]] = {}
    plan = _load_all(entries, False, True, cache)
    if not allow_missing:
        require_data(plan)  # before anything is drawn, which takes a while
        plan = _load_all(entries, make, False, cache)
    return plan


def require_data(plan: DataPlan) -> None:
    """DataError (exit code 4) if data are absent that the core cannot make."""
    absent = [
        f"[data] {one.source.role} {one.source.name!r}: data not found at {one.missing}"
        for one in plan.loaded
        if one.missing
    ]
    if absent:
        raise DataError("\n".join(absent))


def _load_all(
    entries: Sequence[tuple[Source, Any]],
    make: bool,
    allow_missing: bool,
    cache: dict[str, tuple[Row, ...]],
) -> DataPlan:
    loaded = {"train": [], "test": []}  # type: dict[str, list[Loaded]]
    for source, reader in entries:
        loaded[source.role].append(_load(source, reader, make, allow_missing, cache))
    return DataPlan(tuple(loaded["train"]), tuple(loaded["test"]))


def _load(
    source: Source, reader: Any, make: bool, allow_missing: bool, cache: dict[str, tuple[Row, ...]]
) -> Loaded:
    place = f"[data] {source.role} {source.name!r}"
    if reader is None:
        path = find_data(source.manifest)
        rows = cache.setdefault(str(path), ()) or tuple(read_manifest(path))
        cache[str(path)] = rows
        return _chosen(source, _protocol(source, None), rows, place, f"{path}")
    default = getattr(reader, "default_root", None)
    if source.root:
        root = find_data(source.root)
    elif default is not None:
        root = Path(default())
    else:
        raise DataError(f"{place}: missing key 'root', the folder of the data set")
    protocol = _protocol(source, reader)
    if not root.exists() and not (make and default is not None and not source.root):
        facts: Facts = _ask(source, "facts", reader.facts)
        assumed = _assumed(source, protocol, facts)
        if default is not None and not source.root:
            note = f"{place}: will be made at {root} on first use"
            return attrs.evolve(assumed, note=note, missing="" if allow_missing else str(root))
        if not allow_missing:
            raise DataError(f"{place}: data not found at {root.absolute()}")
        has = ", ".join(sorted(facts.columns)) or "none"
        note = (
            f"{place}: data not found at {root.absolute()}; assumed {assumed.identities} "
            f"identities, columns {has}"
        )
        return attrs.evolve(assumed, note=note, missing=str(root.absolute()))
    key = f"{reader!r} {root}"
    if key not in cache:
        cache[key] = tuple(_ask(source, "rows", lambda: list(reader.rows(root))))
    return _chosen(source, protocol, cache[key], place, str(root))


def _protocol(source: Source, reader: Any) -> Protocol | None:
    """The protocol of a test set: what the run file says, else the reader, else cross_camera."""
    if source.role == "train" or source.protocol is not None:
        return source.protocol
    if reader is None:
        return PROTOCOLS["cross_camera"]()
    name = _ask(source, "facts", reader.facts).protocol
    if name not in PROTOCOLS:
        use = source.reader.use if source.reader else ""
        hint = nearest(str(name), PROTOCOLS) or f"; there are {', '.join(PROTOCOLS)}"
        raise PluginError(f"facts() of {use} states the protocol {name!r}{hint}")
    return PROTOCOLS[name]()


def _ask(source: Source, method: str, call: Callable[[], Any]) -> Any:
    """A reader's answer, with what is wrong with the data and with the reader told apart."""
    place = f"[data] {source.role} {source.name!r}"
    try:
        return call()
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except ReidError:
        raise
    except OSError as error:
        raise DataError(f"{place}: {error}") from error
    except Exception as error:
        use = source.reader.use if source.reader else ""
        raise PluginError(f"{place}: {method}() of {use} failed: {in_words(error)}") from error


def _splits(source: Source, protocol: Protocol | None, have: Collection[str]) -> tuple[str, ...]:
    """The splits that are used of a data set that has these."""
    return source.splits or (("train",) if protocol is None else protocol.splits(have))


def _assumed(source: Source, protocol: Protocol | None, facts: Facts) -> Loaded:
    """What is known of absent data."""
    splits = _splits(source, protocol, facts.counts)
    loaded = Loaded(source, None, facts, splits=splits, protocol=protocol)
    return attrs.evolve(loaded, unfit=_unfit(loaded, facts.counts))


def _chosen(
    source: Source, protocol: Protocol | None, rows: tuple[Row, ...], place: str, where: str
) -> Loaded:
    """Only the wanted splits, with clear errors where a split has no picture."""
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
    """What a test set lacks for its protocol, with protocols that it lacks nothing for."""
    if loaded.protocol is None:
        return ""
    text = loaded.protocol.misfit(loaded.columns, loaded.modalities)
    fitting = _fitting(loaded.columns, loaded.modalities, counts) if text else []
    return f"{text}. Protocols that fit: {', '.join(fitting)}" if fitting else text


def _fitting(
    columns: Collection[str], modalities: Sequence[str], counts: Mapping[str, int]
) -> list[str]:
    """The protocols that score such a data set with their usual settings."""
    have = {split for split, count in counts.items() if count}
    known = ((name, protocol()) for name, protocol in PROTOCOLS.items())
    return [
        name
        for name, protocol in known
        if have.issuperset(protocol.splits(have)) and not protocol.misfit(columns, modalities)
    ]
