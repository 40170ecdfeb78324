"""The plugin `release`: one command. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "make a folder with a model card of a trained run, to share and to load"
    return [Command("release", "reid_release.command:add_arguments", summary)]
