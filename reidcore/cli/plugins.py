"""`reid plugins [NAME]`: which plugins are installed, how they stand, what is in them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable
from typing import Any

from reidcore.cli.as_json import add_json, print_json
from reidcore.cli.commands import refused_commands
from reidcore.contracts.commands import RunCommand
from reidcore.plugins.finding import CORE
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.plugins.plugin_status import LoadedPlugin, Status
from reidcore.plugins.registration import KINDS, LoadedComponent
from reidcore.plugins.settings_help import describe_settings
from reidcore.support.wording import readable

SLOW = 0.5
"""Seconds of importing a plugin from which on its listing says so."""
HEADER = ("PLUGIN", "DISTRIBUTION", "STATUS", "COMPONENTS")


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Without NAME: every installed plugin and how it stands. With NAME: the plugin's "
        "components, with their settings, defaults and documentation, and its commands."
    )
    add_json(parser, "; docs/contracts.md describes its form")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a plugin, such as core")
    return plugins_command


def plugins_command(options: Namespace) -> int:
    """`reid plugins [NAME]`; returns 0 or raises `ReidError`.

    A plugin that cannot be used is a row of the listing, and an error only where it is named.
    """
    plugins = Plugins()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if options.json:
        print_json(_as_data(plugins, options.name))
        return 0
    if options.name is None:
        lines = listing(plugins.rows(), width)
        for note in _notes(plugins):
            lines += _wrapped(f"note: {note}", width)
    else:
        lines = details(plugins.load(options.name), width)
    print("\n".join(lines))
    return 0


def _as_data(plugins: Plugins, name: str | None) -> Any:
    from reidcore.plugins.listing import plugin_listing

    if name is None:
        rows, notes = plugins.rows(), _notes(plugins)
    else:
        plugins.load(name)
        rows, notes = [plugins.status(name)], []
    return plugin_listing(plugins, rows, notes)


def _notes(plugins: Plugins) -> list[str]:
    """Sentences on what is wrong beside whole plugins, or slow."""
    notes = list(refused_commands(plugins.commands()))
    notes += [f"plugin {run.problem}" for run in packaged_runs(plugins) if run.problem]
    for name in plugins.names():
        plugin = plugins.status(name).plugin
        if plugin is not None and name != CORE.name and (slow := _slowness(plugin)):
            notes.append(f"plugin {plugin.found}: {slow}")
    return notes


def _slowness(plugin: LoadedPlugin) -> str:
    """Why listing a plugin takes long, empty if it does not."""
    if plugin.imports_torch:
        return "listing this plugin imports torch, which takes seconds"
    if plugin.seconds >= SLOW:
        return f"importing this plugin takes {plugin.seconds:.1f} s, and so does listing it"
    return ""


def listing(rows: Iterable[Status], width: int | None = None) -> list[str]:
    """One row per plugin, as text lines; `width` wraps the last column."""
    cells = [HEADER, *((row.name, _origin(row), row.state, _content(row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = []
    for row in cells:
        start = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=False)) + "  "
        lines += _wrapped(row[3], width, start, " " * len(start))
    return lines


def details(plugin: LoadedPlugin, width: int | None = None) -> list[str]:
    """Everything that a user of the plugin can write into a run file, as text lines."""
    found = plugin.found
    lines = [f"{found.name}: {found.distribution} {found.version}, module {found.value}"]
    if plugin.observes:
        lines += _wrapped(f"observes: {', '.join(plugin.observes)}", width)
    if plugin.settings is not None:
        lines += ["", f"[{found.name}]"]
        if words := " ".join((plugin.settings.__doc__ or "").split()):
            lines += _wrapped(words, width, "    ")
        lines += _settings(plugin.settings, width)
    if slow := _slowness(plugin):
        lines += _wrapped(f"note: {slow}", width)
    for kind, rule in KINDS.items():
        of_kind = [one for one in plugin.components if one.kind == kind]
        if of_kind:
            lines += ["", rule.plural.upper()]
        for component in of_kind:
            lines += ["", *_component(component, width)]
    if plugin.weights:
        lines += ["", "WEIGHTS"]
    for published in plugin.weights:
        one = published.weights
        lines += ["", f'  weights = "{published.name}"']
        for text in (one.summary, one.paper and f"Paper: {one.paper}", f"Licence: {one.licence}"):
            lines += _wrapped(text, width, "    ", "      ") if text else []
        lines += [f"    {one.url}"]
    if plugin.commands:
        lines += ["", "COMMANDS"]
    for command in plugin.commands:
        lines += ["", f"  reid {command.name}"]
        if command.summary:
            lines += _wrapped(command.summary, width, "    ")
    return lines


def _component(loaded: LoadedComponent, width: int | None) -> Iterable[str]:
    component = loaded.component
    yield f"  {loaded.name}"
    if component.summary:
        yield from _wrapped(component.summary, width, "    ")
    if component.paper:
        yield from _wrapped(f"Paper: {component.paper}", width, "    ", "      ")
    if component.deprecated:
        yield from _wrapped(f"Deprecated: {component.deprecated}", width, "    ", "      ")
    yield from _settings(component.config, width)


def _settings(config: type, width: int | None) -> Iterable[str]:
    settings = describe_settings(config)
    indent = max((len(setting.key) for setting in settings), default=0) + 8
    for setting in settings:
        start = f"      {setting.key}".ljust(indent)
        yield from _wrapped(setting.summary, width, start, " " * indent)
        if setting.doc:
            yield from _wrapped(setting.doc, width, " " * (indent + 2))


def _origin(row: Status) -> str:
    # A distribution that speaks two APIs has two entries.
    origins = dict.fromkeys(f"{one.distribution} {one.version}" for one in row.found)
    return ", ".join(origins)


def _content(row: Status) -> str:
    if row.plugin is None:
        return readable(row.message)
    counts = Counter(one.kind for one in row.plugin.components)
    parts = [
        f"{counts[kind]} {kind if counts[kind] == 1 else rule.plural}"
        for kind, rule in KINDS.items()
        if counts[kind]
    ]
    if weights := len(row.plugin.weights):
        parts.append(f"{weights} {'file' if weights == 1 else 'files'} of weights")
    if commands := len(row.plugin.commands):
        parts.append("1 command" if commands == 1 else f"{commands} commands")
    if row.plugin.observes:
        parts.append("observer")
    return ", ".join(parts) or "none"


def _wrapped(
    text: str, width: int | None, start: str = "", following: str | None = None
) -> list[str]:
    """Lines of `text` within `width` columns, or one line where there is no terminal."""
    following = start if following is None else following
    text = " ".join(text.split())
    if width is None:
        return [(start + text).rstrip()]
    if width - len(following) < 30:
        # No room beside what stands before it: below, slightly indented.
        return [start.rstrip(), *_wrapped(text, max(width, 40), "    ")]
    return textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]
