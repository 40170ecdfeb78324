"""A small run with a fault at each point where it writes: the process is killed there, or its disk
is full.

`python tests/faults.py FOLDER EVERY [FIRST]` runs it whole, and then again with a fault at the
points FIRST, FIRST + EVERY, ..., resumes each and prints what differs as JSON. Every run is a fork
of one process that has imported torch, so it takes fractions of a second.
"""

from __future__ import annotations

import builtins
import csv
import errno
import gc
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
from running import TINY

KILLED = 77
"""The exit code of a process that a fault has killed."""
KINDS = ("kill", "full")
TIMES = ("before", "after")
WATCH = """
import json
from reidcore.api import hookimpl

@hookimpl
def reid_run_started(run):
    run.write("seen-start.json", "{}")

@hookimpl
def reid_epoch_ended(run, epoch, means, scores):
    run.write(f"seen-{epoch}.json", json.dumps(scores))

@hookimpl
def reid_run_ended(run, scores):
    run.write("seen-end.json", json.dumps(scores))
"""
"""The plugin `watch`, whose observers write."""
RUN = (
    TINY.replace('name = "tiny"', 'name = "tiny"\nplugins = ["watch"]')
    .replace("epochs = 6", 'epochs = 2\nbest = "mAP"')
    .replace("every = 1", 'every = 1\ntemplates = "disk"\nprotocol = "single_gallery_shot"')
)
"""A run that writes every file a run can write; its scoring is patched to keep blocks."""


@attrs.frozen
class Fault:
    """What happens at a point: at the n-th call that writes, and before or after it."""

    point: int
    kind: Literal["kill", "full"]
    time: Literal["before", "after"]

    def __str__(self) -> str:
        return f"{self.kind}-{self.time}-{self.point}"

    def happen(self) -> None:
        if self.kind == "kill":
            os._exit(KILLED)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Calls:
    """Stands in for the calls by which this process writes below a folder, and counts them."""

    def __init__(self, folder: Path, fault: Fault | None):
        self.folder = os.path.realpath(folder)
        self.fault = fault
        self.made: list[str] = []

    def install(self) -> None:
        os.open = self._standing_in(os.open, _opens)
        builtins.open = io.open = self._standing_in(open, _opens)
        # Nothing is lost where only a process ends, and a disk takes its time.
        os.fsync = self._standing_in(lambda handle: None, name="fsync")
        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self._standing_in(getattr(os, name)))

    def _standing_in(
        self,
        call: Callable[..., Any],
        writes: Callable[..., bool] = lambda *_: True,
        name: str = "",
    ) -> Callable[..., Any]:
        name = name or call.__name__

        def stand_in(path: Any, *arguments: Any, **named: Any) -> Any:
            if not (writes(path, *arguments, *named.values()) and self._below(path, named)):
                return call(path, *arguments, **named)
            self.made.append(f"{name} {os.path.basename(str(path))}")
            due = self.fault is not None and self.fault.point == len(self.made) - 1
            if due and self.fault.time == "before":
                self.fault.happen()
            found = None
            try:
                found = call(path, *arguments, **named)
            finally:  # also of a call that fails, as the removal of what is not there
                if due and self.fault.time == "after":
                    if name == "open" and isinstance(found, int):
                        os.close(found)
                    self.fault.happen()
            return found

        return stand_in

    def _below(self, path: Any, named: dict[str, Any]) -> bool:
        if isinstance(path, int):
            whole = os.readlink(f"/proc/self/fd/{path}")
        elif named.get("dir_fd") is not None:
            whole = os.path.join(os.readlink(f"/proc/self/fd/{named['dir_fd']}"), path)
        else:
            whole = os.path.abspath(path)
        return whole.startswith((self.folder + os.sep, self.folder + "."))


def _opens(path: Any, how: Any = "r", *_: Any) -> bool:
    if isinstance(how, str):
        return not isinstance(path, int) and any(letter in how for letter in "wxa+")
    return bool(how & (os.O_WRONLY | os.O_RDWR))


def forked(work: Callable[[], int], output: Path) -> int:
    """The exit code of a fork of this process that does the work and prints into a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


def trained(folder: Path, fault: Fault | None = None, count: Path | None = None) -> int:
    """The exit code of `reid run` in a folder, new or not."""

    def work() -> int:
        from reidcore.cli.main import main

        calls = Calls(folder, fault)
        calls.install()
        code = main(["run", "tiny.toml", "--out", str(folder), "--resume"])
        if count is not None:
            count.write_text(json.dumps(calls.made))
        return code

    return forked(work, folder.with_suffix(".out"))


def results(folder: Path) -> dict[str, Any]:
    """What two runs have in common: all files of the core, but for what is measured."""
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        if not path.name.startswith("seen-"):  # what the observers write
            found[path.name] = None if path.is_dir() else path.read_bytes()
    lock = json.loads(found["lock.json"])
    measured = lock.pop("used")
    found["lock.json"] = lock, sorted(measured)
    rows = csv.DictReader(io.StringIO(found["means.csv"].decode()))
    timed = ("seconds", "pictures_per_second")
    found["means.csv"] = [{k: v for k, v in row.items() if k not in timed} for row in rows]
    return found


def differences(whole: dict[str, Any], folder: Path, fault: Fault) -> list[str]:
    """What is wrong with a run that was stopped by a fault and resumed."""
    out = folder.with_suffix(".out")
    wrong = []
    code = trained(folder, fault)
    text = out.read_text()
    if "Traceback" in text:
        wrong.append(f"a traceback: {text[-800:]}")
    if fault.kind == "kill" and code != KILLED:
        wrong.append(f"the point was not reached: exit code {code}")
    if fault.kind == "full":
        if code not in (0, 1) or (code and "No space left on device" not in text):
            wrong.append(f"exit code {code}: {text[-500:]}")
        if code and fault.time == "before" and list(folder.glob(".*.tmp")):
            wrong.append(f"a temporary is left: {[path.name for path in folder.glob('.*.tmp')]}")
    code = trained(folder)
    if code:
        return [*wrong, f"the resumed run: exit code {code}: {out.read_text()[-800:]}"]
    again = results(folder)
    wrong += [f"{name} differs" for name in whole if again.get(name) != whole[name]]
    wrong += [f"{name} is left" for name in again if name not in whole]
    return wrong


def main(folder: Path, every: int, first: int) -> None:
    import torch

    from reidcore.cli.main import main as cli
    from reidcore.ranking import kept_blocks

    torch.set_num_threads(1)
    kept_blocks.LONG, kept_blocks.BLOCK = (1.0, 1.0), (7e3, 7e3)
    os.chdir(folder)
    Path("tiny.toml").write_text(RUN)
    # Draws the pictures, and imports all that a fork would have to import again.
    assert cli(["run", "tiny.toml", "--out", "warm"]) == 0
    counted = Path("points.json")
    assert trained(Path("whole"), count=counted) == 0, Path("whole.out").read_text()
    points = json.loads(counted.read_text())
    whole = results(Path("whole"))
    faults = [Fault(p, kind, time) for p in range(len(points)) for kind in KINDS for time in TIMES]
    wrong = {}
    chosen = faults[first::every]
    gc.freeze()
    for fault in chosen:
        place = Path(str(fault))
        if found := differences(whole, place, fault):
            wrong[f"{fault} ({points[fault.point]})"] = found
            print(f"{fault}: {found}", file=sys.stderr, flush=True)
        shutil.rmtree(place)
    print(json.dumps({"points": points, "faults": len(chosen), "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
