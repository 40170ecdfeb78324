"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def _file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a run file, or the name of a packaged one such as demo"
    )
    _set_argument(parser)


def _set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key, such as train.seed=1 or, by instance name, loss.id.smoothing=0.1",
    )


def _evaluation_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a TOML file whose [data] test, [[ranking]], [[post]] and [eval] replace the run's",
    )


PICTURES = "a folder of pictures, a CSV file with the column path, or what reid index wrote"


def device_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--device`."""
    parser.add_argument(
        "--device", default="auto", help="auto (cuda if there is one, else cpu), cpu, cuda, cuda:N"
    )
