"""The plugin `export`: one command. Imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.api import Command, hookimpl


@hookimpl
def reid_commands() -> Sequence[Command]:
    summary = "a trained run as ONNX or torch.export graphs, pairwise matchers included"
    return [Command("export", "reid_export.command:add_arguments", summary)]
