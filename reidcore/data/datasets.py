"""The loaded data sets of a run, as objects. Torch-free; `load_data` loads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import OPTIONAL, Facts, columns, modality_names
from reidcore.data.labels import is_junk, nobody_warnings, same_number_warnings
from reidcore.data.manifest import manifest_hash
from reidcore.data.numbering import Numbering
from reidcore.protocols.base import Protocol
from reidcore.runfiles.runfile import Source


@attrs.frozen
class Loaded:
    """The data set of an entry of data.train or data.test.

    rows: those of the splits that are used, None if the data are absent; `facts` are then what the
    reader declares, and `missing` the absolute path that was tried. protocol: of a test set.
    unfit: what a test set lacks for its protocol, "" if nothing. held: pictures of a training set
    that are held out; held_identities: the number of their identities, where the data are absent.
    """

    source: Source
    rows: tuple[Row, ...] | None
    facts: Facts | None
    note: str = ""
    missing: str = ""
    splits: tuple[str, ...] = ()
    protocol: Protocol | None = None
    unfit: str = ""
    held: tuple[Row, ...] = ()
    held_identities: int = 0

    @property
    def columns(self) -> frozenset[str]:
        """The optional manifest columns that every row fills."""
        if self.rows is not None:
            return columns(self.rows)
        assert self.facts is not None
        return frozenset(self.facts.columns)

    def gap(self, column: str) -> str:
        """Return, in words, which rows leave an optional column empty; "" if none does, or if the
        data are absent."""
        rows = self.rows or ()
        empty = [row for row in rows if getattr(row, column) in ("", None)]
        if not empty:
            return ""
        named = f"{self.source.role} {self.source.name!r}"
        if len(empty) == len(rows):
            return f"{named} has none"
        shown = ", ".join(row.listed or row.name for row in empty[:3])
        rest = f" and {len(empty) - 3:,} more" * (len(empty) > 3)
        has = "has" if len(empty) == 1 else "have"
        return f"{len(empty):,} of {len(rows):,} pictures of {named} {has} none: {shown}{rest}"

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of pictures by split."""
        if self.rows is not None:
            return Counter(row.split for row in self.rows)
        assert self.facts is not None
        counts = self.facts.counts
        return {split: counts[split] for split in self.splits if split in counts}

    @property
    def identities(self) -> int:
        """Number of identities."""
        if self.rows is not None:
            return len({row.pid for row in self.rows})
        assert self.facts is not None
        return self.facts.identities_in(self.splits) - self.held_identities

    @property
    def cameras(self) -> int:
        """Number of cameras."""
        if self.rows is not None:
            return len({row.camera for row in self.rows if row.camera})
        assert self.facts is not None
        return len(self.facts.cameras)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, "visible" if none is stated."""
        if self.rows is not None:
            return modality_names(self.rows)
        assert self.facts is not None
        return modality_names(Row("", "", modality=name) for name in self.facts.modalities)


@attrs.frozen
class DataPlan:
    """All data sets of a run.

    trained: for a run that was trained, what the run record says of its training data, which stands
    in their place. trials: those trained on, by the reader that divides its people in several ways.
    numbered: for a run that goes on, what its run record says of cameras and modalities.
    """

    train: tuple[Loaded, ...]
    test: tuple[Loaded, ...]
    trained: Mapping[str, Any] = attrs.field(factory=dict)
    trials: Mapping[str, Sequence[int]] = attrs.field(factory=dict)
    numbered: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        """The data sets for training, then the test sets."""
        return (*self.train, *self.test)

    @property
    def identities(self) -> int:
        """Number of training identities."""
        if self.trained:
            return int(self.trained["identities"])
        return sum(one.identities for one in self.train)

    @property
    def cameras(self) -> int:
        """Number of training cameras."""
        if self.trained:
            return int(self.trained["cameras"])
        return sum(one.cameras for one in self.train)

    @property
    def numbering(self) -> Numbering:
        """The numbers of all cameras and modalities; of a run that was trained, or goes on, those
        that it has had, and further ones for what is new in the test data."""
        known = Numbering.of_training(self.trained or self.numbered)
        rows = [row for one in self.loaded for row in (*(one.rows or ()), *one.held)]
        return known.extended(rows, _modalities(self.loaded))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the order of their numbers, over training and test pictures."""
        return self.numbering.modalities

    @property
    def train_modalities(self) -> tuple[str, ...]:
        """Names of the training pictures' modalities, in the same order."""
        return tuple(self.trained.get("train_modalities", ())) or _modalities(self.train)

    @property
    def camera_numbers(self) -> dict[str, int]:
        """Numbers by name; for evaluation those of training, and further ones for new cameras."""
        return self.numbering.cameras

    @property
    def train_columns(self) -> frozenset[str]:
        """The optional manifest columns that all training pictures fill."""
        if self.trained:
            return frozenset(self.trained["columns"])
        return _common(self.train)

    @property
    def test_columns(self) -> frozenset[str]:
        """The optional manifest columns that every test set fills."""
        return _common(self.test)

    @property
    def gaps(self) -> dict[tuple[str, str], str]:
        """Which rows lack an optional column that others fill, in words, by (role, column)."""
        found = {}
        for role, sets in (("train", self.train), ("test", self.test)):
            rows = [row for one in sets for row in one.rows or ()]
            for column in set(OPTIONAL) - _common(sets):
                if any(getattr(row, column) not in ("", None) for row in rows):
                    gaps = (one.gap(column) for one in sets)
                    found[role, column] = "; ".join(gap for gap in gaps if gap)
        return found

    @property
    def notes(self) -> list[str]:
        """Remarks on absent data, and on labels that are probably not what they seem."""
        notes = [one.note for one in self.loaded if one.note]
        for one in self.loaded:
            rows = one.rows or ()
            found = same_number_warnings(rows)
            if any(is_junk(row.pid) for row in rows):
                found += nobody_warnings(row for row in rows if is_junk(row.pid))
            notes += [f"[data] {one.source.role} {one.source.name!r}: {text}" for text in found]
        return notes

    @property
    def hashes(self) -> dict[str, str]:
        """Manifest hash by role and name of each data set; several of one name are counted."""
        hashes: dict[str, str] = {}
        for one in self.loaded:
            name = f"{one.source.role} {one.source.name}"
            same = sum(key == name or key.startswith(f"{name} (") for key in hashes)
            rows = (*(one.rows or ()), *one.held)
            hashes[f"{name} ({same + 1})" if same else name] = manifest_hash(rows)
        return hashes

    def training_rows(self) -> list[Row]:
        """Return the training rows; the identities of several data sets are kept apart."""
        return self._apart([one.rows or () for one in self.train])

    def held_out_rows(self) -> list[Row]:
        """Return the rows of the training sets that are held out, likewise."""
        return self._apart([one.held for one in self.train])

    def _apart(self, sets: Sequence[Sequence[Row]]) -> list[Row]:
        several = len(sets) > 1
        return [
            attrs.evolve(row, pid=f"{index}:{row.pid}") if several else row
            for index, rows in enumerate(sets)
            for row in rows
        ]


def _common(loaded: Sequence[Loaded]) -> frozenset[str]:
    """Return the columns that all of these data sets fill."""
    sets = [one.columns for one in loaded]
    return frozenset.intersection(*sets) if sets else frozenset()


def _modalities(loaded: Sequence[Loaded]) -> tuple[str, ...]:
    """Return the modalities that rows, or readers whose data are absent, state."""
    rows = [row for one in loaded for row in one.rows or ()]
    stated = {name for one in loaded if one.facts is not None for name in one.facts.modalities}
    return modality_names([*rows, *(Row("", "", modality=name) for name in stated)])
