"""Options that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from reidcore.runfolder.shared import run_folder

PICTURES = "a folder or zip of pictures, a CSV file with the column path, or what reid index wrote"


def add_file(parser: ArgumentParser) -> None:
    """Add the run file and `--set`."""
    parser.add_argument(
        "file", metavar="FILE", help="a run file, or the name of a packaged one such as demo"
    )
    add_set(parser)


KEYS = "change a key, such as train.seed=1 or, by instance name, loss.id.smoothing=0.1"


def add_set(parser: ArgumentParser, help: str = KEYS) -> None:
    """Add `--set KEY=VALUE`, which may be given several times."""
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help=help
    )


def add_run_folder(parser: ArgumentParser) -> None:
    """Add the folder of a trained run."""
    help = "a run folder, or hf://USER/NAME, one that was shared on Hugging Face"
    parser.add_argument("folder", type=run_folder, metavar="RUN_DIR", help=help)


def add_evaluation(parser: ArgumentParser) -> None:
    """Add the file that replaces a run's evaluation."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a TOML file whose [data] test, [[ranking]], [[post]] and [eval] replace the run's",
    )


def add_pictures(parser: ArgumentParser) -> None:
    """Add the query and the gallery."""
    parser.add_argument("--query", type=Path, required=True, metavar="PICTURES", help=PICTURES)
    parser.add_argument("--gallery", type=Path, required=True, metavar="PICTURES", help=PICTURES)


def add_ranking(parser: ArgumentParser) -> None:
    """Add `--ranking`."""
    parser.add_argument(
        "--ranking", metavar="NAME", help="a ranking of the run (default: its first)"
    )


def add_device(parser: ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device", default="auto", help="auto (cuda if there is one, else cpu), cpu, cuda, cuda:N"
    )
