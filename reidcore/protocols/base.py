"""What a protocol says of a test set. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import attrs

from reidcore.contracts.component import Row

SamePlace = Literal["drop", "drop_all", "keep"]
CMC = Literal["picture", "identity", "single_shot"]
SIDES = ("query", "gallery")
"""The splits that state both sides."""
POOL = ("test",)
"""The split that a protocol takes both sides from."""


@attrs.frozen
class Trial:
    """Queries and gallery of one trial: numbers of rows of the test set, ascending."""

    query: tuple[int, ...]
    gallery: tuple[int, ...]


@attrs.frozen
class Task:
    """What scores are given for under one name: their mean over the trials, and their deviation
    where there are several.

    name: behind the test set's and a slash in the scores, "" where a test set has one task.
    """

    name: str
    trials: tuple[Trial, ...]


@attrs.frozen
class Protocol:
    """Base of protocols, whose fields are their settings.

    A match has the query's identity. Pictures of the query's own place, and its own file, may be
    left out of its list, see `same_place`; a place is a camera unless a protocol says otherwise.

    name: in run files. columns: what the rows must state. cmc: what a rank in the CMC curve
    counts: pictures, identities by their nearest picture, or pictures where one is drawn of each
    identity. draw: name and version of the function that draws trials, "" where nothing is drawn.
    """

    name: ClassVar[str]
    columns: ClassVar[frozenset[str]] = frozenset()
    cmc: ClassVar[CMC] = "picture"

    @property
    def draw(self) -> str:
        return ""

    def splits(self, have: Collection[str]) -> tuple[str, ...]:
        """The splits that it takes of a test set that has these."""
        return POOL

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        """What is scored of these rows of the splits; they follow from rows and settings alone.

        Raises `ReidError` for rows that do not fit.
        """
        raise NotImplementedError

    def misfit(self, columns: Collection[str], modalities: Sequence[str]) -> str:
        """Why a test set with these manifest columns and modalities cannot be scored, "" if it
        can."""
        missing = sorted(self.columns - set(columns))
        if not missing:
            return ""
        has = ", ".join(sorted(columns)) or "none"
        names = "column" if len(missing) == 1 else "columns"
        return f"needs the manifest {names} {' and '.join(missing)}; this data set has {has}"

    def same_place(self, same_camera: SamePlace) -> SamePlace:
        """What happens to pictures of the query's place: matches are dropped, all are, or none is.

        same_camera: what [eval] says, for protocols that leave it open.
        """
        return "keep"

    @property
    def same_camera_key(self) -> str:
        """The key that decides it in a run file, "" where none does."""
        return ""

    def place(self, row: Row) -> str:
        """Name of the place a picture is from, "" if unknown; an unknown place is no other's."""
        return row.camera


def numbers(rows: Sequence[Row], split: str) -> tuple[int, ...]:
    """Numbers of the rows of a split; of all rows where none has it."""
    found = tuple(number for number, row in enumerate(rows) if row.split == split)
    return found or tuple(range(len(rows)))


def scored_name(test: str, task: Task) -> str:
    """The name that a task's scores stand under."""
    return f"{test}/{task.name}" if task.name else test
