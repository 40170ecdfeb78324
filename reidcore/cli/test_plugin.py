"""`reid test-plugin NAME`: the conformance kit without pytest, as a report to read."""

from __future__ import annotations

import sys
import textwrap
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections import Counter
from functools import partial
from typing import Any

from reidcore.cli.as_json import add_json, print_json
from reidcore.contracts.commands import RunCommand

FAILED = 3
"""Exit code where a check fails: an installed plugin is broken."""


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Runs every check of reidcore.testing on an installed plugin: its packaging, its "
        "components in their samples, its commands, and its run files. "
        "`reid --traceback test-plugin NAME` shows where in the code a check fails."
    )
    parser.add_argument("name", metavar="NAME", help="a plugin, such as qaconv")
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="checks with this in their name, such as a component's name or 'run file'",
    )
    add_json(parser, ", at the end; the report goes to stderr")
    return run_checks


def run_checks(options: Namespace) -> int:
    """Prints a line for every check as it ends; returns 0, or 3 if one fails."""
    from reidcore.errors import UsageError
    from reidcore.testing.checks import iter_checks
    from reidcore.testing.failures import ConformanceError, NotChecked

    checks = [check for check in iter_checks(options.name) if options.only in check.name]
    if not checks:
        raise UsageError(f"no check of {options.name} has {options.only!r} in its name")
    say = partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
    found: list[dict[str, Any]] = []
    subject = ""
    for check in checks:
        about, _, promise = check.name.partition(": ")
        if about != subject:
            subject = about
            say(subject)
        start = time.monotonic()
        cause: BaseException | None = None
        try:
            check()
            state, text = "ok", ""
        except ConformanceError as error:
            state, text = "FAILED", str(error).removeprefix(f"{check.name}: ")
            cause = error.__cause__ or error.__context__
        except NotChecked as error:
            state, text = "skip", str(error).removeprefix(f"{check.name}: ")
        seconds = round(time.monotonic() - start, 3)
        found.append(
            {"of": about, "check": promise, "state": state, "message": text, "seconds": seconds}
        )
        say(f"  {state:6} {promise} ({seconds:.1f} s)")
        if text:
            say(textwrap.fill(text, 96, initial_indent=" " * 9, subsequent_indent=" " * 9))
        if cause is not None and getattr(options, "traceback", False):
            shown = "".join(traceback.format_exception(cause))
            say(textwrap.indent(shown, " " * 9))
    counts = Counter(one["state"] for one in found)
    skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
    say(f"{len(checks)} checks, {counts['FAILED']} failed{skipped}")
    if options.json:
        print_json(found)
    return FAILED if counts["FAILED"] else 0
