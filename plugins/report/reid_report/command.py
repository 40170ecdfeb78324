"""The command `reid report`: its options and steps. Torch-free at import."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidcore.errors import OutputError, ReidError, UsageError
from reidcore.tools import check_output, reporter, write_atomically

if TYPE_CHECKING:
    from reid_report.evaluation import Evaluated
    from reid_report.folder import Folder


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add the command's options; return what runs it."""
    parser.description = (
        "Write one HTML file, which opens anywhere without a network: scores, curves, distances, "
        "ranked lists, failures, what postprocessors changed, explanations and settings; several "
        "runs side by side. Distances and pictures need the run's data and plugins; what is not "
        "there is said on the page."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the file to write (default report.html)",
    )
    parser.add_argument(
        "--no-data",
        action="store_true",
        help="only what the run folders hold: scores, curves, settings; computes nothing",
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="leave out the test set's pictures"
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=128,
        metavar="N",
        help="pixels of a picture's longer side at most (default 128)",
    )
    parser.add_argument(
        "--queries",
        type=int,
        default=10,
        metavar="N",
        help="ranked lists of each ranking (default 10)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="N",
        help="gallery pictures of each list (default 10)",
    )
    parser.add_argument(
        "--explain",
        type=int,
        default=2,
        metavar="N",
        help="queries explained of each ranking (default 2)",
    )
    parser.add_argument(
        "--ranking", default="", metavar="NAME", help="look at this ranking's distances only"
    )
    parser.add_argument(
        "--png", type=Path, metavar="DIR", help="also write every figure as a PNG into this folder"
    )
    parser.add_argument(
        "--device", default="auto", help="auto (cuda if there is one, else cpu), cpu, cuda, cuda:N"
    )
    return report


def report(options: Namespace) -> int:
    """Write the page; returns 0 or raises `ReidError`."""
    _check(options)
    check_output(options.output)
    from reid_report.folder import read_folders
    from reid_report.page import Page
    from reid_report.studio import Options

    folders = read_folders(options.folders)
    if options.png is not None:
        _make_folder(options.png)
    page = Page(
        Options(
            not options.no_pictures, options.max_side, options.queries, options.explain, options.png
        )
    )
    for folder in folders:
        found, notes = _evaluated(folder, options)
        for note in notes:
            print(f"note: {folder.label}: {note}")
        page.add(folder, found, notes)
    title = " and ".join(dict.fromkeys(folder.label for folder in folders))
    text = page.html(f"Report: {title}")
    write_atomically(options.output, text)
    print(f"wrote {options.output}: {len(text.encode()) / 2**20:.2f} MiB")
    return 0


def _check(options: Namespace) -> None:
    """Refuses what cannot be done before any work."""
    for name, least in (("max_side", 16), ("top", 1), ("queries", 0), ("explain", 0)):
        value = getattr(options, name)
        if value < least:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} must be at least {least}, got {value}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--png {folder} cannot be made: {error.strerror}") from error
    check_output(folder / "figure.png")


def _evaluated(folder: Folder, options: Namespace) -> tuple[Evaluated | None, Sequence[str]]:
    """Evaluate the run; return what that shows, or None, and notes for the reader."""
    if options.no_data or not folder.scores:
        return None, ()
    from reid_report.evaluation import evaluated

    shown = reporter()
    try:
        found = evaluated(folder.runs[0], shown, options.device, options.top, options.ranking)
    except ReidError as error:
        return None, (f"Distances, lists and pictures are absent: {error}",)
    finally:
        shown.close()
    return found, ()
