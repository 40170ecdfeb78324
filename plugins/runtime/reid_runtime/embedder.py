"""Pictures to templates and vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from reid_runtime.folder import Export, ExportError
from reid_runtime.pictures import Picture, pixels

Templates = dict[str, np.ndarray]
"""Templates of N pictures, arrays [N, ...] by name."""


class Embedder:
    """The network of the export in a folder; `manifest` is its export.json.

    threads: those that compute, and that decode and resize; 0 for all cores. batch: pictures of one
    call of the graph. Raises ExportError for a folder that is no export, was changed or is too new.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int = 0, batch: int = 32):
        export = Export(folder)
        self.manifest, self.batch = export.manifest, batch
        self.names = tuple(self.manifest["templates"])
        self._session = export.session("extractor", threads)
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "reid-pictures")

    def __call__(self, pictures: Sequence[Picture], **said: Any) -> np.ndarray:
        """Return float32 vectors [N, D] of unit length of pictures, given as to `templates`.

        Raises ExportError where a template is more than a vector, as a pairwise matcher's.
        """
        shapes = {name: one["shape"] for name, one in self.manifest["templates"].items()}
        if len(shapes) != 1 or len(next(iter(shapes.values()))) != 2:
            raise ExportError(
                f"the ranking {self.manifest['ranking']!r} compares {shapes}, more than one vector "
                "of each picture; use templates(pictures) and a Matcher"
            )
        (vectors,) = self.templates(pictures, **said).values()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)

    def templates(
        self,
        pictures: Sequence[Picture],
        modality: str | Sequence[str] | None = None,
        camera: str | Sequence[str] | None = None,
    ) -> Templates:
        """Return what a `Matcher` compares, arrays [N, ...] by name.

        pictures: paths, pictures of Pillow's or uint8 arrays [H, W, 3] of red, green and blue, of
        any sizes; turn OpenCV's blue, green and red by `frame[..., ::-1]`. modality, camera: names,
        of all or of each, where the export asks for them; a new camera counts as unknown.
        """
        path = isinstance(pictures, str | os.PathLike)
        array = isinstance(pictures, np.ndarray) and pictures.ndim == 3
        if path or array or isinstance(pictures, Image.Image):
            what = f"the path {pictures}" if path else "a single picture"
            raise ExportError(f"found {what}, expected a list of pictures, as [picture]")
        labels = {
            name: self._numbers(name, value, len(pictures))
            for name, value in (("modality", modality), ("camera", camera))
            if name in self._inputs
        }
        found: list[list[np.ndarray]] = []
        ahead = self._read(pictures[: self.batch])
        for start in range(0, len(pictures), self.batch):
            stop = start + self.batch
            ready, ahead = list(ahead), self._read(pictures[stop : stop + self.batch])
            given = {name: numbers[start:stop] for name, numbers in labels.items()}
            found.append(self._session.run(self.names, {"pictures": np.stack(ready), **given}))
        if not found:
            return {
                name: np.empty((0, *one["shape"][1:]), one["dtype"])
                for name, one in self.manifest["templates"].items()
            }
        arrays = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return dict(zip(self.names, arrays, strict=True))

    def _read(self, pictures: Sequence[Picture]) -> Any:
        image = self.manifest["preprocessing"]
        size = tuple(image["size"])
        return self._pool.map(lambda one: pixels(one, size, image["interpolation"]), pictures)

    def _numbers(self, kind: str, names: str | Sequence[str] | None, count: int) -> np.ndarray:
        known: Mapping[str, int] = self.manifest["inputs"][kind]["numbers"]
        each = [names] * count if names is None or isinstance(names, str) else list(names)
        unknown = [one for one in each if one not in known]
        if kind == "modality" and unknown:
            raise ExportError(f"modality is {unknown[0]!r}; this export knows {', '.join(known)}")
        if len(each) != count:
            raise ExportError(f"{kind} names {len(each)} for {count} pictures")
        return np.array([known.get(str(one), -1) for one in each], dtype=np.int64)
