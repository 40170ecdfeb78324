"""Base class of evaluation protocols, which choose a test set's queries and gallery. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import attrs

from reidcore.contracts.component import Row

SamePlace = Literal["drop", "drop_all", "keep"]
"""Gallery pictures of the query's own place: drop those of its identity, drop all, or keep all."""

CMC = Literal["picture", "identity", "single_shot"]
"""Unit that a rank of the CMC curve counts, see `Protocol`."""

SIDES = ("query", "gallery")
"""Splits of a test set that lists queries and gallery by themselves."""

POOL = ("test",)
"""Split from which a protocol takes both queries and gallery."""


@attrs.frozen
class Trial:
    """Queries and gallery of one trial.

    Attributes:
        query: Numbers of the test set's rows, ascending.
        gallery: Likewise.
    """

    query: tuple[int, ...]
    gallery: tuple[int, ...]


@attrs.frozen
class Task:
    """One or several trials whose scores are averaged and stand under one name.

    Attributes:
        name: Name that follows the test set's and a slash; "" where a test set has one task.
        trials: The trials.
    """

    name: str
    trials: tuple[Trial, ...]


@attrs.frozen
class Protocol:
    """Base class of protocols, whose fields are their settings.

    A match is a gallery picture of the query's identity. Pictures of the query's own place, and its
    own file, may be left out of its list, see `same_place`. A place is a camera unless a protocol
    says otherwise.

    Attributes:
        name: Name in run files.
        columns: Optional manifest columns that the rows must fill.
        cmc: Unit that a rank of the CMC curve counts: pictures; identities, each by its nearest
            picture; or pictures of galleries with one drawn of each identity.
    """

    name: ClassVar[str]
    columns: ClassVar[frozenset[str]] = frozenset()
    cmc: ClassVar[CMC] = "picture"

    @property
    def draw(self) -> str:
        """Name and version of the function that draws trials; "" where nothing is drawn."""
        return ""

    def splits(self, have: Collection[str]) -> tuple[str, ...]:
        """Return the splits that are used of a test set that has these."""
        return POOL

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        """Return the tasks to score; they follow from the rows and the settings alone.

        Args:
            rows: The rows of the protocol's splits.

        Raises:
            ReidError: The rows do not fit the protocol.
        """
        raise NotImplementedError

    def misfit(self, columns: Collection[str], modalities: Sequence[str]) -> str:
        """Return why a test set with these columns and modalities does not fit; "" if it does."""
        missing = sorted(self.columns - set(columns))
        if not missing:
            return ""
        has = ", ".join(sorted(columns)) or "none"
        names = "column" if len(missing) == 1 else "columns"
        return f"needs the manifest {names} {' and '.join(missing)}; this data set has {has}"

    def same_place(self, same_camera: SamePlace) -> SamePlace:
        """Return what happens to gallery pictures of the query's own place.

        Args:
            same_camera: Value of `same_camera` in [eval], for protocols that leave it open.
        """
        return "keep"

    @property
    def same_camera_key(self) -> str:
        """Key of the run file that decides `same_place`; "" where none does."""
        return ""

    def place(self, row: Row) -> str:
        """Return the place a picture is from; "" if unknown, which is no other picture's place."""
        return row.camera


def numbers(rows: Sequence[Row], split: str) -> tuple[int, ...]:
    """Return the numbers of the rows of a split; of all rows where none has it."""
    found = tuple(number for number, row in enumerate(rows) if row.split == split)
    return found or tuple(range(len(rows)))


def scored_name(test: str, task: Task) -> str:
    """Return the name under which a task's scores stand: the test set's and the task's."""
    return f"{test}/{task.name}" if task.name else test
