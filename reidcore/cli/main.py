"""The command `reid`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from reidcore.cli.check import _check
from reidcore.cli.data import _data_demo
from reidcore.cli.evaluate import _eval
from reidcore.cli.options import _evaluation_argument, _file_argument, _set_argument
from reidcore.cli.runs import _runs
from reidcore.errors import ReidError
from reidcore.version import __version__

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0 fine, 2 the run file or command can cure it, 3 a
    plugin is broken, 4 data or weights are missing or damaged, 1 the rest."""
    code = _main(argv)
    if os.environ.get("WORLD_SIZE", "1") != "1" and "torch" in sys.modules:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends one of several processes at once. Threads of torch's gloo that want the interpreter
    while it is taken down would abort it (seen in torch 2.15), and the whole job would fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    _yield_soon()
    _show_warnings_plainly()
    try:
        if options.command not in ("run", "eval"):
            _alone(options.command)
        code = int(options.func(options))
        sys.stdout.flush()
        return code
    except ReidError as error:
        if options.traceback:
            raise
        print(f"{_process()}error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in `reid plugins | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted; continue a run with --resume", file=sys.stderr)
        return 130


def _process() -> str:
    """Which process speaks, where torchrun has started several."""
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


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="reid", description="Object re-identification from run files and plugins."
    )
    parser.add_argument("--version", action="version", version=f"reidcore {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error arose"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )

    from reidcore.cli import run as run_cli

    run_cli.add_parser(commands, _file_argument)
    check = commands.add_parser(
        "check",
        help="check a run file without training",
        description="Check a run file: its keys, how its parts fit together and, by a dry run on "
        "a random batch, that they do what they promise. Prints the plan.",
    )
    _file_argument(check)
    check.add_argument(
        "--no-dry", action="store_true", help="only keys and wiring, without importing torch"
    )
    check.set_defaults(func=_check)

    evaluation = commands.add_parser(
        "eval",
        help="evaluate a trained run",
        description="Evaluate a run folder's weights on its test sets, or as FILE says. Loads only "
        "what its rankings reach, so plugins that only train may be missing.",
    )
    evaluation.add_argument("folder", type=Path, metavar="RUN_DIR")
    _evaluation_argument(evaluation)
    _set_argument(evaluation)
    evaluation.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write scores as JSON"
    )
    evaluation.set_defaults(func=_eval)

    runs = commands.add_parser(
        "runs",
        help="list or copy the run files that come with plugins",
        description="List the run files that come with the core and with installed plugins. "
        "`reid run PLUGIN:NAME` runs one.",
    )
    runs.add_argument("plugin", nargs="?", metavar="PLUGIN")
    runs.add_argument("--copy", metavar="NAME", help="write PLUGIN:NAME into the current folder")
    runs.set_defaults(func=_runs)

    from reidcore.cli import compare, new_plugin
    from reidcore.cli import conformance as testing_cli
    from reidcore.cli import data as data_cli
    from reidcore.cli import explain as explain_cli
    from reidcore.cli import plugins as plugins_cli
    from reidcore.cli import report as report_cli
    from reidcore.cli import search as search_cli

    compare.add_parser(commands)
    search_cli.add_parsers(commands, _evaluation_argument)
    explain_cli.add_parser(commands, _evaluation_argument)
    report_cli.add_parser(commands)
    plugins_cli.add_parser(commands)
    new_plugin.add_parser(commands)
    testing_cli.add_parser(commands)
    data = data_cli.add_parser(commands)
    demo = data.add_parser(
        "demo", help="draw the demo data set", description="Draw the demo data set into a folder."
    )
    demo.add_argument("folder", type=Path, metavar="FOLDER")
    demo.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of core.demo, such as seed=1; see reid plugins core",
    )
    demo.set_defaults(func=_data_demo)
    return parser


def _alone(command: str) -> None:
    """Refuses to do in each of several processes what is work for one."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        from reidcore.errors import UsageError

        raise UsageError(
            f"`reid {command}` works in one process, and torchrun has started {count} "
            "(WORLD_SIZE); several processes share the work of `reid run` and `reid eval`"
        )
