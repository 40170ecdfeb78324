"""Ctrl-C at any moment of the command `reid`: one line, and exit code 130.

An interrupt may fall into an import, where C code makes an ImportError of it, or into a callback,
whose exceptions Python prints and forgets. So it is remembered, and raised again.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
from typing import Any

INTERRUPTED = 130
"""The exit code after Ctrl-C: that of shells for SIGINT."""


class _Seen:
    """Whether Ctrl-C was pressed since the process began to watch for it."""

    yes = False


def watch() -> None:
    """Remember Ctrl-C from now on, and raise it again where a callback has swallowed it.

    Where SIGINT is ignored, as for a job in the background of a script, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)
        sys.unraisablehook = _raise_again


def seen() -> bool:
    """Return whether Ctrl-C was pressed, so that an error may be its consequence."""
    return _Seen.yes


def ignore() -> None:
    """Let Ctrl-C do nothing from now on: all that is left is to end."""
    if seen() or signal.getsignal(signal.SIGINT) is _remember:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def tell(command: str = "") -> int:
    """Print the line that the user gets, and return the exit code."""
    ignore()
    hint = "; continue the run with --resume" if command == "run" else ""
    with contextlib.suppress(OSError):
        print(f"interrupted{hint}", file=sys.stderr)
    # An interrupt that has left an `exec` of text counts as unhandled until the next `exec`, and
    # Python would kill itself at its end.
    exec("pass")
    return INTERRUPTED


def _remember(number: int, frame: Any) -> None:
    _Seen.yes = True
    if _imports_torch():
        os._exit(tell())  # an exception in the midst of torch's C++ code could abort Python
    raise KeyboardInterrupt


def _imports_torch() -> bool:
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _raise_again(unraisable: Any) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt_soon, ())
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt_soon() -> None:
    time.sleep(0.01)  # in this hook it would be swallowed once more
    _thread.interrupt_main()
