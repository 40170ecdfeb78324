"""The command `reid`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from reidcore.cli import interrupts
from reidcore.cli.commands import CORE_NAMES, find_command, listing
from reidcore.cli.streams import flush, flush_at_end, no_reader, tell
from reidcore.errors import DataError, PluginError, ReidError, UsageError
from reidcore.plugins.finding import plugin_at_fault
from reidcore.support.author_code import with_place
from reidcore.support.too_much import is_too_much
from reidcore.support.wording import a_or_an, in_words, readable, shortened
from reidcore.version import __version__

if TYPE_CHECKING:
    from reidcore.contracts.commands import RunCommand
    from reidcore.plugins.commands import LoadedCommand

SHARED = ("run", "eval")
"""The commands whose work several processes of torchrun share."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0 fine, 2 the run file or command can cure it, 3 a
    plugin is broken, 4 data or weights are missing or damaged, 1 the rest."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks
        from reidcore.cli.completion import complete

        return complete()
    code = _main(sys.argv[1:] if argv is None else list(argv))
    if os.environ.get("WORLD_SIZE", "1") != "1" and "torch" in sys.modules:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends one of several processes at once. Threads of torch's gloo that want the interpreter
    while it is taken down would abort it (seen in torch 2.15), and the whole job would fail."""
    code = flush_at_end() or code
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _main(argv: list[str]) -> int:
    # Options of `reid` itself have no values, so the first word without a dash is the command.
    place = next((at for at, word in enumerate(argv) if not word.startswith("-")), len(argv))
    command = argv[place] if place < len(argv) else ""
    traceback = False
    try:
        parser = _own_parser()
        traceback = parser.parse_args(argv[:place]).traceback
        if place == len(argv):
            parser.error("name a COMMAND; `reid --help` lists them")
        code = _run(command, argv[place + 1 :], traceback)
        flush()
        return code
    except SystemExit as end:
        # What `--help` and `--version` print may have no reader either.
        code = flush_at_end()
        if code:
            return code
        raise end
    except ReidError as error:
        if interrupts.seen():
            return interrupts.tell(command)
        if traceback:
            raise
        tell(str(error))
        return flush_at_end() or error.exit_code
    except BrokenPipeError:
        return no_reader()
    except OSError as error:
        if traceback:
            raise
        unreadable = _unreadable(error)
        tell(f"{'cannot read ' * unreadable}{_of_system(error)}")
        return flush_at_end() or (DataError.exit_code if unreadable else 1)
    except KeyboardInterrupt:
        return interrupts.tell(command)


def _of_system(error: OSError) -> str:
    """A full disk, a missing permission and their like, in a sentence."""
    why = error.strerror or str(error) or type(error).__name__
    try:
        os.getcwd()
    except OSError:
        why = "the current folder has gone"
    named = isinstance(error.filename, str | bytes)
    where = f"{os.fsdecode(error.filename)}: " if named else ""
    return f"{where}{why}. `reid --traceback ...` shows where in the code."


def _unreadable(error: OSError) -> bool:
    """Return True if the file or folder that an error names is there and cannot be read, so that it
    was to be read, not written."""
    if not isinstance(error.filename, str | bytes):
        return False
    try:
        handle = os.open(error.filename, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    os.close(handle)
    return False


def _run(name: str, arguments: Sequence[str], traceback: bool) -> int:
    """Finds the command, parses its arguments and runs it. What the code of a plugin raises that is
    no `ReidError` becomes a PluginError that names the plugin."""
    _yield_soon()
    _show_warnings_plainly()
    command = find_command(name)
    # argparse takes %(prog)s in a description for itself.
    parser = _Parser(prog=f"reid {name}", description=command.summary.replace("%", "%%"))
    parser.set_defaults(traceback=traceback)
    try:
        run = _added(command, parser)
        own = {"traceback": traceback} if name in CORE_NAMES else {}
        options = parser.parse_args(arguments, argparse.Namespace(**own))
        if name not in SHARED:
            _alone(name)
        return _exit_code(command, run(options))
    except SystemExit as end:
        # The parser's, or the command's own, as `parser.error` raises it.
        if end.code is not None and not isinstance(end.code, str):
            _exit_code(command, end.code)
        raise
    except (ReidError, OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if name in CORE_NAMES and is_too_much(error, {}):
            raise UsageError(
                f"there is not enough memory: {shortened(in_words(error), 300)}. Lower eval.batch, "
                "eval.memory or data.image, or take fewer pictures."
            ) from error
        plugin = plugin_at_fault(error) if name in CORE_NAMES else None
        if name in CORE_NAMES and plugin is None:
            raise
        raise PluginError(
            f"{f'plugin {plugin}' if plugin else command} failed: {with_place(error)}. "
            f"`reid --traceback {name} ...` shows where."
        ) from error


def _added(command: LoadedCommand, parser: argparse.ArgumentParser) -> RunCommand:
    """Lets the command add its arguments. Returns what runs it."""
    # What a plugin prints while it is imported must not stand in a command's output.
    with contextlib.redirect_stdout(sys.stderr):
        add = command.arguments()
    try:
        run = add(parser)
    except SystemExit as error:
        raise PluginError(
            f"{command} has an `add` that ends the program: {in_words(error)}."
        ) from error
    if not callable(run):
        raise PluginError(
            f"{command} has an `add` that returns {a_or_an(type(run).__name__)}, not the function "
            "that runs the command."
        )
    return run


def _exit_code(command: LoadedCommand, code: object) -> int:
    """The number, if it is an exit code."""
    if type(code) is int and 0 <= code <= 255:
        return code
    found = str(code) if type(code) is int else a_or_an(type(code).__name__)
    raise PluginError(
        f"{command} returned {found}, not an exit code, an int of 0 to 255; a command that went "
        "well returns 0."
    )


class _Parser(argparse.ArgumentParser):
    """A parser whose errors do not quote values of thousands of characters, and in which options
    may stand among words of which there may be several or none: argparse ends these at an option.
    """

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._intermixing or not self._may_intermix():
            return super().parse_known_args(args, namespace)
        self._intermixing = True  # until then: it asks this method for each kind
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False

    def _may_intermix(self) -> bool:
        """Return True if there are such words, and none of a kind for which argparse refuses it."""
        words = [action for action in self._actions if not action.option_strings]
        grouped = [one for group in self._mutually_exclusive_groups for one in group._group_actions]
        return (
            any(word.nargs in ("?", "*", "+") for word in words)
            and not any(word.nargs in (argparse.PARSER, argparse.REMAINDER) for word in words)
            and not any(word in grouped for word in words)
        )

    def _get_nargs_pattern(self, action: argparse.Action) -> str:
        # While argparse looks for options, words have no values. Its own pattern takes `--` along
        # all the same, so that words behind it that begin with a dash would become options.
        if action.nargs == argparse.SUPPRESS and not action.option_strings:
            return "()"
        return super()._get_nargs_pattern(action)

    def error(self, message: str) -> NoReturn:
        super().error(readable(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse would hide that it could not be written.
        if message:
            (file or sys.stderr).write(message)


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
