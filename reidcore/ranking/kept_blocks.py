"""Finished blocks of long scoring jobs on disk, so that a killed job goes on with them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import torch
from safetensors.torch import save
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.errors import DataError
from reidcore.model.model import Model
from reidcore.model.state_files import copied, read_tensors
from reidcore.support.device_memory import at_once
from reidcore.support.files import write_atomically
from reidcore.support.progress import Reporter, duration
from reidcore.wiring.plan import Plan

CPU = torch.device("cpu")
LONG = 1e13, 1e15
"""FLOP from which on distances are kept: some minutes of a CPU core, or of a GPU some ten seconds
in float32."""
BLOCK = 5e12, 2e14
"""FLOP of a block."""
PREFIX = "scoring-"


class KeptBlocks:
    """Blocks of rows of matchers' distances, kept in `RUN_DIR/scoring-KEY/TEST_SET/` until
    `discard`.

    key: called when the first block is due; the text says what distances depend on, as
    `scoring_key` does, so that blocks of another model, other pictures or other views are not
    found. A job is long by the FLOP that its matcher declares, on a CPU sooner than on
    a GPU. Where nothing can be written,
    nothing is kept, and the run says so.
    """

    def __init__(self, run: Path, key: Callable[[], str], reporter: Reporter):
        self._run, self._key, self._reporter = run, key, reporter
        self._folder: Path | None = None
        self._broken = False
        self._test = ""
        self._jobs: dict[tuple[str, ...], _Job] = {}

    def begin(self, test: str) -> None:
        """The test set that blocks belong to from now on."""
        self._test = test

    def takes(
        self, matching: Matching, rows: int, columns: int, device: torch.device = CPU
    ) -> bool:
        """Whether distances [rows, columns] take so long that they are kept."""
        return float(matching.pair_flops) * rows * columns >= at_once(LONG, device)

    def rows(self, matching: Matching, columns: int, device: torch.device = CPU) -> int:
        """Rows of a block."""
        return max(1, int(at_once(BLOCK, device) / (float(matching.pair_flops) * columns)))

    def block(
        self,
        job: tuple[str, ...],
        rows: slice,
        shape: tuple[int, int],
        whole: int,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """The distances of some rows of a job of `whole` pairs, read or computed and kept."""
        state = self._jobs.setdefault((self._test, *job), _Job(whole))
        path = self._place() / f"{'-'.join(job)}-{rows.start}-{rows.stop}.safetensors"
        found = _read(path, shape)
        if found is not None:
            state.found(shape[0] * shape[1])
            return found
        started = time.monotonic()
        distances = compute()
        self._write(path, distances)
        state.scored(shape[0] * shape[1], time.monotonic() - started)
        matcher, *sides = job
        self._reporter.working(f"{self._test}: {matcher}, {' x '.join(sides)}: {state}")
        return distances

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = self._run / (PREFIX + self._key())
        # A test set's name may be any text.
        return self._folder / hashlib.sha256(self._test.encode()).hexdigest()[:8]

    def _write(self, path: Path, distances: Tensor) -> None:
        if self._broken:
            return
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._reporter.say(
                    f"distances are kept in {self._folder} until all scores are there; if this is "
                    "interrupted, the same command goes on with them"
                )
            write_atomically(path, save({"distances": distances.cpu().contiguous()}))
        except OSError as error:
            self._broken = True
            self._reporter.say(
                f"note: cannot keep distances in {path.parent}: {error.strerror or error}; if this "
                "is interrupted, it begins anew"
            )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of the run for as long as the block lasts."""
        try:
            with TemporaryDirectory(prefix=PREFIX, dir=self._run, ignore_cleanup_errors=True) as at:
                yield Path(at)
        except OSError as error:
            raise DataError(
                f"cannot keep templates in {self._run.absolute()}: {error.strerror or error}"
            ) from error

    def discard(self, others: bool = False) -> None:
        """Removes this key's blocks, with `others` those of all other keys too."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._run.glob(PREFIX + "*") if others else ():
            shutil.rmtree(folder, ignore_errors=True)


@attrs.define
class _Job:
    """How far a job of `whole` pairs is."""

    whole: int
    done: int = 0
    computed: int = 0
    seconds: float = 0.0

    def found(self, pairs: int) -> None:
        self.done += pairs

    def scored(self, pairs: int, seconds: float) -> None:
        self.done += pairs
        self.computed += pairs
        self.seconds += seconds

    def __str__(self) -> str:
        rate = self.computed / max(self.seconds, 1e-9)
        # Another ranking that reads the same distances counts them again.
        left = max(0, self.whole - self.done) / rate
        return (
            f"{min(1.0, self.done / self.whole):.0%} of {self.whole:,} pairs, {rate:,.0f} pairs/s, "
            f"{duration(left)} left"
        )


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The block in the file; None if there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        found = read_tensors(path)[0].get("distances")
    except DataError:
        return None
    usable = found is not None and found.shape == shape and found.dtype == torch.float32
    return found if usable else None


def scoring_key(plan: Plan, model: Model) -> str:
    """A digest of what a matcher's distances depend on: weights, settings, and which pictures."""
    digest = hashlib.sha256()
    for role, section in model.sections().items():
        for key, value in section.items():
            if not role.startswith(("loss.", "pairs.")):
                digest.update(f"{role}.{key}".encode())
                whole = copied(value).flatten()
                digest.update(whole.view(torch.uint8).numpy().data)
    run = plan.runfile
    parts = [plan.backbone, *plan.heads, *plan.matchers]
    settings: dict[str, Any] = {
        "data": [run.data.image, run.data.interpolation, run.data.normalize],
        "views": run.eval.views,
        "parts": {wired.part.role: attrs.asdict(wired.config) for wired in parts},
        "pictures": plan.data.hashes,
        # They choose the pictures whose distances a block holds.
        "protocols": [(one.source.name, repr(one.protocol)) for one in plan.data.test],
        "versions": plan.distributions,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
