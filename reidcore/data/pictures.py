"""Makes batches of pictures: read in threads, augmented, with a cache of decoded ones in memory.

`reidcore.data.decoding` decodes and resizes one picture.

Threads rather than processes, unless `data.worker_kind` says otherwise: the cache is shared, they
start at once, and Pillow releases the interpreter's lock while it decodes and resizes. What they
pass on is uint8; it becomes float on the run's device, where a GPU gets the next batch while it
computes on the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.pictures import Batch, Images, Meta, Rows
from reidcore.contracts.rows import label_names
from reidcore.data.decoding import decode, normalized
from reidcore.data.reading_processes import Read, ReadingProcesses
from reidcore.distributed.processes import ALONE, Processes
from reidcore.distributed.shared_batches import Division, SharedImages, divided
from reidcore.runfiles.tables import Data
from reidcore.support.seeds import generator

Key = tuple[int, int, int]
"""Epoch, stream and place in the epoch of a training batch's first picture."""


def make_rows(rows: Sequence[Row], cameras: Mapping[str, int], modalities: Sequence[str]) -> Rows:
    """Return manifest rows as arrays, with numbers for the names of identities and all else.

    cameras: number by name; -1 for others. modalities: names in the order of their numbers.
    Identities are numbered in natural order of their names.
    """
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
        openers=_if_any([row.opener for row in rows]),
        boxes=_if_any([row.box for row in rows]),
    )


def _if_any(values: list[Any]) -> Sequence[Any]:
    """Return the values, () if all of them are None."""
    return values if any(value is not None for value in values) else ()


def meta_of(rows: Rows, index: Any = slice(None)) -> Meta:
    """Return the cameras, times and modalities of rows, which ranking may use.

    index: a slice, or the rows' numbers in a tensor, an array or a list.
    """
    if not isinstance(index, slice):
        # An array indexed by a tensor of one element gives a scalar.
        index = np.asarray(index, dtype=np.int64)
    return Meta(
        torch.from_numpy(rows.camera[index]),
        torch.from_numpy(rows.time[index]),
        torch.from_numpy(rows.modality[index]),
    )


class PictureLoader:
    """Turns rows into batches of pictures on `device`, as a run's [data] says.

    augment: built augmentations, applied in order to training pictures only. processes: of a
    training batch that they share, each reads its own part.
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
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.ahead = self._stream is not None
        """True if a batch is sent to the device before the one ahead of it is used."""

    def picture(self, rows: Rows, index: int) -> Tensor:
        """Return the picture of a row, uint8 [3, H, W], resized; from the cache if it is there."""
        row = rows.picture(index)
        found = self._cache.get(row.name)
        if found is not None:
            return found
        picture = decode(row, self.data.image, self.data.interpolation)
        with self._lock:
            if row.name not in self._cache and picture.numel() <= self._room:
                self._room -= picture.numel()
                self._cache[row.name] = picture
        return picture

    def _augmented(self, rows: Rows, index: int, key: Key) -> Tensor:
        picture = self.picture(rows, index)
        if self.augment:
            # One generator per place in the epoch: the order in which threads work is irrelevant.
            draw = generator(self.seed, "picture", *key)
            picture = picture.clone()
            for change in self.augment:
                picture = change(picture, draw)
        return picture

    def _pixels(
        self, rows: Rows, index: np.ndarray, places: np.ndarray, key: Key | None, pinned: bool
    ) -> Tensor:
        """Return the pictures of the rows at `index`, uint8 [B, 3, H, W]; with a key, augmented by
        that and their places in the batch."""
        if key is None:
            pictures = [self.picture(rows, int(row)) for row in index]
        else:
            epoch, stream, start = key
            pictures = [
                self._augmented(rows, int(row), (epoch, stream, start + int(place)))
                for row, place in zip(index, places, strict=True)
            ]
        shape = (len(pictures), *pictures[0].shape)
        pixels = torch.empty(shape, dtype=pictures[0].dtype, pin_memory=pinned)
        return torch.stack(pictures, out=pixels)

    def _batch(
        self, rows: Rows, indices: Sequence[int], key: Key | None, read: Read | None = None
    ) -> Batch:
        """Return a batch with uint8 pixels, in pinned memory where it goes to a GPU."""
        index = np.asarray(indices, dtype=np.int64)
        division = None
        if key is not None and self.processes.count > 1:
            division = divided(rows.modality[index], self.processes)
        images = self._images(rows, index, key, division, read)
        return Batch(images, torch.from_numpy(rows.pid[index]))

    def _images(
        self,
        rows: Rows,
        index: np.ndarray,
        key: Key | None,
        division: Division | None = None,
        read: Read | None = None,
    ) -> Images:
        own = np.arange(len(index)) if division is None else division.own
        pinned = self.device.type == "cuda"
        if read is None:
            pixels = self._pixels(rows, index[own], own, key, pinned)
        else:
            pixels = read(index[own], own, key)
            pixels = pixels.pin_memory() if pinned else pixels
        modality = torch.from_numpy(rows.modality[index])
        camera = torch.from_numpy(rows.camera[index])
        images = Images(pixels, modality[own], camera[own])
        if division is None or key is None:
            return images

        def all_pixels() -> Tensor:
            return self._on_device(self._images(rows, index, key)).pixels

        return SharedImages(images, division, modality, camera, all_pixels, (self.seed, *key))

    def _placed(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
        images = batch.images
        if isinstance(images, SharedImages):
            images = images.placed(self._on_device, self.device)
        else:
            images = self._on_device(images)
        return Batch(images, batch.pid.to(self.device, non_blocking=True))

    def _on_device(self, images: Images) -> Images:
        """Return the pictures on the device, with normalized float pixels.

        They are sent as uint8, a quarter of the bytes.
        """
        moved = images.to(self.device)
        pixels = normalized(moved.pixels, self.data.normalize)
        return Images(pixels, moved.modality, moved.camera)

    def training(
        self, rows: Rows, batches: Iterable[Sequence[int]], epoch: int, stream: int
    ) -> Iterator[Batch]:
        """Yield augmented batches of the rows that `batches` lists, in that order.

        What is drawn follows from the run's seed, epoch, stream and the place in the epoch alone.
        """

        def jobs() -> Iterator[tuple[Sequence[int], Key]]:
            start = 0
            for indices in batches:
                yield indices, (epoch, stream, start)
                start += len(indices)

        return self._prefetched(rows, jobs())

    def plain(self, rows: Rows, size: int) -> Iterator[Batch]:
        """Yield batches of up to `size` pictures in row order, without augmentation."""
        chunks = (range(start, min(start + size, len(rows))) for start in range(0, len(rows), size))
        return self._prefetched(rows, ((list(chunk), None) for chunk in chunks))

    def _prefetched(
        self, rows: Rows, jobs: Iterator[tuple[Sequence[int], Key | None]]
    ) -> Iterator[Batch]:
        workers = self.data.workers
        processes = None
        if self.data.worker_kind == "process":
            processes = ReadingProcesses(workers, partial(self._read_in_process, rows))
        # One torch thread in each: several teams of threads would fight the step for the cores.
        # One more where they only wait for processes, so that none of these waits for a batch.
        threads = workers if processes is None else workers + 1
        pool = ThreadPoolExecutor(threads, "reid-pictures", torch.set_num_threads, (1,))
        waiting: deque[_Coming] = deque()

        def arrived() -> Batch:
            batch = waiting.popleft().arrived()
            if self.ahead and waiting:
                waiting[0].send()  # while the consumer computes on this one
            return batch

        try:
            for indices, key in jobs:
                future = pool.submit(self._batch, rows, indices, key, processes)
                waiting.append(_Coming(future, self._placed, self._stream))
                if len(waiting) > workers + 1:
                    yield arrived()
            while waiting:
                yield arrived()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if processes is not None:
                processes.close()
            # What the workers set for themselves is also what new threads would start with.
            torch.set_num_threads(torch.get_num_threads())

    def _read_in_process(
        self, rows: Rows, index: np.ndarray, places: np.ndarray, key: Key | None
    ) -> Tensor:
        self._room = 0  # what a process would keep, no other could find
        return self._pixels(rows, index, places, key, pinned=False)


class _Coming:
    """A batch that is being read, and then sent to the device.

    stream: on a GPU, the one it is sent in, beside the consumer's, which computes meanwhile.
    """

    def __init__(
        self,
        read: Future[Batch],
        place: Callable[[Batch], Batch],
        stream: torch.cuda.Stream | None,
    ):
        self._read, self._place, self._stream = read, place, stream
        self._sent: Batch | None = None
        self._event: torch.cuda.Event | None = None

    def send(self) -> None:
        """Send the batch if it has been read; `arrived` raises what went wrong."""
        if self._sent is None and self._read.done() and self._read.exception() is None:
            self._send()

    def _send(self) -> Batch:
        read = self._read.result()
        if self._stream is None:
            self._sent = self._place(read)
        else:
            with torch.cuda.stream(self._stream):
                self._sent = self._place(read)
            self._event = self._stream.record_event()
        return self._sent

    def arrived(self) -> Batch:
        """Return the batch, for the current stream to use. Raises what reading it raised."""
        batch = self._send() if self._sent is None else self._sent
        if self._stream is not None and self._event is not None:
            consumer = torch.cuda.current_stream(self._stream.device)
            consumer.wait_event(self._event)
            for tensor in _tensors(batch):
                # Allocated in the other stream, which must not use its memory again before this
                # one has done with it.
                tensor.record_stream(consumer)
        return batch


def _tensors(batch: Batch) -> list[Tensor]:
    images = batch.images
    own = images.own if isinstance(images, SharedImages) else images
    return [batch.pid, images.modality, images.camera, own.pixels, own.modality, own.camera]
