"""What completes the arguments of commands, for `reid completion`. Torch-free."""

from __future__ import annotations

import contextlib
from argparse import Action, Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from argcomplete.completers import ChoicesCompleter, DirectoriesCompleter, FilesCompleter

from reidcore.errors import ReidError

Completer = Callable[..., Any]
FOLDERS = ("RUN_DIR", "DIR")
RUN_FILES = ("run", "check", "tune")
"""Commands whose FILE is a run file, which may be a packaged one."""


def completer(command: str, action: Action) -> Completer | None:
    """Return what completes an argument of a command, None for what argcomplete does by itself."""
    if action.metavar in FOLDERS:
        return DirectoriesCompleter()
    if action.dest == "name" and command in ("plugins", "test-plugin"):
        return plugin_names
    if action.metavar == "FILE" and not action.option_strings:
        return run_files if command in RUN_FILES else FilesCompleter(("toml",))
    return BY_DEST.get(action.dest)


def plugin_names(prefix: str, **_: Any) -> list[str]:
    """The names of all plugins."""
    from reidcore.plugins.loading import Plugins

    return Plugins().names()


def readers(prefix: str, **_: Any) -> dict[str, str]:
    """All readers with their summaries."""
    from reidcore.plugins.loading import Plugins

    return {one.name: one.component.summary for one in Plugins().components("reader")}


def run_files(prefix: str, **_: Any) -> list[str]:
    """TOML files below the current folder, and the packaged run files."""
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.packaged_runs import packaged_runs

    plugins = Plugins()
    own = [run.name for run in packaged_runs(plugins, "core")]
    others = [run.full_name for run in packaged_runs(plugins) if run.plugin != "core"]
    return [*FilesCompleter(("toml",))(prefix), *own, *others]


def run_keys(prefix: str, parsed_args: Namespace, **_: Any) -> dict[str, str]:
    """The keys that --set may change in the run file that is named before, with what they mean."""
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.packaged_runs import run_source
    from reidcore.runfiles.format import name_posts
    from reidcore.runfiles.tables import CORE_TABLES
    from reidcore.runfiles.toml_files import parse_toml

    file = getattr(parsed_args, "file", None)
    keys: dict[str, str] = {}
    for table, config in CORE_TABLES.items():
        keys.update(_keys(f"{table}.", config))
    plugins = Plugins()
    with contextlib.suppress(ReidError, LookupError, TypeError):  # a file that is not finished yet
        found = parse_toml(*run_source(str(file), plugins))
        name_posts(found)
        for role, kind, use in _parts(found):
            keys.update(_keys(f"{role}.", plugins.component(kind, use).component.config))
    return keys


BY_DEST: Mapping[str, Completer] = {
    "device": ChoicesCompleter(dict.fromkeys(("auto", "cpu", "cuda"), "")),
    "plugin": plugin_names,
    "read": readers,
    "sets": run_keys,
}


def _parts(table: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Yield where each part of a run file stands for --set, its kind and its component."""
    from reidcore.runfiles.keys import COMPONENT_TABLES, LISTS

    for where, kind in COMPONENT_TABLES.items():
        stated = table.get(where, [])
        for one in stated if where in LISTS else [stated] * bool(stated):
            yield f"{where}.{one['name']}" if where in LISTS else where, kind, one["use"]
    if "batch" in table["data"]:
        yield "data.batch", "sampler", table["data"]["batch"]["use"]


def _keys(prefix: str, config: type) -> dict[str, str]:
    from reidcore.plugins.settings_help import describe_settings

    return {f"{prefix}{one.key}=": f"{one.summary}. {one.doc}" for one in describe_settings(config)}
