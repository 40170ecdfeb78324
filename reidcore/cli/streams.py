"""The standard streams of the command `reid`: closed, full, or with a reader that has gone."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from reidcore.errors import OutputError
from reidcore.support.wording import readable


class _Output(io.TextIOWrapper):
    """Standard output, which raises OutputError where it takes no more. A reader that has gone
    stays a BrokenPipeError."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _said(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _said(error) from error


def _said(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return OutputError(f"the output could not be written: {error.strerror or error}")


def prepare_streams() -> None:
    """Make output possible where a stream is closed, or has no character for what is printed."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        old = sys.stdout
        settings = old.encoding, old.errors, None, old.line_buffering, old.write_through
        sys.stdout = _Output(old.detach(), *settings)


def flush() -> None:
    """Write what standard output holds back. Raises OutputError where it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, OutputError) as error:
        drop(sys.stdout)
        raise error if isinstance(error, OutputError) else _said(error) from error


def flush_at_end() -> int:
    """Write what standard output holds back; return 0, or the exit code where it cannot be
    written."""
    try:
        flush()
    except BrokenPipeError:
        return no_reader()
    except OutputError as error:
        tell(str(error))
        return error.exit_code
    return 0


def no_reader() -> int:
    """Return the exit code where the reader of our output has gone, as in `reid plugins | head`."""
    drop(sys.stdout)
    return 1


def drop(stream: TextIO) -> None:
    """Let what a stream holds back go nowhere, so that nothing fails when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(text: str) -> None:
    """Print an error, unless nothing can be printed."""
    count = os.environ.get("WORLD_SIZE", "1")
    process = "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "
    try:
        print(f"{process}error: {readable(text)}", file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)
