"""Pages of the site that are made from the code: the doors, the commands, settings of plugins."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from generate import components

DOORS = (
    "reidcore",
    "reidcore.api",
    "reidcore.modules",
    "reidcore.networks",
    "reidcore.tools",
    "reidcore.testing",
    "reidcore.errors",
    "reidcore.sizes",
    "reidcore.hookspecs",
)
"""What programs and plugins import."""

FRONT = "---\nsearch:\n  boost: 0.5\n---\n\n"
"""Hand-written pages come first in searches."""


def door_page(door: str) -> str:
    """Return the page of a door: its docstring, and all that it names in `__all__`."""
    module = importlib.import_module(door)
    names = getattr(module, "__all__", None) or own_names(door)
    about = f"""# `{door}`

::: {door}
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""
    shown = [name for name in names if not name.startswith("__")]
    return FRONT + about + "".join(f"\n::: {door}.{name}\n" for name in shown)


def own_names(door: str) -> list[str]:
    """Return the public classes and functions that a module without `__all__` defines."""
    module = importlib.import_module(door)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == door
    ]


def settings_of(plugin: str) -> str:
    """Return the part on the settings of a plugin's components, "" where it has none."""
    text = components(plugin)
    return f"\n## Settings of components\n\n{text}" if text else ""


def commands_page() -> str:
    """Return the page of the command `reid`: the help of every command, and of those inside it."""
    text = [FRONT, "# Commands\n\nWhat `reid --help` prints, and `--help` of every command.\n"]
    overview = help_of()
    text.append(f"```text\n{overview}\n```\n")
    for name in command_names(overview):
        own = help_of(name)
        text.append(f"## `reid {name}`\n\n```text\n{own}\n```\n")
        for inner in inner_commands(own):
            text.append(f"### `reid {name} {inner}`\n\n```text\n{help_of(name, inner)}\n```\n")
    return "\n".join(text)


def command_names(overview: str) -> list[str]:
    """Return the commands that the help lists: those that are indented by two places."""
    lines = [line for line in overview.splitlines() if line.startswith("  ") and line[2:3] != " "]
    return [line.split()[0] for line in lines if not line.lstrip().startswith("-")]


def inner_commands(text: str) -> list[str]:
    """Return the commands of a command, which its help lists below COMMAND."""
    listed = text.partition("\n  COMMAND\n")[2].partition("\n\n")[0]
    lines = [line[4:] for line in listed.splitlines()]
    return [line.split()[0] for line in lines if line and line[0] != " "]


def help_of(*command: str) -> str:
    """Return what the help of a command prints in a terminal of 90 columns."""
    done = subprocess.run(
        [sys.executable, "-m", "reidcore", *command, "--help"],
        env={**os.environ, "COLUMNS": "90", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
