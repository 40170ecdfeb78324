"""Where in a plugin's code an error arose, for messages to its author. Torch-free."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType

from reidcore.support.wording import in_words

_OTHERS = {
    *sys.stdlib_module_names,
    *("attr", "cattrs", "numpy", "PIL", "pluggy", "reidcore", "safetensors", "torch"),
}
"""Packages that are no plugin's, though their code may stand between the core's and a plugin's."""


def with_place(error: BaseException) -> str:
    """Return an exception in words, with the line of a plugin's code that it left, if it did."""
    place = place_in_plugin(error)
    return f"{in_words(error)}, at {place}" if place else in_words(error)


def package_of(place: str) -> str:
    """Return the package, or the module that is in none, of a place in a plugin's code."""
    return re.split(r"[/.]", place)[0]


def place_in_plugin(error: BaseException) -> str:
    """Return where an exception left a plugin's code, as "reid_example/head.py:12"; else "".

    It is the innermost line of the first package that is neither the core nor a library of it.
    """
    author, place = "", ""
    step = error.__traceback__
    while step is not None:
        package = _package(step.tb_frame)
        author = author or ("" if package in _OTHERS else package)
        if author and package == author:
            place = f"{_file(author, step.tb_frame)}:{step.tb_lineno}"
        step = step.tb_next
    return place


def _package(frame: FrameType) -> str:
    """Return the package of a frame's module; that of the core for code that was generated."""
    generated = frame.f_code.co_filename.startswith("<")
    name = "reidcore" if generated else str(frame.f_globals.get("__name__", "reidcore"))
    return name.partition(".")[0]


def _file(package: str, frame: FrameType) -> str:
    """Return a frame's file from its package's folder on, or its name alone."""
    parts = Path(frame.f_code.co_filename).parts
    folders = [index for index, part in enumerate(parts[:-1]) if part == package]
    return "/".join(parts[folders[-1] :]) if folders else parts[-1]
