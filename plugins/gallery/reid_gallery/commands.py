"""The command `reid gallery` with its own commands. Torch-free at import."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from reidcore.api import how_to_install
from reidcore.errors import UsageError

RunCommand = Callable[[Namespace], int]
_COMMANDS = {
    "create": ("reid_gallery.command_add:create_arguments", "make an empty gallery for a run"),
    "add": ("reid_gallery.command_add:add_arguments", "add pictures that are not there yet"),
    "search": ("reid_gallery.command_search:search_arguments", "find the nearest pictures"),
    "label": ("reid_gallery.command_change:label_arguments", "say who is on pictures"),
    "remove": ("reid_gallery.command_change:remove_arguments", "remove pictures"),
    "forget": (
        "reid_gallery.command_change:forget_arguments",
        "remove pictures and their bytes from disk",
    ),
    "compact": ("reid_gallery.command_keep:compact_arguments", "merge small files"),
    "upgrade": (
        "reid_gallery.command_keep:upgrade_arguments",
        "extract all pictures anew by another run",
    ),
    "export": ("reid_gallery.command_keep:export_arguments", "write the rows as CSV or Parquet"),
    "info": ("reid_gallery.command_search:info_arguments", "show what a gallery holds"),
}


def add_arguments(parser: ArgumentParser) -> RunCommand:
    """Add the commands; return what runs the one that is asked for."""
    parser.description = (
        "Keep pictures with their templates in a gallery that grows, search it, label it, and "
        "forget. docs/gallery.md leads through it."
    )
    commands = parser.add_subparsers(dest="gallery_command", metavar="COMMAND", required=True)
    for name, (place, summary) in _COMMANDS.items():
        own = commands.add_parser(name, help=summary)
        module, _, function = place.partition(":")
        add = getattr(importlib.import_module(module), function)
        own.set_defaults(run=add(own))

    def run(options: Namespace) -> int:
        try:
            import lance  # noqa: F401
        except ImportError:
            raise UsageError(
                "`reid gallery` needs Lance, which is not installed. To install it: "
                + how_to_install("reid-plugin-gallery")
            ) from None
        return int(options.run(options))

    return run
