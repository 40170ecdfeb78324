"""Runs of the command `reid` in processes of their own, to be killed at chosen moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import warm_python
from distributions import ROOT

TINY = """\
format = 1
name = "tiny"

[data]
train = { read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 }
test = [
  { read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 },
]
image = [32, 16]
augment = [{ use = "core.flip" }, { use = "core.pad_crop", pad = 2 }]
batch = { use = "core.identities", ids = 4, per_id = 2 }

[backbone]
use = "core.resnet"
depth = 18
width = 0.125

[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]

[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]

[[loss]]
name = "triplet"
use = "core.triplet"
feature = "neck.pooled"

[train]
epochs = 6

[optim]
lr = 1e-3

[eval]
every = 1
"""
"""A run that takes about two seconds on one thread."""


TWO_RANKINGS = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "main"
matcher = "look"

[[ranking]]
name = "both"
fuse = { look = 0.5, far = 0.5 }
scale = "logistic"
"""
"""Tables behind `TINY`: a second matcher, a ranking by the first and one by both."""
SEARCH = """\
format = 1
name = "search"

[data]
train = { read = "core.demo", train_identities = 8, test_identities = 3, pictures = 8, cameras = 2 }
image = [32, 16]
augment = [{ use = "core.flip" }]
batch = { use = "core.identities", ids = 3, per_id = 2 }

[backbone]
use = "msinet.supernet"
channels = [8, 8, 8, 8]

[[head]]
name = "pool"
use = "core.pool"
source = "backbone.cell6"

[procedure]
use = "msinet.search"
feature = "pool.vector"
alpha_steps = []

[train]
epochs = 2

[optim]
kind = "sgd"
lr = 0.01
"""
"""A search of operations with two losses and optimizers; seconds on one thread."""


def environment(cache: Path, site: Path | None = None, **more: str) -> dict[str, str]:
    """One thread, the demo data in `cache`, and the distributions in `site` installed."""
    path = [str(site)] if site else []
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "REID_CACHE": str(cache),
        **more,
    }


NEED_TORCH = ("run", "eval", "check", "rank", "index", "explain", "report", "tune")
"""Commands that import torch in any case. Others are started by a Python that has not."""


def reid(
    env: Mapping[str, str], folder: Path, *arguments: object, code: int = 0, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end in `folder`; its exit code must be `code`."""
    if arguments[0] in NEED_TORCH:
        done = warm_python.run(["-m", "reidcore", *arguments], env, folder, timeout)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "reidcore", *map(str, arguments)],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    assert done.returncode == code, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done


def torchrun(count: int, *arguments: object) -> list[str]:
    """The command that starts `count` processes with these arguments of python."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, "--nproc-per-node", str(count), *map(str, arguments)]


def by_torchrun(
    env: Mapping[str, str], folder: Path, count: int, *arguments: object, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs python in `count` processes to their end; torchrun's exit code must be `code`."""
    done = subprocess.run(
        torchrun(count, *arguments),
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == code, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done


def shared(
    env: Mapping[str, str], folder: Path, count: int, *arguments: object, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs python in `count` processes, started as torchrun does, but with torch imported already;
    the exit code of the first that ends badly must be `code`."""
    done = warm_python.run(arguments, env, folder, 500, together=count)
    assert done.returncode == code, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done


def kill_when(
    env: Mapping[str, str],
    folder: Path,
    arguments: list[object],
    moment: Callable[[str], bool],
    pause: float = 0.0,
) -> str:
    """Starts the command and kills it with SIGKILL at the first `moment`, or `pause` seconds later.

    `moment` is asked again and again with what was printed so far; it is asked once more while the
    process is stopped, so a moment that has passed does not count. Returns what was printed. The
    process must not have ended before the moment; if it ends in the pause, that is its end.
    """
    with tempfile.TemporaryFile("w+") as output:
        words = ["-m", "reidcore", *arguments]
        # Its hashes of texts are others than those of the run that it is compared with.
        program = warm_python.Program(words, env, folder, output, output, server=1)

        def printed() -> str:
            return os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")

        deadline = time.monotonic() + 100
        try:
            while True:
                assert not program.ended(), f"it ended before the moment:\n{printed()}"
                assert time.monotonic() < deadline, f"the moment did not come:\n{printed()}"
                if not moment(printed()):
                    continue
                if pause:
                    time.sleep(pause)
                    break
                program.stop()  # signals take a while: until then the moment may pass
                if moment(printed()):
                    break
                program.go_on()
        finally:
            program.kill()
            code = program.code()
        assert code == -signal.SIGKILL or (pause and code == 0)
        return printed()


def writing(folder: Path) -> Callable[[str], bool]:
    """The moment inside the write of a checkpoint."""
    return lambda printed: any(folder.glob(".resume.safetensors.*.tmp"))


def evaluating(times: int = 1) -> Callable[[str], bool]:
    """The moment inside the n-th evaluation of the process."""

    def moment(printed: str) -> bool:
        last = printed.rstrip().rpartition("\n")[2]
        inside = "templates of" in last or ": ranking" in last
        return inside and printed.count("query pictures") >= times

    return moment


def ended(epoch: int) -> Callable[[str], bool]:
    """The moment after an epoch's end."""
    return lambda printed: f"epoch {epoch}/" in printed


def left(folder: Path) -> list[str]:
    """Temporary files that a kill inside a write left behind."""
    return [path.name for path in folder.glob(".*.tmp")]


def results(folder: Path) -> dict[str, bytes]:
    """What two runs must have in common to the last bit."""
    names = ["weights.safetensors", "scores.json"]
    names += [path.name for path in folder.glob("scores-by-epoch.json")]
    return {name: (folder / name).read_bytes() for name in names}
