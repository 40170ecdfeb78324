"""The commands of `reid`: the core's own, those that plugins bring, and how one is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reidcore.contracts.commands import Command
from reidcore.errors import PluginError, UsageError, nearest
from reidcore.support.installing import how_to_install
from reidcore.support.wording import few, one_line_of

if TYPE_CHECKING:
    from reidcore.plugins.commands import LoadedCommand
    from reidcore.plugins.loading import Plugins

COMMANDS = (
    Command(
        "run", "reidcore.cli.run:add_arguments", "train and evaluate what a run file describes"
    ),
    Command("check", "reidcore.cli.check:add_arguments", "check a run file without training"),
    Command("eval", "reidcore.cli.eval:add_arguments", "evaluate a trained run"),
    Command(
        "runs",
        "reidcore.cli.runs:add_arguments",
        "list or copy the run files that come with plugins",
    ),
    Command(
        "compare",
        "reidcore.cli.compare:add_arguments",
        "put the scores of several runs side by side",
    ),
    Command(
        "rank",
        "reidcore.cli.rank:add_arguments",
        "rank unlabelled pictures by a trained run",
    ),
    Command(
        "index",
        "reidcore.cli.index:add_arguments",
        "keep the templates of a gallery for later ranking",
    ),
    Command(
        "explain", "reidcore.cli.explain:add_arguments", "draw why a trained run matches pictures"
    ),
    Command(
        "plugins",
        "reidcore.cli.plugins:add_arguments",
        "list installed plugins, or one plugin's components, commands and settings",
    ),
    Command(
        "new-plugin",
        "reidcore.cli.new_plugin:add_arguments",
        "write the package of a new plugin, which works as it is",
    ),
    Command(
        "test-plugin",
        "reidcore.cli.test_plugin:add_arguments",
        "check that a plugin keeps what plugins promise",
    ),
    Command("data", "reidcore.cli.data:add_arguments", "list, check or make a data set"),
    Command(
        "schema",
        "reidcore.cli.schema:add_arguments",
        "print the JSON schema of run files, for editors",
    ),
    Command(
        "completion",
        "reidcore.cli.completion:add_arguments",
        "print the script by which a shell completes `reid`",
    ),
)
CORE_NAMES = frozenset(command.name for command in COMMANDS)
ELSEWHERE = {
    name: (name, f"reidcore[{name}]") for name in ("export", "gallery", "release", "report", "tune")
}
"""Commands of known plugins that may not be installed: {command: (plugin, what pip installs)}."""


def find_command(name: str, plugins: Plugins | None = None) -> LoadedCommand:
    """Return the command `name` with who brings it.

    Plugins are imported only for a name that is none of the core's. Raises UsageError for a name
    that nobody brings, PluginError for one that several plugins bring or whose plugin is broken.
    """
    from reidcore.plugins.commands import LoadedCommand
    from reidcore.plugins.finding import CORE
    from reidcore.plugins.loading import Plugins

    for command in COMMANDS:
        if command.name == name:
            return LoadedCommand(CORE, command)
    plugins = plugins or Plugins()
    loaded = plugins.commands()
    found = [one for one in loaded if one.name == name]
    if len(found) > 1:
        raise PluginError(_clash(name, found))
    if found:
        return found[0]
    if name in ELSEWHERE:
        plugin, package = ELSEWHERE[name]
        if plugin in plugins.names():
            plugins.load(plugin)  # says what is wrong with it
        raise UsageError(
            f"`reid {name}` is a command of the plugin {plugin!r}, which is not installed. "
            f"To install it: {how_to_install(package)}"
        )
    known = [*CORE_NAMES, *ELSEWHERE, *(one.name for one in loaded)]
    text = f"there is no command {one_line_of(repr(name))}{nearest(name, known) or '.'} "
    if unusable := unusable_plugins(plugins):
        text += f"Plugins that cannot be used, with whatever commands they have: {unusable}. "
    raise UsageError(f"{text}`reid --help` lists all commands.")


def _clash(name: str, commands: Sequence[LoadedCommand]) -> str:
    owners = " and by ".join(str(one.found) for one in commands)
    cure = "uninstall one" if len(commands) == 2 else "keep one of them"
    return f"command {name!r} is brought by {owners}; {cure}."


def refused_commands(commands: Sequence[LoadedCommand]) -> Iterator[str]:
    """Yield a sentence for every name that cannot be used as a plugin would have it."""
    by_name: dict[str, list[LoadedCommand]] = {}
    for one in commands:
        by_name.setdefault(one.name, []).append(one)
    for name, owners in by_name.items():
        if name in CORE_NAMES:
            for one in owners:
                yield f"command {name!r} is reidcore's own; plugin {one.found} cannot replace it."
        elif len(owners) > 1:
            yield _clash(name, owners)


def unusable_plugins(plugins: Plugins) -> str:
    """Return the names of the plugins beside the core that cannot be used, with commas."""
    others = (plugins.status(name) for name in plugins.names() if name != "core")
    return few([status.name for status in others if status.plugin is None], 12)


def listing() -> str:
    """Return all commands with their summaries, grouped by who brings them, for `reid --help`."""
    from reidcore.plugins.commands import LoadedCommand
    from reidcore.plugins.finding import CORE
    from reidcore.plugins.loading import Plugins

    plugins = Plugins()
    loaded = plugins.commands()
    groups = {"commands": [LoadedCommand(CORE, one) for one in COMMANDS]}
    for one in loaded:
        if one.name not in CORE_NAMES:
            title = f"commands of {one.found.name} ({one.found.distribution})"
            groups.setdefault(title, []).append(one)
    notes = list(refused_commands(loaded))
    if unusable := unusable_plugins(plugins):
        notes.append(f"plugins that cannot be used, see `reid plugins`: {unusable}")
    width = max(len(one.name) for commands in groups.values() for one in commands)
    blocks = [
        "\n".join(
            [f"{title}:", *(f"  {one.name:{width}}  {one.summary}".rstrip() for one in commands)]
        )
        for title, commands in groups.items()
    ]
    return "\n\n".join([*blocks, *(f"note: {note}" for note in notes)])
