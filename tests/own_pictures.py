"""Pictures on disk and the commands `reid data ...` on them, for several test files."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from reidcore.cli.data import add_arguments


def reid(*words: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="reid data")
    run = add_arguments(parser)
    return run(parser.parse_args([*map(str, words)]))


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise, so that half of a file is not a whole picture.
    noise = random.Random(seed).randbytes(16 * 32 * 3)
    Image.frombytes("RGB", (16, 32), noise).save(path)
    return path
