"""Checks of commands that a plugin adds to `reid`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from reidcore.plugins.commands import LoadedCommand
from reidcore.testing.failures import ConformanceError
from reidcore.testing.packages import HEAVY


def has_a_summary_and_help(command: LoadedCommand) -> None:
    """It has a summary, its reference resolves, and it adds arguments whose help can be shown."""
    if not command.command.summary:
        raise ConformanceError("it has no summary")
    parser = argparse.ArgumentParser(prog=f"reid {command.name}")
    run = command.arguments()(parser)
    if not callable(run):
        raise ConformanceError(
            f"{command.command.add} returned {run!r}, not the function that runs the command"
        )
    parser.format_help()  # fails where a text has a lone %


def help_is_its_own_and_imports_no_torch(command: LoadedCommand) -> None:
    """`reid NAME --help` in a fresh process shows what the plugin adds, so that nobody else has the
    name, and loads neither torch nor numpy."""
    asked = f"`reid {command.name} --help`"
    shown, heavy = _printed(
        "from reidcore.cli.main import main\n"
        f"try:\n    code = main([{command.name!r}, '--help'])\n"
        "except SystemExit as end:\n    code = end.code\n"
        f"print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    if heavy:
        raise ConformanceError(
            f"{asked} imports {' and '.join(heavy.split())}; import what needs it inside the "
            "function that runs the command"
        )
    own, _ = _printed(
        "import argparse, pkgutil\n"
        f"parser = argparse.ArgumentParser(prog='reid {command.name}', "
        f"description={command.command.summary!r})\n"
        f"pkgutil.resolve_name({command.command.add!r})(parser)\n"
        "parser.print_help()"
    )
    if shown != own:
        raise ConformanceError(f"{asked} shows another command: the name is the core's")


def _printed(code: str) -> tuple[str, str]:
    """Run code in a fresh process; return what it prints and its last line of errors. Raises
    ConformanceError if it fails."""
    path = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"],
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ConformanceError(done.stderr.strip())
    return done.stdout, (done.stderr.splitlines() or [""])[-1]
