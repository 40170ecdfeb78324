"""Keeps finished blocks of long computations of distances on disk, so that an evaluation that was
killed goes on with them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

import attrs
import torch
from safetensors.torch import save
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.errors import DataError, OutputError
from reidcore.model.state_files import read_tensors
from reidcore.support.device_memory import CPU, at_once
from reidcore.support.files import write_atomically, writing
from reidcore.support.progress import Reporter, duration
from reidcore.support.temporaries import remove_leftovers, temporary_folder

LONG = 1e13, 1e15
"""FLOP from which on distances are kept: some minutes of a CPU core, or of a GPU some ten seconds
in float32."""
BLOCK = 5e12, 2e14
"""FLOP of a block."""
PREFIX = "scoring-"
SCRATCH = "templates"
"""What the temporary folder of templates on disk is for."""


def is_long(matching: Matching, rows: int, columns: int, device: torch.device = CPU) -> bool:
    """Return True if distances [rows, columns] take so long that they are kept, by the FLOP that
    the matcher declares; on a CPU sooner than on a GPU."""
    return float(matching.pair_flops) * rows * columns >= at_once(LONG, device)


def block_rows(matching: Matching, columns: int, device: torch.device = CPU) -> int:
    """Return the number of rows of a kept block."""
    return max(1, int(at_once(BLOCK, device) / (float(matching.pair_flops) * columns)))


class KeptBlocks:
    """The blocks of an evaluation's distances that are kept on disk, in
    `RUN_DIR/scoring-KEY/TEST_SET/`, until `discard` removes them.

    Where nothing can be written, nothing is kept, and the reporter says so once.

    run: the run folder. key: returns a text that differs where distances do, as `distances_key`
    does, so that blocks of another model, other pictures or other views are not found; it is called
    when the first block is due.
    """

    def __init__(self, run: Path, key: Callable[[], str], reporter: Reporter):
        self.reporter = reporter
        self._run, self._key = run, key
        self._folder: Path | None = None
        self._broken = False

    def of_set(self, test_set: str) -> SetBlocks:
        """Return the blocks of one test set, whose name may be any text."""
        return SetBlocks(self, test_set)

    @property
    def folder(self) -> Path:
        """The folder of this key's blocks; it exists once there is one."""
        if self._folder is None:
            self._folder = self._run / (PREFIX + self._key())
        return self._folder

    def write(self, path: Path, distances: Tensor) -> None:
        """Write a block, unless an earlier one could not be written."""
        if self._broken:
            return
        try:
            if not path.parent.is_dir():
                with writing(path.parent):
                    path.parent.mkdir(parents=True, exist_ok=True)
                self.reporter.say(
                    f"distances are kept in {self.folder} until all scores are there; if this is "
                    "interrupted, the same command goes on with them"
                )
            write_atomically(path, save({"distances": distances.cpu().contiguous()}))
        except OutputError as error:
            self._broken = True
            self.reporter.say(
                f"note: cannot keep distances: {error}; if this is interrupted, it begins anew"
            )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder in the run's for as long as the `with` block lasts. Raises OutputError
        where none can be made."""
        remove_leftovers(self._run, SCRATCH)
        with ExitStack() as stack:
            with writing(self._run / SCRATCH):
                folder = stack.enter_context(temporary_folder(self._run / SCRATCH))
            yield folder

    def discard(self, others: bool = False) -> None:
        """Remove this key's blocks, with `others` those of all other keys too."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._run.glob(PREFIX + "*") if others else ():
            shutil.rmtree(folder, ignore_errors=True)


class SetBlocks:
    """The kept blocks of one test set: rows of a matcher's own distances between two sides.

    A job is all distances of one matcher between two sides.
    """

    def __init__(self, every: KeptBlocks, test_set: str):
        self._every, self._test_set = every, test_set
        self._progress: dict[tuple[str, ...], _Progress] = {}

    def block(
        self,
        job: tuple[str, ...],
        rows: slice,
        shape: tuple[int, int],
        whole: int,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """Return the distances of some rows of a job of `whole` pairs, read from disk or computed
        and kept. job: the names of the matcher and of both sides."""
        progress = self._progress.setdefault(job, _Progress(whole))
        name = f"{'-'.join(job)}-{rows.start}-{rows.stop}.safetensors"
        path = self._every.folder / sha256(self._test_set.encode()).hexdigest()[:8] / name
        found = _read(path, shape)
        if found is not None:
            progress.found(found.numel())
            return found
        started = time.monotonic()
        distances = compute()
        self._every.write(path, distances)
        progress.computed(shape[0] * shape[1], time.monotonic() - started)
        matcher, *sides = job
        self._every.reporter.working(
            f"{self._test_set}: {matcher}, {' x '.join(sides)}: {progress}"
        )
        return distances


@attrs.define
class _Progress:
    """The progress of a job of `whole` pairs."""

    whole: int
    _done: int = 0
    _computed: int = 0
    _seconds: float = 0.0

    def found(self, pairs: int) -> None:
        self._done += pairs

    def computed(self, pairs: int, seconds: float) -> None:
        self._done += pairs
        self._computed += pairs
        self._seconds += seconds

    def __str__(self) -> str:
        rate = self._computed / max(self._seconds, 1e-9)
        # Another ranking that reads the same distances counts them again.
        left = max(0, self.whole - self._done) / rate
        return (
            f"{min(1.0, self._done / self.whole):.0%} of {self.whole:,} pairs, "
            f"{rate:,.0f} pairs/s, {duration(left)} left"
        )


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Return the block in the file; None if there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        found = read_tensors(path)[0].get("distances")
    except DataError:
        return None
    usable = found is not None and found.shape == shape and found.dtype == torch.float32
    return found if usable else None
