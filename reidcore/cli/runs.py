"""The command `reid runs`."""

from __future__ import annotations

import argparse
from pathlib import Path


def _runs(options: argparse.Namespace) -> int:
    from reidcore.errors import UsageError
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.run_files import find_packaged, packaged_runs
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
    width = max((len(run.full_name) for run in found), default=0)
    for run in found:
        print(f"{run.full_name:{width}}  {run.summary}".rstrip())
    if not found:
        print(f"plugin {options.plugin!r} has no run files")
    return 0
