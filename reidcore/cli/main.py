"""The command `reid`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from reidcore.cli.commands import CORE_NAMES, find_command, listing
from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.support.wording import in_words, readable
from reidcore.version import __version__

SHARED = ("run", "eval")
"""The commands whose work several processes of torchrun share."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0 fine, 2 the run file or command can cure it, 3 a
    plugin is broken, 4 data or weights are missing or damaged, 1 the rest."""
    code = _main(sys.argv[1:] if argv is None else list(argv))
    if os.environ.get("WORLD_SIZE", "1") != "1" and "torch" in sys.modules:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends one of several processes at once. Threads of torch's gloo that want the interpreter
    while it is taken down would abort it (seen in torch 2.15), and the whole job would fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(argv: list[str]) -> int:
    # Options of `reid` itself have no values, so the first word without a dash is the command.
    place = next((at for at, word in enumerate(argv) if not word.startswith("-")), len(argv))
    traceback = False
    try:
        parser = _own_parser()
        traceback = parser.parse_args(argv[:place]).traceback
        if place == len(argv):
            parser.error("name a COMMAND; `reid --help` lists them")
        code = _run(argv[place], argv[place + 1 :])
        sys.stdout.flush()
        return code
    except ReidError as error:
        if traceback:
            raise
        print(f"{_process()}error: {readable(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in `reid plugins | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted; continue a run with --resume", file=sys.stderr)
        return 130


def _run(name: str, arguments: Sequence[str]) -> int:
    """Finds the command, parses its arguments and runs it. An exception of a plugin's command that
    is no `ReidError` becomes a PluginError that names the plugin."""
    _yield_soon()
    _show_warnings_plainly()
    command = find_command(name)
    parser = _Parser(prog=f"reid {name}", description=command.command.summary)
    try:
        run = command.arguments()(parser)
        options = parser.parse_args(arguments)
        if name not in SHARED:
            _alone(name)
        return int(run(options))
    except (ReidError, BrokenPipeError):
        raise
    except Exception as error:
        if name in CORE_NAMES:
            raise
        raise PluginError(
            f"{command} failed: {in_words(error)}. `reid --traceback {name} ...` shows where."
        ) from error


class _Parser(argparse.ArgumentParser):
    """A parser whose errors do not quote values of thousands of characters."""

    def error(self, message: str) -> NoReturn:
        super().error(readable(message))


class _Help(argparse.Action):
    """Shows all commands, plugins' included, behind the options of `reid` itself."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(f"{parser.format_help()}\n{listing()}")
        print("\n`reid COMMAND --help` tells more of each.")
        parser.exit()


def _own_parser() -> argparse.ArgumentParser:
    """The options that stand before the command."""
    parser = _Parser(
        prog="reid",
        usage="reid [-h] [--version] [--traceback] COMMAND ...",
        description="Object re-identification from run files and plugins.",
        add_help=False,
    )
    parser.add_argument(
        "-h", "--help", action=_Help, nargs=0, help="show all commands, plugins' included"
    )
    parser.add_argument("--version", action="version", version=f"reidcore {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error arose"
    )
    return parser


def _process() -> str:
    """The words before an error that say which of several processes of torchrun speaks."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "


def _yield_soon() -> None:
    """Lets torch's threads, once it is imported, wait for each other by spinning 15 us, not 5 ms:
    where cores are shared with reading threads or other programs, steps are many times faster."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _show_warnings_plainly() -> None:
    import warnings

    def show(message: Any, category: Any, *_: Any, **__: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    warnings.simplefilter("default", FutureWarning)
    warnings.showwarning = show


def _alone(command: str) -> None:
    """Refuses to do in each of several processes what is work for one."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise UsageError(
            f"`reid {command}` works in one process, and torchrun has started {count} "
            "(WORLD_SIZE); several processes share the work of `reid run` and `reid eval`"
        )
