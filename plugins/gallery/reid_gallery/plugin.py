"""The plugin `gallery`: one command. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "keep pictures in a gallery that grows, search it, label it, and forget"
    return [Command("gallery", "reid_gallery.commands:add_arguments", summary)]
