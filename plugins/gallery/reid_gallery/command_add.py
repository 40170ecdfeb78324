"""`reid gallery create` and `add`. Torch-free at import."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from reid_gallery.options import PICTURES, add_device, add_gallery, add_ray, add_run, opened, show
from reidcore.tools import Silent, reporter

MOST_SHOWN = 20


def create_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `create` takes; return what runs it."""
    parser.description = "Make an empty gallery for the templates of a trained run."
    parser.add_argument("folder", metavar="RUN_DIR", help="the trained run")
    add_gallery(parser)
    parser.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="of the numbers that are kept; float16 takes half the room (default float32)",
    )
    add_device(parser)
    return create


def create(options: Namespace) -> int:
    """Make a gallery; returns 0 or raises `ReidError`."""
    from reid_gallery.gallery import Gallery

    gallery = Gallery.create(options.folder, options.gallery, options.precision, options.device)
    size = sum(column.bytes for column in gallery.origin.columns)
    show(
        options,
        {"place": gallery.place, "made_by": gallery.origin.made_by, "bytes_per_picture": size},
        f"made {options.gallery} for {gallery.origin.made_by}: {size:,} bytes of templates a "
        "picture",
    )
    return 0


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `add` takes; return what runs it."""
    parser.description = (
        "Add pictures. Those that are there already are skipped, so the same command goes on after "
        "it was killed; damaged ones are told and left out. A CSV file's columns camera, time, "
        "modality, box, identity (or pid), tracklet and all others are kept."
    )
    add_gallery(parser)
    parser.add_argument("pictures", metavar="PICTURES", help=PICTURES)
    add_run(parser)
    add_ray(parser)
    return add


def add(options: Namespace) -> int:
    """Add pictures; returns 0 or raises `ReidError`."""
    gallery = opened(options)
    shown = Silent() if options.json else reporter()
    started = time.monotonic()
    try:
        if options.ray:
            from reid_gallery.ray_adding import add_with_ray

            done = add_with_ray(gallery, options.pictures, options.ray, shown)
        else:
            done = gallery.add(options.pictures, shown)
    finally:
        shown.close()
    seconds = time.monotonic() - started
    lines = [f"{name}: {why}" for name, why in done.damaged[:MOST_SHOWN]]
    if len(done.damaged) > MOST_SHOWN:
        lines.append(f"and {len(done.damaged) - MOST_SHOWN} more damaged pictures")
    lines.append(
        f"added {done.added} pictures to {options.gallery} in {seconds:.1f} s, skipped "
        f"{done.skipped} that were there, left out {len(done.damaged)} that are damaged"
    )
    found = {
        "added": done.added,
        "skipped": done.skipped,
        "damaged": [{"source": name, "why": why} for name, why in done.damaged],
        "seconds": round(seconds, 3),
    }
    show(options, found, "\n".join(lines))
    return 0
