"""SYSU-MM01's protocol (Wu et al. 2017), with the draws of its own and of the papers' programs."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import natural_key
from reidcore.contracts.settings import refuse_value, setting
from reidcore.errors import DataError, UsageError
from reidcore.protocols.base import CMC, Protocol, SamePlace, Task, Trial
from reidcore.support.installing import how_to_install

QUERIES = ("3", "6")
"""Cameras of the queries, which are infrared."""

GALLERIES = {"all": ("1", "2", "4", "5"), "indoor": ("1", "2")}
"""Cameras of the gallery by the setting `search`."""

LOCATIONS = {"3": "2"}
"""Place of a camera that shares another's room: cameras 2 and 3 are in one."""

SHOTS = {"single": 1, "multi": 10}
"""Gallery pictures of each identity in each camera by the setting `shots`."""

PERMUTATIONS = "exp/rand_perm_cam.mat"
"""File of the official draws in the data set's folder."""

TRIALS = 10
"""Published trials; the file of permutations holds as many."""

Folder = tuple[str, str]
"""Identity and camera."""


def _not_empty(value: list[str]) -> str | None:
    return None if value else "expected at least one"


@attrs.frozen
class SYSUProtocol(Protocol):
    """SYSU-MM01: infrared queries, a drawn gallery of visible pictures; of the pool test.

    CMC counts identities, each by its nearest picture; queries of camera 3 leave out camera 2,
    which is in the same room.
    """

    name: ClassVar[str] = "sysu"
    columns: ClassVar[frozenset[str]] = frozenset({"camera", "modality"})
    cmc: ClassVar[CMC] = "identity"

    search: list[Literal["all", "indoor"]] = setting(
        "Gallery cameras: 1, 2, 4 and 5 (all), or 1 and 2 (indoor).",
        default=["all", "indoor"],
        check=_not_empty,
    )
    shots: list[Literal["single", "multi"]] = setting(
        "Gallery pictures of each identity in each camera: 1 (single) or 10 (multi).",
        default=["single"],
        check=_not_empty,
    )
    draws: Literal["seeded", "official"] = setting(
        "Which gallery pictures: as drawn by the programs of AGW, DDAG and most later papers, for "
        f"single shot only (seeded), or by the data set's {PERMUTATIONS} (official; needs "
        "reidcore[mat]).",
        default="seeded",
    )
    trials: int = setting(
        "Draws, whose scores are averaged.", default=TRIALS, at_least=1, at_most=TRIALS
    )

    @draws.validator
    def _defined(self, attribute: attrs.Attribute[str], value: str) -> None:
        if value == "seeded" and "multi" in self.shots:
            refuse_value(
                attribute,
                'expected "official" for shots = "multi", for which the papers\' programs draw '
                f"nothing, got {value!r}",
            )

    @property
    def draw(self) -> str:
        return f"sysu-{self.draws}-1"

    def same_place(self, same_camera: SamePlace) -> SamePlace:
        return "drop_all"

    def place(self, row: Row) -> str:
        return LOCATIONS.get(row.camera, row.camera)

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        known = {*QUERIES, *GALLERIES["all"]}
        other = sorted({row.camera for row in rows} - known, key=natural_key)
        if other:
            raise UsageError(
                f"protocol sysu knows the cameras 1 to 6, and this data set has {', '.join(other)};"
                " for another data set of two modalities set protocol to cross_modality"
            )
        queries = tuple(number for number, row in enumerate(rows) if row.camera in QUERIES)
        folders: dict[Folder, list[int]] = {}
        for number, row in enumerate(rows):
            if row.camera not in QUERIES:
                folders.setdefault((row.pid, row.camera), []).append(number)
        for pictures in folders.values():
            pictures.sort(key=lambda number: os.path.basename(rows[number].path))
        # Where identities are numbers, this is also the order of their names of four digits.
        order = sorted(folders, key=lambda folder: (natural_key(folder[0]), folder[1]))
        found: list[Task] = []
        for search in dict.fromkeys(self.search):
            chosen = {key: folders[key] for key in order if key[1] in GALLERIES[search]}
            if not queries or not chosen:
                lacking = "infrared query" if not queries else f"gallery, search = {search!r}"
                raise DataError(f"protocol sysu: this data set has no {lacking} picture")
            for shots in dict.fromkeys(self.shots):
                galleries = self._galleries(rows, chosen, SHOTS[shots])
                trials = (Trial(queries, tuple(sorted(gallery))) for gallery in galleries)
                found.append(Task(f"{search}-{shots}", tuple(trials)))
        return found

    def _galleries(
        self, rows: Sequence[Row], folders: dict[Folder, list[int]], shots: int
    ) -> list[list[int]]:
        if self.draws == "seeded":
            return [seeded(folders, trial) for trial in range(self.trials)]
        one = next(iter(folders.values()))[0]
        # Of ROOT/cam1/0001/0001.jpg.
        root = os.path.dirname(os.path.dirname(os.path.dirname(rows[one].path)))
        return official(Path(root, PERMUTATIONS), folders, self.trials, shots)


def seeded(folders: dict[Folder, list[int]], trial: int) -> list[int]:
    """Return one picture of every identity in every camera, as the papers' programs draw them.

    They call Python's `random.choice` for one folder after another behind `random.seed(trial)`.
    """
    draw = random.Random(trial)
    return [pictures[_below(draw, len(pictures))] for pictures in folders.values()]


def _below(draw: random.Random, count: int) -> int:
    """Return a random number below `count`, as `random.choice` does in Python 3.2 to 3.14.

    It is written out because no Python promises it.
    """
    bits = count.bit_length()
    while (number := draw.getrandbits(bits)) >= count:
        pass
    return number


def official(
    path: Path, folders: dict[Folder, list[int]], trials: int, shots: int
) -> list[list[int]]:
    """Return the gallery of each trial by the data set's own permutations.

    The gallery has the first pictures of every identity in every camera.

    Args:
        path: The file of permutations: a row for each trial, of numbers from 1 that count a
            folder's pictures by name.
        folders: Row numbers of the pictures by identity and camera, in the order of file names.
        trials: Number of trials.
        shots: Pictures of each identity in each camera.

    Raises:
        UsageError: scipy is not installed.
        DataError: The file is missing, or does not fit the pictures.
    """
    cells = _cells(path)
    galleries: list[list[int]] = [[] for _ in range(trials)]
    for (pid, camera), pictures in folders.items():
        place = f"{path}: camera {camera}, identity {pid}"
        permutations = _cell(_cell(cells, camera), pid)
        if permutations is None:
            raise DataError(f"{place}: the file has no permutation for it")
        shape: tuple[int, ...] = getattr(permutations, "shape", ())
        if len(shape) != 2 or shape[0] < trials or shape[1] != len(pictures):
            raise DataError(
                f"{place}: expected {trials} permutations of {len(pictures)} pictures, found "
                f"{' x '.join(map(str, shape))} numbers; both must be of one archive"
            )
        for trial, gallery in enumerate(galleries):
            row = [int(number) - 1 for number in permutations[trial]]
            if sorted(row) != list(range(len(pictures))):
                raise DataError(f"{place}: row {trial + 1} is no permutation")
            gallery += [pictures[number] for number in row[:shots]]
    return galleries


def _cell(cells: Any, number: str) -> Any:
    """Return the cell at a number, which counts from 1; None if there is nothing."""
    if not number.isdecimal() or not hasattr(cells, "ravel"):
        return None
    flat = cells.ravel()
    return flat[int(number) - 1] if 1 <= int(number) <= len(flat) else None


def _cells(path: Path) -> Any:
    """Return the permutations by camera and identity, as the file holds them."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UsageError(
            f'protocol sysu: draws = "official" reads {path.name} by scipy, which is not '
            f"installed. To install it: {how_to_install('reidcore[mat]')}"
        ) from None
    if not path.is_file():
        raise DataError(f'protocol sysu: draws = "official" needs {path}, which is not there')
    try:
        return loadmat(path)["rand_perm_cam"]
    except KeyError:
        raise DataError(f"{path} has no variable rand_perm_cam") from None
    except Exception as error:  # scipy raises many kinds, for a damaged file and for version 7.3
        raise DataError(f"{path} cannot be read: {error}") from None
