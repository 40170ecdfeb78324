"""`reid gallery compact`, `upgrade` and `export`. Torch-free at import."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from reid_gallery.options import add_device, add_filter, add_gallery, opened, show
from reidcore.tools import Silent, reporter


def compact_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `compact` takes; return what runs it."""
    parser.description = (
        "Merge small fragments into larger ones, and remove versions older than ten minutes. "
        "Adding, labelling and removing do it by themselves when there are many."
    )
    add_gallery(parser)
    parser.add_argument(
        "--ann", action="store_true", help="build the index for reid gallery search --ann"
    )
    return compact


def compact(options: Namespace) -> int:
    """Compact; returns 0 or raises `ReidError`."""
    gallery = opened(options)
    gallery.compact(options.ann)
    found = gallery.info()
    kept = {key: found[key] for key in ("pictures", "fragments", "map_fragments", "bytes")}
    fragments = found["fragments"] + found["map_fragments"]
    show(options, kept, f"{options.gallery} has {found['pictures']} pictures in {fragments} files")
    return 0


def upgrade_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `upgrade` takes; return what runs it."""
    parser.description = (
        "Extract all pictures anew from their sources by another run, such as one with other "
        "weights. Everything else that is known of them stays. Searches see the old templates "
        "until it is done; where it was killed, the same command goes on."
    )
    add_gallery(parser)
    parser.add_argument("--run", dest="new_run", required=True, metavar="RUN_DIR", help="that run")
    parser.add_argument(
        "--drop-missing",
        action="store_true",
        help="remove the pictures whose sources cannot be read any more",
    )
    add_device(parser)
    return upgrade


def upgrade(options: Namespace) -> int:
    """Upgrade; returns 0 or raises `ReidError`."""
    gallery = opened(options)
    shown = Silent() if options.json else reporter()
    try:
        count = gallery.upgrade(options.new_run, options.drop_missing, shown)
    finally:
        shown.close()
    show(
        options,
        {"pictures": count, "made_by": gallery.origin.made_by},
        f"{options.gallery} has {count} pictures by {gallery.origin.made_by}",
    )
    return 0


def export_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `export` takes; return what runs it."""
    parser.description = (
        "Write what is known of the pictures as a CSV file, which can be added to another gallery, "
        "or as a Parquet file."
    )
    add_gallery(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".csv or .parquet")
    add_filter(parser)
    parser.add_argument("--vectors", action="store_true", help="with the vectors (.parquet)")
    return export


def export(options: Namespace) -> int:
    """Export; returns 0 or raises `ReidError`."""
    count = opened(options).export(
        options.output,
        options.cameras,
        options.after,
        options.before,
        options.where,
        options.vectors,
    )
    show(options, {"pictures": count}, f"wrote {options.output}: {count} pictures")
    return 0
