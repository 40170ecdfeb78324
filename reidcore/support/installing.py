"""How a package is installed where this program runs: by pip, or by uv. Torch-free."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.machinery import PathFinder
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that has the packages of the project, where it was not installed as a wheel."""


def is_uvs() -> bool:
    """Return whether uv keeps the environment that this program runs in: it has made it, and put no
    pip there."""
    try:
        told = (Path(sys.prefix) / "pyvenv.cfg").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    # Looked for on sys.path alone: asked as an import would, setuptools gives distutils up for pip.
    return (
        PathFinder.find_spec("pip") is None and re.search("^uv *=", told, re.MULTILINE) is not None
    )


def how_to_install(requirement: str) -> str:
    """Return the command that installs a package here, for a message about one that is missing.

    Args:
        requirement: What is to be installed, as pip is told it, such as `reidcore[mat]`.

    Returns:
        `pip install ...`, with quotes where a shell needs them. Where uv keeps the environment,
        `uv pip install ...`, or `uv add ...` in a project of uv's; in a checkout of reidcore what
        belongs to it is brought by `uv sync --all-groups`.

    Example:
        >>> from reidcore.api import how_to_install
        >>> f"To install it: {how_to_install('boats')}".endswith(" boats")
        True
    """
    asked = shlex.quote(requirement)
    if not is_uvs():
        return f"pip install {asked}"
    project = Path(sys.prefix).resolve().parent
    if not (project / "uv.lock").is_file():
        return f"uv pip install {asked}"
    if project != CHECKOUT:
        return f"uv add {asked}"
    name = re.split(r"[^\w-]", requirement)[0]
    plugin = name.removeprefix("reid-plugin-").replace("-", "_")
    if name == "reidcore" or plugin in {folder.name for folder in project.glob("plugins/*")}:
        return "uv sync --all-groups"
    return f"uv pip install {asked}"  # `uv add` would change the project's own pyproject.toml
