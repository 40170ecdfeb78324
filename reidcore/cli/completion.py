"""`reid completion SHELL`, and what `reid` answers a shell that completes a command line.

The script asks `reid` itself, by argcomplete, so that commands and components of plugins that are
installed later are completed too.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from reidcore.contracts.commands import RunCommand
from reidcore.errors import UsageError
from reidcore.support.installing import how_to_install

if TYPE_CHECKING:
    from reidcore.plugins.commands import LoadedCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = (
        "Print the script by which a shell completes commands, options, run files, plugins and\n"
        "keys of --set, those of installed plugins included."
    )
    parser.epilog = (
        "for new shells:\n"
        "  bash  reid completion bash > ~/.local/share/bash-completion/completions/reid\n"
        "  zsh   reid completion zsh > FOLDER/_reid, in a FOLDER of $fpath\n"
        "  fish  reid completion fish > ~/.config/fish/completions/reid.fish\n"
        "for this one:\n"
        '  bash, zsh  eval "$(reid completion bash)"\n'
        "  fish       reid completion fish | source"
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL")
    return completion_command


def completion_command(options: Namespace) -> int:
    """`reid completion`; returns 0 or raises `ReidError`."""
    try:
        from argcomplete import shellcode
    except ImportError:
        raise UsageError(
            "reid completion needs argcomplete, which is not installed. To install it: "
            + how_to_install("reidcore[completion]")
        ) from None

    sys.stdout.write(shellcode(["reid"], shell=options.shell))
    return 0


def complete() -> int:
    """Answer the shell whose command line the environment holds; return the exit code.

    Whatever goes wrong, nothing is completed and nothing is printed among the user's typing.
    """
    try:
        from argcomplete import autocomplete

        line = os.environ["COMP_LINE"]
        typed = line[: int(os.environ["COMP_POINT"])].split()
        # It ends the process itself.
        autocomplete(_parser(typed), always_complete_options=False)
    except Exception:
        pass
    return 1


def _parser(typed: list[str]) -> ArgumentParser:
    """Return a parser of the whole command line; of the commands only the one that is typed has its
    arguments."""
    from reidcore.cli.commands import COMMANDS
    from reidcore.plugins.commands import LoadedCommand
    from reidcore.plugins.finding import CORE
    from reidcore.plugins.loading import Plugins

    parser = ArgumentParser(prog="reid")
    parser.add_argument("--version", action="store_true", help="show the version")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose")
    commands = parser.add_subparsers(metavar="COMMAND")
    known = [LoadedCommand(CORE, one) for one in COMMANDS]
    if not any(one.name in typed for one in known):  # plugins take a while
        known += Plugins().commands()
    # With a dash for options, so that `reid run tune` is the command `run`.
    chosen = next((word for word in typed[1:] if not word.startswith("-")), "")
    for one in known:
        if one.name in commands.choices:  # the core's own comes first
            continue
        own = commands.add_parser(one.name, help=one.summary.replace("%", "%%"))
        if one.name == chosen:
            _add(one, own)
    return parser


def _add(command: LoadedCommand, parser: ArgumentParser) -> None:
    """Add a command's arguments to its parser, each with what completes it."""
    from reidcore.cli.completers import completer

    command.arguments()(parser)
    parsers = [parser]
    for one in parsers:
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif (found := completer(command.name, action)) is not None:
                action.completer = found  # type: ignore[attr-defined]
