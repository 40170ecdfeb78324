"""The plugin `report`: one command. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "show what trained runs know as one HTML file"
    return [Command("report", "reid_report.command:add_arguments", summary)]
