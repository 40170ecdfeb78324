"""Commands that plugins add to `reid`: what makes one well formed, and how it is imported."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable
from typing import Any

import attrs

from reidcore.contracts.commands import AddArguments, Command
from reidcore.errors import PluginError, ReidError
from reidcore.plugins.registration import COMMANDS_HOOK, REFERENCE, Found, named_by_hook
from reidcore.support.author_code import with_place
from reidcore.support.wording import a_or_an, shortened

LONGEST_SUMMARY = 200
"""Characters of a summary that listings show."""
NAME = re.compile(r"[a-z][a-z0-9-]*")


@attrs.frozen
class LoadedCommand:
    """A command with the plugin that brings it."""

    found: Found
    command: Command

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def summary(self) -> str:
        """What the command does, in one line."""
        return shortened(" ".join(self.command.summary.split()), LONGEST_SUMMARY)

    def __str__(self) -> str:
        return f"command {self.name!r} of plugin {self.found}"

    def arguments(self) -> AddArguments:
        """The function that the command names, imported now. Raises PluginError if it cannot be."""
        reference = self.command.add
        try:
            function = pkgutil.resolve_name(reference)
        except (KeyboardInterrupt, ReidError):
            raise
        except BaseException as error:
            raise PluginError(
                f"{self} names the function {reference!r}, which could not be imported: "
                f"{with_place(error)}."
            ) from error
        if not callable(function):
            raise PluginError(
                f"{self} names the function {reference!r}, which cannot be called: it is "
                f"{a_or_an(type(function).__name__)}."
            )
        return function


def registered_commands(found: Found, module: Any) -> tuple[LoadedCommand, ...]:
    """The commands of an imported plugin whose hooks are known to be sound, by name.

    Raises Refused with everything that is wrong with them.
    """
    every = named_by_hook(found, module, COMMANDS_HOOK, Command, "commands", _problems)
    return tuple(LoadedCommand(found, one) for one in every)


def _problems(command: Command) -> Iterable[str]:
    what = f"command {command.name!r}"
    if not isinstance(command.name, str) or not NAME.fullmatch(command.name):
        yield f"{what} has a name that does not match {NAME.pattern}"
    if not isinstance(command.add, str) or not REFERENCE.fullmatch(command.add):
        yield f"{what} has add={command.add!r}, not 'package.module:function'"
    if not isinstance(command.summary, str):
        yield f"{what} has a summary that is no text: {command.summary!r}"
