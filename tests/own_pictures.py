"""Pictures on disk and the commands `reid data ...` on them, for several test files."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from reidcore.cli.data import add_parser


def reid(*words: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="reid")
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["data", *map(str, words)])
    return options.func(options)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise, so that half of a file is not a whole picture.
    noise = random.Random(seed).randbytes(16 * 32 * 3)
    Image.frombytes("RGB", (16, 32), noise).save(path)
    return path
