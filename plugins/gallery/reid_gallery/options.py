"""Options that several commands share, and how they show what they did. Torch-free."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid_gallery.gallery import Gallery

PICTURES = "a folder or zip of pictures, one picture, or a CSV file with the column path"


def add_gallery(parser: ArgumentParser) -> None:
    """Add the gallery's folder and `--json`."""
    parser.add_argument(
        "gallery", metavar="DIR", help="the gallery: a folder, or a URI such as s3://bucket/gallery"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_run(parser: ArgumentParser) -> None:
    """Add the run, where it has moved, and its device."""
    parser.add_argument(
        "--run",
        dest="run_folder",
        metavar="RUN_DIR",
        help="the gallery's run, where its folder has moved",
    )
    add_device(parser)


def add_device(parser: ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device", default="auto", help="auto (cuda if there is one, else cpu), cpu, cuda, cuda:N"
    )


def add_ray(parser: ArgumentParser) -> None:
    """Add `--ray`."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on the machines of a Ray cluster: auto for the one that runs here, local for "
        "this machine's processors, or its address",
    )


def add_filter(parser: ArgumentParser) -> None:
    """Add the conditions on rows."""
    parser.add_argument(
        "--camera",
        dest="cameras",
        action="append",
        metavar="NAME",
        help="only of this camera; may be given several times",
    )
    for name, words in (("after", "at or after"), ("before", "before")):
        parser.add_argument(
            f"--{name}",
            metavar="TIME",
            help=f"only {words} this time, in seconds or as 2026-11-29T14:02 (UTC)",
        )
    add_where(parser)


def add_where(parser: ArgumentParser) -> None:
    """Add `--where`."""
    parser.add_argument(
        "--where",
        default="",
        metavar="SQL",
        help="only rows that meet a condition on any columns, such as \"identity = 'Ann'\"",
    )


def opened(options: Namespace) -> Gallery:
    """Return the gallery that a command names."""
    from reid_gallery.gallery import Gallery

    return Gallery.open(
        options.gallery, getattr(options, "run_folder", None), getattr(options, "device", "auto")
    )


def show(options: Namespace, found: dict[str, Any], text: str) -> None:
    """Print what a command did, as JSON if so asked."""
    print(json.dumps(found, ensure_ascii=False) if options.json else text)


def shown_path(path: str) -> str:
    """Return a path from the current folder, where it lies in it."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)
