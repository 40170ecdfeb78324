"""Ctrl-C at any moment: one line, exit code 130, nothing printed but that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from distributions import ROOT, python, write_distribution

IMPORTING = """
import os, signal
class Loud:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
{how}
"""


@pytest.fixture(autouse=True)
def interruptible():
    """Children of a process that ignores SIGINT, such as a job in the background, ignore it too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_after(folder, seconds: float, *command: str) -> tuple[int, str]:
    """Exit code and messages of a command that gets SIGINT after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reidcore", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    return process.returncode, messages


EARLY = [pytest.param(after, marks=pytest.mark.slow) for after in (0.2, 0.4, 0.8, 1.6, 2.5, 3.0)]
"""Moments at which a busy machine may still be starting Python itself, which nobody can catch."""


@pytest.mark.parametrize("after", [*EARLY, 1.2, 2.0, 4.0])
def test_a_run_is_interrupted(tmp_path, after):
    """While modules are imported, while people are drawn, while it trains."""
    code, messages = interrupted_after(tmp_path, after, "run", "demo")
    assert code == 130 and "Traceback" not in messages, messages
    assert messages.splitlines()[-1].startswith("interrupted")
    assert sum("interrupted" in line for line in messages.splitlines()) == 1


@pytest.mark.parametrize(
    "how",
    [
        "os.kill(os.getpid(), signal.SIGINT)",
        "Loud()\nimport time\nfor _ in range(500): time.sleep(0.01)",
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n"
        "    raise ImportError('as C code does')",
        "exec('os.kill(os.getpid(), signal.SIGINT)')",
    ],
    ids=["raised", "swallowed by a callback", "turned into another error", "out of exec"],
)
@pytest.mark.parametrize("at", ["importing a plugin", "importing its command"])
def test_while_modules_are_imported(tmp_path, how, at):
    """Also where Python or C code hides that it was an interrupt."""
    plugin = (
        "from reidcore.api import Command, hookimpl\n@hookimpl\ndef reid_commands():\n"
        "    return [Command('slow', 'PACKAGE.slow:add')]\n"
    )
    code = IMPORTING.format(how=how)
    add = "\ndef add(parser):\n    return lambda options: 0\n"
    if at == "importing a plugin":
        write_distribution(tmp_path, "slow", code + plugin, files={"slow.py": add})
    else:
        write_distribution(tmp_path, "slow", plugin, files={"slow.py": code + add})
    done = python(tmp_path, "-m", "reidcore", "slow")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ignored_where_the_caller_ignores_it(tmp_path):
    """A job in the background of a script is not interrupted by Ctrl-C in front of it."""
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "process = subprocess.Popen([sys.executable, '-m', 'reidcore', 'runs', 'core'])\n"
        "time.sleep(0.3)\nprocess.send_signal(signal.SIGINT)\nsys.exit(process.wait())"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0 and "core:demo" in done.stdout


def test_little_is_imported_before_it_is_watched(tmp_path):
    """Only what Python imports when it starts, and the modules that begin the command."""
    code = (
        "import sys\nbefore = set(sys.modules)\nimport reidcore.__main__\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = python(tmp_path, "-c", code)
    allowed = {"__future__", "os", "reidcore", "reidcore.__main__", "reidcore.version"}
    assert set(done.stdout.split()) <= allowed


def test_torch_is_never_interrupted_in_the_midst_of_its_import(tmp_path):
    """What torch's C++ code makes of an exception there may be the abort of Python: whatever it
    would do with one, the command has ended."""
    (tmp_path / "torch.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(1000): pass\n"
        "except BaseException:\n    os.abort()\n"
    )
    done = python(
        tmp_path, "-c", "from reidcore.cli import interrupts as i; i.watch(); import torch"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
