"""The command `reid release`. Torch-free at import."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from reidcore.errors import UsageError
from reidcore.tools import check_new

PLACES = ("hf://", "https://huggingface.co/")


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add the command's options; return what runs it."""
    parser.description = (
        "Make a folder of a trained run that others can load: weights, run file, run record, "
        "scores and a model card, README.md, made from them. With --push it is sent to Hugging "
        "Face. RUN_DIR may be a folder that this command made, which is then pushed as it is."
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--license",
        default="",
        metavar="ID",
        help="the weights' licence, as Hugging Face names it, such as apache-2.0 or cc-by-nc-4.0; "
        "without it the card says that none is stated",
    )
    parser.add_argument(
        "--about", type=Path, metavar="FILE", help="Markdown that the card begins with"
    )
    parser.add_argument(
        "--export",
        dest="exports",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="a file or folder to add as exports/NAME, such as an ONNX file; may be given several "
        "times",
    )
    parser.add_argument(
        "--push", default="", metavar="USER/NAME", help="send it to this model of Hugging Face"
    )
    parser.add_argument(
        "--private", action="store_true", help="with --push: a new model is private"
    )
    return release


def release(options: Namespace) -> int:
    """Make the folder and push it; returns 0 or raises `ReidError`."""
    from reid_release.folder import is_release, make_release
    from reid_release.push import check_repo, push

    repo = options.push
    for place in PLACES:
        repo = repo.removeprefix(place)
    if options.push:
        check_repo(repo)
    if options.private and not options.push:
        raise UsageError("--private is for a model that --push makes")
    folder = options.output
    if folder is None:
        if not (options.push and is_release(options.folder)):
            raise UsageError(
                "name the folder to make with -o DIR; without it, --push sends a RUN_DIR that reid "
                "release made"
            )
        folder = options.folder
    else:
        check_new(folder)
        for note in make_release(options, repo):
            print(f"note: {note}")
        print(f"wrote {folder}")
    if options.push:
        print(f"pushed {push(folder, repo, options.private)}")
    return 0
