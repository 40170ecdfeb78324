"""Oracle vectors: expected outputs of published implementations, kept outside the repository.

The folder is named by REID_ORACLES, by default ../shared/oracles from the project's root. A test
uses one file at a time:

    with oracle("ddag/triplet") as vectors:
        x = vectors.input("c0_x")
        vectors.compare("c0_hard_loss", loss(x), rtol=1e-10)
        vectors.later("*_wrt_*", "weighted triplet: its own issue")

Leaving the block fails if an array was neither compared, nor used as an input, nor put off.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """Where the oracle vectors are expected."""
    return Path(os.environ.get("REID_ORACLES") or ROOT.parent / "shared" / "oracles").resolve()


class Vectors:
    """One oracle file: its arrays, its side-car, and an account of what a test did with each."""

    def __init__(self, path: Path):
        self.name = path.stem
        with np.load(path.with_suffix(".npz")) as arrays:
            self.arrays: dict[str, np.ndarray] = {name: arrays[name] for name in arrays.files}
        self.sidecar: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        self.inputs: set[str] = set()
        self.compared: set[str] = set()
        self.deferred: dict[str, str] = {}

    def input(self, name: str) -> torch.Tensor:
        """The array as a tensor, noted as an input."""
        self.inputs.add(name)
        return torch.from_numpy(np.array(self.arrays[name]))

    def inputs_only(self, *names: str) -> None:
        """Notes inputs of something that is not computed here."""
        for name in names:
            self.input(name)

    def names(self, pattern: str) -> list[str]:
        """Arrays whose name matches the shell pattern."""
        return [name for name in self.arrays if fnmatchcase(name, pattern)]

    def number(self, array: str, pattern: str) -> float:
        """A setting that the side-car states in words, such as r"margin ([\\d.]+)"."""
        words = self.sidecar["arrays"][array]
        meaning = words["meaning"] if "meaning" in words else words["description"]
        found = re.search(pattern, meaning)
        assert found, f"{self.name}: no {pattern!r} in what the side-car says of {array}: {meaning}"
        return float(found.group(1))

    def stated(self, pattern: str) -> list[float]:
        """Settings that the side-car states in words beside its arrays, one for each group of the
        first match."""
        about = {key: value for key, value in self.sidecar.items() if key != "arrays"}
        text = json.dumps(about, ensure_ascii=False)
        found = re.search(pattern, text)
        assert found, f"{self.name}: no {pattern!r} in what the side-car says"
        return [float(group) for group in found.groups()]

    def compare(
        self,
        name: str,
        actual: Any,
        rtol: float = 0.0,
        atol: float = 0.0,
        through: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> None:
        """Fails unless `actual` has the array's shape and its values within the tolerance.

        `through` maps both before the comparison, where only what it leaves is unique.
        """
        expected = self.arrays[name]
        if isinstance(actual, torch.Tensor):
            actual = actual.detach().cpu().numpy()
        actual = np.asarray(actual)
        assert actual.shape == expected.shape, f"{name}: {actual.shape} for {expected.shape}"
        np.testing.assert_allclose(
            through(actual), through(expected), rtol=rtol, atol=atol, err_msg=name
        )
        self.compared.add(name)

    def later(self, pattern: str, reason: str) -> None:
        """Puts off the arrays that match the shell pattern to a later issue."""
        names = self.names(pattern)
        assert names, f"{self.name}: no array matches {pattern!r}"
        self.deferred.update(dict.fromkeys(names, reason))

    def settle(self) -> None:
        """Fails unless every array is accounted for exactly once."""
        left = self.arrays.keys() - self.inputs - self.compared - self.deferred.keys()
        assert not left, f"{self.name}: neither compared nor an input nor put off: {sorted(left)}"
        twice = self.deferred.keys() & (self.inputs | self.compared)
        assert not twice, f"{self.name}: put off, but used: {sorted(twice)}"


@contextmanager
def oracle(name: str) -> Iterator[Vectors]:
    """The file `method/name` of the oracle folder; skips where there is no such folder."""
    if not folder().is_dir():
        pytest.skip(f"no oracle vectors at {folder()}; set REID_ORACLES")
    vectors = Vectors(folder() / name)
    yield vectors
    vectors.settle()
