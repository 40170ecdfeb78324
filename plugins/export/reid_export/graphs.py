"""Graphs that were written, opened again to be asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from reid_export.pictures import Pictures, network_inputs
from reid_runtime import Embedder, Matcher, rank
from reidcore.tools import Search

Arrays = dict[str, np.ndarray]


class Graphs(Protocol):
    """The graphs of an export."""

    def templates(self, pictures: Pictures, batch: int) -> Arrays:
        """Return the templates of pictures, computed in batches of this size."""

    def distances(self, a: Arrays, b: Arrays) -> np.ndarray:
        """Return the ranking's distances [Q, G]."""

    def nearest(self, a: Arrays, b: Arrays, top: int) -> np.ndarray:
        """Return the places of each query's nearest gallery pictures [Q, top]."""


class OnnxGraphs:
    """ONNX files, asked through reid-runtime."""

    def __init__(self, folder: Path):
        self._embedder, self._matcher = Embedder(folder), Matcher(folder)

    def templates(self, pictures: Pictures, batch: int) -> Arrays:
        self._embedder.batch = batch
        labels = {
            kind: pictures.labels(kind, said["numbers"])
            for kind, said in self._embedder.manifest["inputs"].items()
            if kind != "pictures"
        }
        return self._embedder.templates(pictures.opened(), **labels)

    def distances(self, a: Arrays, b: Arrays) -> np.ndarray:
        return self._matcher(a, b)

    def nearest(self, a: Arrays, b: Arrays, top: int) -> np.ndarray:
        return rank(a, b, self._matcher, top)[0]


class TorchGraphs:
    """Programs of `torch.export`, loaded from their files."""

    def __init__(self, folder: Path, search: Search, manifest: Mapping[str, Any]):
        self._search, self._inputs = search, manifest["inputs"]
        self._top = manifest["graphs"].get("shortlist", {}).get("top")
        self._programs = {
            name: torch.export.load(folder / said["file"]).module()
            for name, said in manifest["graphs"].items()
        }

    def templates(self, pictures: Pictures, batch: int) -> Arrays:
        numbers = {kind: self._inputs[kind]["numbers"] for kind in ("modality", "camera")}
        found: list[dict[str, Any]] = []
        for start in range(0, len(pictures), batch):
            some = Pictures(pictures.rows[start : start + batch], "")
            given = network_inputs(some, self._search, numbers)
            with torch.no_grad():
                found.append(self._programs["extractor"](*map(torch.from_numpy, given.values())))
        return {name: torch.cat([one[name] for one in found]).numpy() for name in found[0]}

    def distances(self, a: Arrays, b: Arrays, graph: str = "matcher") -> np.ndarray:
        sides = ({key: torch.from_numpy(x) for key, x in side.items()} for side in (a, b))
        with torch.no_grad():
            found: np.ndarray = self._programs[graph](*sides).numpy()
        return found

    def nearest(self, a: Arrays, b: Arrays, top: int) -> np.ndarray:
        if "shortlist" not in self._programs:
            return self.distances(a, b).argsort(1, kind="stable")[:, :top]
        listed = self.distances(a, b, "shortlist").argsort(1, kind="stable")[:, : self._top]
        found = np.take_along_axis(self.distances(a, b), listed, 1)
        return np.take_along_axis(listed, found.argsort(1, kind="stable")[:, :top], 1)
