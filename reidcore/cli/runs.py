"""The command `reid runs`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.cli.as_json import add_json, print_json
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "List the run files that come with the core and with installed plugins. "
        "`reid run PLUGIN:NAME` runs one."
    )
    parser.add_argument("plugin", nargs="?", metavar="PLUGIN")
    parser.add_argument("--copy", metavar="NAME", help="write PLUGIN:NAME into the current folder")
    add_json(parser)
    return runs_command


def runs_command(options: Namespace) -> int:
    """`reid runs`; returns 0 or raises `ReidError`."""
    from reidcore.errors import UsageError
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.packaged_runs import find_packaged, packaged_runs
    from reidcore.support.files import write_atomically

    plugins = Plugins()
    if options.copy:
        name = options.copy if options.plugin is None else f"{options.plugin}:{options.copy}"
        run = find_packaged(name, plugins)
        target = Path(f"{run.name}.toml")
        if target.exists():
            raise UsageError(f"{target.absolute()} exists already; move it away first")
        write_atomically(target, run.text)
        print(f"wrote {target}")
        return 0
    found = list(packaged_runs(plugins, options.plugin))
    if options.json:
        print_json(
            [
                {"name": run.full_name, "summary": run.summary, "problem": run.problem}
                for run in found
            ]
        )
        return 0
    width = max((len(run.full_name) for run in found), default=0)
    for run in found:
        print(f"{run.full_name:{width}}  {run.summary}".rstrip())
    if not found:
        print(f"plugin {options.plugin!r} has no run files")
    return 0
