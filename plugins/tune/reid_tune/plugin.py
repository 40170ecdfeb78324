"""The plugin `tune`: one command. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "choose settings on training identities that are held out, without a test set"
    return [Command("tune", "reid_tune.command:add_arguments", summary)]
