"""The plugin `gallery`: two commands. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "keep pictures in a gallery that grows, search it, label it, and forget"
    return [
        Command("gallery", "reid_gallery.commands:add_arguments", summary),
        Command(
            "serve",
            "reid_gallery.serve.command:add_arguments",
            "put a gallery behind an HTTP interface",
        ),
    ]
