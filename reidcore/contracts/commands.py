"""Commands of `reid`: how the core and plugins describe them. Imports neither torch nor numpy."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import attrs

RunCommand = Callable[[Namespace], int]
"""Does what the parsed options say and returns the exit code; may raise `ReidError`."""
AddArguments = Callable[[ArgumentParser], RunCommand]
"""Adds a command's arguments to a parser and returns the function that runs it."""


@attrs.frozen
class Command:
    """One command of `reid`: a descriptor, no function, so that it can be listed without torch.

    Args:
        name: The word behind `reid`, of a-z, 0-9 and -, beginning with a letter.
        add: "package.module:function", imported only when the command is asked for and called with
            an `argparse.ArgumentParser`. It adds the command's arguments, may set the parser's
            `description`, and returns a function `run(options: argparse.Namespace) -> exit code`.
            Both may raise `reidcore.errors.ReidError` with what the user can act on.
        summary: One line for `reid --help`.

    Example:
        >>> from reidcore.api import Command
        >>> best = Command("best", "reid_spots.best:add_arguments", "find the best of several runs")
        >>> best.name
        'best'
    """

    name: str
    add: str
    summary: str = ""
