"""Starts Python programs in processes of their own that need not import torch first.

A server is a fresh Python that has imported torch and nothing of the project. It forks for each
program, which then sees the arguments, environment, folder and streams that it was given, as if a
new Python had been started. What asks which modules are imported, or sets what triton reads when it
is imported, needs a Python of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

LONGEST = 2**17
"""Bytes of the longest request."""


class Program:
    """A running program. Its output goes to the file `output`, its errors to `errors`.

    server: programs of one server have the same hashes of texts, those of another have others.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        env: Mapping[str, str],
        folder: Path,
        output: IO[str],
        errors: IO[str],
        server: int = 0,
    ):
        self.arguments = [str(argument) for argument in arguments]
        self.status, theirs = socket.socketpair()
        with theirs, open(os.devnull) as nothing:
            request = json.dumps([self.arguments, dict(env), str(folder)]).encode()
            files = [file.fileno() for file in (nothing, output, errors, theirs)]
            socket.send_fds(_server(server), [request], files)
        self.pid = int(self._answer())

    def fileno(self) -> int:
        """What `select` waits for: it can be read from once the program has ended."""
        return self.status.fileno()

    def ended(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])

    def code(self) -> int:
        """Wait for the end, and return the exit code as `subprocess` has it."""
        return int(self._answer())

    def _answer(self) -> str:
        answer = self.status.recv(20).decode()
        assert answer, f"nothing is known of {self.arguments}, whose keeper was killed"
        return answer

    def stop(self) -> None:
        """Stop it, and return when it stands still or has ended."""
        os.kill(self.pid, signal.SIGSTOP)
        while not self.ended() and _state(self.pid) != "T":
            pass

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def run(
    arguments: Sequence[object],
    env: Mapping[str, str],
    folder: Path,
    timeout: float,
    together: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments that begin with `-m MODULE`, `-c CODE` or a file, to its end.

    together: number of processes that share the job, with the variables that torchrun sets. If one
    fails, the others are killed, and its exit code is returned.
    """
    envs = [{}] if not together else list(_shared(together))
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        running = [Program(arguments, {**env, **more}, folder, output, errors) for more in envs]
        code = 0
        while running:
            ended = select.select(running, [], [], timeout)[0]
            code = code or next((bad for one in ended if (bad := one.code())), 0)
            running = [one for one in running if one not in ended]
            if code or not ended:
                for one in running:
                    one.kill()
            if not ended:
                raise subprocess.TimeoutExpired(list(map(str, arguments)), timeout)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(
            list(map(str, arguments)), code, output.read(), errors.read()
        )


def _shared(count: int) -> list[dict[str, str]]:
    """The variables of processes that share a job, of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [{**both, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(count)]


@functools.cache
def _server(number: int) -> socket.socket:
    """Start the server of this number; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(server: socket.socket) -> list[str]:
    """Fork for every request. Returns the program's arguments, in its own process only."""
    while True:
        request, files, _, _ = socket.recv_fds(server, LONGEST, 4)
        if not request:
            os._exit(0)  # whoever asked has ended
        if os.fork():
            for file in files:
                os.close(file)
            while _reaped():
                pass
            continue
        server.close()
        arguments, env, folder = json.loads(request)
        if pid := os.fork():
            _keep(pid, socket.socket(fileno=files[3]))
        os.close(files[3])
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
            os.close(file)
        _become(arguments, env, folder)
        return arguments


def _reaped() -> bool:
    """Take note of a keeper that has ended."""
    try:
        return os.waitpid(-1, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return False


def _keep(pid: int, status: socket.socket) -> None:
    """Tell the id of a child, then its exit code, and end."""
    status.send(str(pid).encode())
    status.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _become(arguments: list[str], env: dict[str, str], folder: str) -> None:
    """Take over what a new Python would have been given."""
    import numpy as np

    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.pycache_prefix = env.get("PYTHONPYCACHEPREFIX")
    start = folder if arguments[0].startswith("-") else os.path.dirname(arguments[0])
    path = [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [start, *path, *sys.path]
    importlib.invalidate_caches()
    np.random.seed()  # not the server's state in every program


def _start(arguments: list[str]) -> None:
    """Run a program as this process's main module."""
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    # Optimizers import the second at their first step, which takes as long as the first.
    import torch
    import torch._dynamo  # noqa: F401

    sys.path.pop(0)  # this file's folder
    _start(_serve(socket.socket(fileno=int(sys.argv[1]))))
