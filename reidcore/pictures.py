"""Reading pictures into batches: decode, resize, augment, in threads, with a cache in memory.

Threads rather than processes: Pillow and torch release the interpreter's lock while they work, the
cache is shared, and a damaged picture raises where it is awaited instead of hanging a worker. What
the threads pass on is uint8; it becomes float where the batch is used, on the run's device.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reidcore.api import Row
from reidcore.errors import DataError
from reidcore.modules import Batch, Images, Meta, Rows
from reidcore.processes import ALONE, Processes
from reidcore.seeds import generator
from reidcore.sharing import Share, SharedImages, divided
from reidcore.tables import Data, Normalize

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


def decode(path: str, listed: str, size: tuple[int, int], interpolation: str) -> Tensor:
    """A picture as uint8 [3, H, W] RGB, resized. Raises DataError naming the file and its row."""
    height, width = size
    try:
        # Read at once: each small read would hand the interpreter's lock to another thread.
        with open(path, "rb", buffering=0) as raw:
            content = io.BytesIO(raw.read())
        with Image.open(content) as file:
            picture = file if file.mode == "RGB" else file.convert("RGB")
            picture = picture.resize((width, height), RESAMPLING[interpolation])
    except FileNotFoundError:
        raise DataError(f"picture {path} ({listed or 'not listed'}) is missing") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"picture {path} ({listed or 'not listed'}) cannot be read: {error}"
        ) from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"picture {path} ({listed or 'not listed'}) is too large: {error}"
        ) from None
    # A row's reds, greens and blues one after another, so that planes are copied row by row.
    lines = np.frombuffer(picture.tobytes("raw", "RGB;L"), np.uint8).reshape(height, 3, width)
    return torch.from_numpy(np.ascontiguousarray(lines.swapaxes(0, 1)))


def normalized(pixels: Tensor, by: str | Normalize) -> Tensor:
    """uint8 [B, 3, H, W] to float32: in [0, 1] by "none", else less a mean and divided by a
    deviation, by "imagenet" ImageNet's."""
    scaled = pixels.float().div_(255)
    if by == "none":
        return scaled
    known = by if isinstance(by, Normalize) else IMAGENET
    # Numbers instead of tensors: a tensor sent to a GPU would wait for its queue.
    for channel, mean, deviation in zip(scaled.unbind(1), known.mean, known.deviation, strict=True):
        channel.sub_(mean).div_(deviation)
    return scaled


def make_rows(rows: Sequence[Row], cameras: Mapping[str, int], modalities: Sequence[str]) -> Rows:
    """Manifest rows as arrays; identities are numbered in natural order of their names."""
    from reidcore.manifest import label_names

    names = label_names(rows)
    label = {name: number for number, name in enumerate(names)}
    kind = {name: number for number, name in enumerate(modalities)}
    return Rows(
        paths=[row.path for row in rows],
        pid=np.array([label[row.pid] for row in rows], dtype=np.int64),
        camera=np.array([cameras.get(row.camera, -1) for row in rows], dtype=np.int64),
        time=np.array([np.nan if row.time is None else row.time for row in rows], dtype=np.float64),
        modality=np.array([kind.get(row.modality, 0) for row in rows], dtype=np.int64),
        names=names,
        listed=[row.listed for row in rows],
    )


def meta_of(rows: Rows, index: Any = slice(None)) -> Meta:
    """What ranking may know of the rows."""
    return Meta(
        torch.from_numpy(rows.camera[index]),
        torch.from_numpy(rows.time[index]),
        torch.from_numpy(rows.modality[index]),
    )


class PictureLoader:
    """Turns rows into batches for one run, on `device`.

    `augment` are built augmentations, applied in order to training pictures only. Of a training
    batch that `processes` share each reads its own part.
    """

    def __init__(
        self,
        data: Data,
        seed: int,
        augment: Sequence[Callable[[Tensor, torch.Generator], Tensor]] = (),
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
    ):
        self.data = data
        self.seed = seed
        self.augment = tuple(augment)
        self.device = torch.device(device)
        self.processes = processes
        self._cache: dict[str, Tensor] = {}
        self._room = int(data.cache * 2**30)
        self._lock = Lock()

    def picture(self, rows: Rows, index: int) -> Tensor:
        """uint8 [3, H, W], resized; from the cache where it is there."""
        path = rows.paths[index]
        found = self._cache.get(path)
        if found is not None:
            return found
        picture = decode(path, rows.listed[index], self.data.image, self.data.interpolation)
        with self._lock:
            if path not in self._cache and picture.numel() <= self._room:
                self._room -= picture.numel()
                self._cache[path] = picture
        return picture

    def _augmented(self, rows: Rows, index: int, key: tuple[int, int, int]) -> Tensor:
        picture = self.picture(rows, index)
        if self.augment:
            # One generator per place in the epoch: the order in which threads work is irrelevant.
            draw = generator(self.seed, "picture", *key)
            picture = picture.clone()
            for change in self.augment:
                picture = change(picture, draw)
        return picture

    def _batch(self, rows: Rows, indices: Sequence[int], key: tuple[int, int, int] | None) -> Batch:
        """The batch with uint8 pixels, in pinned memory where it goes to a GPU."""
        index = np.asarray(indices, dtype=np.int64)
        share = None
        if key is not None and self.processes.count > 1:
            share = divided(rows.modality[index], self.processes)
        images = self._images(rows, index, key, share)
        return Batch(images, torch.from_numpy(rows.pid[index]))

    def _images(
        self,
        rows: Rows,
        index: np.ndarray,
        key: tuple[int, int, int] | None,
        share: Share | None = None,
    ) -> Images:
        own = np.arange(len(index)) if share is None else share.own
        if key is None:
            pictures = [self.picture(rows, int(row)) for row in index]
        else:
            epoch, stream, start = key
            pictures = [
                self._augmented(rows, int(index[place]), (epoch, stream, start + int(place)))
                for place in own
            ]
        pixels = torch.empty(
            (len(pictures), *pictures[0].shape), dtype=pictures[0].dtype,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        torch.stack(pictures, out=pixels)
        modality = torch.from_numpy(rows.modality[index])
        camera = torch.from_numpy(rows.camera[index])
        images = Images(pixels, modality[own], camera[own])
        if share is None or key is None:
            return images

        def all_pixels() -> Tensor:
            return self._on_device(self._images(rows, index, key)).pixels

        return SharedImages(images, share, modality, camera, all_pixels, (self.seed, *key))

    def _placed(self, batch: Batch) -> Batch:
        """The batch on the device."""
        images = batch.images
        if isinstance(images, SharedImages):
            images = images.placed(self._on_device, self.device)
        else:
            images = self._on_device(images)
        return Batch(images, batch.pid.to(self.device, non_blocking=True))

    def _on_device(self, images: Images) -> Images:
        """With pixels as floats there. uint8 is a quarter of the way to a GPU."""
        moved = images.to(self.device)
        pixels = normalized(moved.pixels, self.data.normalize)
        return Images(pixels, moved.modality, moved.camera)

    def training(
        self, rows: Rows, batches: Iterable[Sequence[int]], epoch: int, stream: int
    ) -> Iterator[Batch]:
        """Augmented batches in the given order; what is drawn follows from seed, epoch, stream and
        place alone."""

        def jobs() -> Iterator[tuple[Sequence[int], tuple[int, int, int]]]:
            start = 0
            for indices in batches:
                yield indices, (epoch, stream, start)
                start += len(indices)

        return self._prefetched(rows, jobs())

    def plain(self, rows: Rows, size: int) -> Iterator[Batch]:
        """Batches of up to `size` pictures in row order, without augmentation."""
        chunks = (range(start, min(start + size, len(rows))) for start in range(0, len(rows), size))
        return self._prefetched(rows, ((list(chunk), None) for chunk in chunks))

    def _prefetched(
        self, rows: Rows, jobs: Iterator[tuple[Sequence[int], tuple[int, int, int] | None]]
    ) -> Iterator[Batch]:
        workers = self.data.workers
        # One torch thread in each: several teams of threads would fight the step for the cores.
        pool = ThreadPoolExecutor(workers, "reid-pictures", torch.set_num_threads, (1,))
        waiting: deque[Future[Batch]] = deque()
        try:
            for indices, key in jobs:
                waiting.append(pool.submit(self._batch, rows, indices, key))
                if len(waiting) > workers + 1:
                    yield self._placed(waiting.popleft().result())
            while waiting:
                yield self._placed(waiting.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            # What the workers set for themselves is also what new threads would start with.
            torch.set_num_threads(torch.get_num_threads())
