"""SYSU-MM01's own permutations, from a MATLAB file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import write

from reidcore.api import Row, how_to_install
from reidcore.errors import DataError, UsageError
from reidcore.runfiles.data_entries import read_protocol

savemat = pytest.importorskip("scipy.io").savemat

PEOPLE = {"0002": {1: 12, 2: 13, 3: 4, 5: 14}, "0005": {1: 11, 4: 12, 6: 3}}
"""Pictures of each identity in each camera."""


def permutations(dice: np.random.Generator) -> np.ndarray:
    """As in the data set: a cell of each camera, in it one of each identity up to the largest,
    ten permutations of its pictures, which count from 1; of unseen people an empty one."""
    cells = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        inner = np.empty((5, 1), dtype=object)
        for number in range(5):
            count = PEOPLE.get(f"{number + 1:04d}", {}).get(camera, 0)
            inner[number, 0] = np.array([dice.permutation(count) + 1 for _ in range(10)])
        cells[camera - 1, 0] = inner
    return cells


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folders = {
        f"cam{camera}/{pid}": [f"{2 * number + 1:04d}.jpg" for number in range(count)]
        for pid, cameras in PEOPLE.items()
        for camera, count in cameras.items()
    }
    root = write(tmp_path / "SYSU-MM01", folders)
    (root / "exp").mkdir()
    return root


def rows_of(root: Path) -> list[Row]:
    return [
        Row(
            f"{root}/cam{camera}/{pid}/{2 * number + 1:04d}.jpg",
            pid,
            str(camera),
            "test",
            modality="infrared" if camera in (3, 6) else "visible",
        )
        for pid, cameras in PEOPLE.items()
        for camera, count in cameras.items()
        for number in range(count)
    ]


def official(**settings):
    protocol, faults = read_protocol({"use": "sysu", "draws": "official", **settings})
    assert not faults
    return protocol


@pytest.mark.parametrize("shots", [["single"], ["multi"], ["single", "multi"]])
def test_galleries_are_the_first_of_each_permutation(root, shots):
    """In trial t a camera's gallery pictures of somebody are the first, or the first ten, numbers
    of row t, which count the pictures by name."""
    cells = permutations(np.random.default_rng(3))
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    rows = rows_of(root)
    tasks = official(shots=shots).tasks(rows)
    assert [task.name for task in tasks] == [
        f"{search}-{shot}" for search in ("all", "indoor") for shot in shots
    ]
    for task in tasks:
        search, shot = task.name.split("-")
        for trial, drawn in enumerate(task.trials):
            expected = set()
            for pid, cameras in PEOPLE.items():
                for camera in {"all": (1, 2, 4, 5), "indoor": (1, 2)}[search]:
                    if camera in cameras:
                        row = cells[camera - 1, 0][int(pid) - 1, 0][trial]
                        for number in row[: {"single": 1, "multi": 10}[shot]]:
                            name = f"{2 * (number - 1) + 1:04d}.jpg"
                            expected.add(f"{root}/cam{camera}/{pid}/{name}")
            assert {rows[n].path for n in drawn.gallery} == expected
            assert all(rows[n].camera in "36" for n in drawn.query)
        assert len(task.trials) == 10


def test_the_order_of_rows_does_not_matter(root):
    """Pictures are numbered by their names."""
    cells = permutations(np.random.default_rng(3))
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    one, other = rows_of(root), rows_of(root)[::-1]
    (first, _), (second, _) = official().tasks(one), official().tasks(other)
    for a, b in zip(first.trials, second.trials, strict=True):
        assert {one[n].path for n in a.gallery} == {other[n].path for n in b.gallery}


def test_fewer_trials_are_the_first_rows(root):
    """Three trials are the first three of ten."""
    cells = permutations(np.random.default_rng(3))
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    few, whole = official(trials=3).tasks(rows_of(root)), official().tasks(rows_of(root))
    assert [task.trials for task in few] == [task.trials[:3] for task in whole]


def put(root: Path, change) -> None:
    cells = permutations(np.random.default_rng(3))
    change(cells)
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})


def swap(cells, value) -> None:
    cells[0, 0][1, 0] = value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda cells: swap(cells, cells[0, 0][1, 0][:, :-1]),
            "camera 1, identity 0002: expected 10 permutations of 12 pictures, found 10 x 11 "
            "numbers",
        ),
        (lambda cells: swap(cells, cells[0, 0][1, 0][:4]), "found 4 x 12 numbers"),
        (
            lambda cells: swap(cells, np.ones((10, 12))),
            "camera 1, identity 0002: row 1 is no permutation",
        ),
        (
            lambda cells: cells.__setitem__((0, 0), cells[0, 0][:1]),
            "camera 1, identity 0002: the file has no permutation for it",
        ),
        (
            lambda cells: cells.__setitem__((0, 0), np.zeros(0)),
            "camera 1, identity 0002: the file has no permutation for it",
        ),
    ],
)
def test_another_archives_permutations_are_told(root, change, says):
    """Permutations that do not fit the pictures are refused by file, camera and identity."""
    put(root, change)
    with pytest.raises(DataError) as caught:
        official().tasks(rows_of(root))
    assert f"{root}/exp/rand_perm_cam.mat: " in str(caught.value) and says in str(caught.value)


def test_a_missing_or_damaged_file_is_told(root):
    """Without the file, with another in its place, and with another variable."""
    file = root / "exp" / "rand_perm_cam.mat"
    with pytest.raises(DataError, match=f'draws = "official" needs {file}, which is not there'):
        official().tasks(rows_of(root))
    file.write_bytes(b"no MATLAB file, but some text that is longer than its header" * 9)
    with pytest.raises(DataError, match=f"{file} cannot be read: "):
        official().tasks(rows_of(root))
    savemat(file, {"something": np.zeros(3)})
    with pytest.raises(DataError, match=f"{file} has no variable rand_perm_cam"):
        official().tasks(rows_of(root))


def test_identities_that_are_no_numbers_are_told(root):
    """A manifest may call people otherwise; the file knows them by number."""
    put(root, lambda cells: None)
    rows = [Row(row.path, f"p{row.pid}", row.camera, "test") for row in rows_of(root)]
    with pytest.raises(DataError, match="identity p0002: the file has no permutation for it"):
        official().tasks(rows)


def test_without_scipy_the_extra_is_named(root, monkeypatch):
    """scipy is asked for by this draw alone."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UsageError, match=re.escape(how_to_install("reidcore[mat]"))):
        official().tasks(rows_of(root))
    assert read_protocol("sysu")[0].tasks(rows_of(root))
