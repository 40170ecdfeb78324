"""`reid gallery label`, `remove` and `forget`. Torch-free at import."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from reid_gallery.options import PICTURES, add_filter, add_gallery, opened, show


def _add_rows(parser: ArgumentParser) -> None:
    """Add what names rows."""
    add_gallery(parser)
    parser.add_argument("pictures", nargs="?", metavar="PICTURES", help=PICTURES)
    add_filter(parser)


def _rows(options: Namespace) -> dict[str, Any]:
    return {
        "pictures": options.pictures,
        "camera": options.cameras,
        "after": options.after,
        "before": options.before,
        "where": options.where,
    }


def label_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `label` takes; return what runs it."""
    parser.description = (
        "Say who is on pictures: one --identity for all that are named by PICTURES or conditions, "
        "or each picture's own from the columns identity (or pid) and tracklet of a CSV file."
    )
    _add_rows(parser)
    parser.add_argument("--identity", metavar="NAME", help='their name; "" takes it away')
    parser.add_argument("--tracklet", metavar="NAME", help='their track; "" takes it away')
    return label


def label(options: Namespace) -> int:
    """Label; returns 0 or raises `ReidError`."""
    gallery = opened(options)
    count = gallery.label(options.identity, tracklet=options.tracklet, **_rows(options))
    show(options, {"labelled": count}, f"labelled {count} pictures of {options.gallery}")
    return 0


def remove_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `remove` takes; return what runs it."""
    parser.description = (
        "Remove pictures: no search finds them any more. Their bytes stay on disk for a while; "
        "reid gallery forget removes these, too."
    )
    _add_rows(parser)
    return remove


def remove(options: Namespace) -> int:
    """Remove; returns 0 or raises `ReidError`."""
    count = opened(options).remove(**_rows(options))
    show(options, {"removed": count}, f"removed {count} pictures from {options.gallery}")
    return 0


def forget_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `forget` takes; return what runs it."""
    parser.description = (
        "Remove pictures and their bytes: when it returns, no file of the gallery holds anything "
        "of them, nor of pictures that were removed earlier. Where it was killed, do it again."
    )
    _add_rows(parser)
    parser.add_argument("--identity", metavar="NAME", help="only of this identity")
    return forget


def forget(options: Namespace) -> int:
    """Forget; returns 0 or raises `ReidError`."""
    count = opened(options).forget(identity=options.identity, **_rows(options))
    show(options, {"forgotten": count}, f"forgot {count} pictures of {options.gallery}")
    return 0
