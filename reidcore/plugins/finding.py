"""Finds installed plugins from the metadata of distributions, of which some may be damaged.

Nothing of a plugin is imported. What is wrong with one distribution hides no other: it is kept in
its `Found`, and becomes a row of `reid plugins`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

from reidcore import hookspecs
from reidcore.plugins.registration import Found
from reidcore.support.author_code import package_of, place_in_plugin
from reidcore.support.wording import in_words
from reidcore.version import __version__

GROUP_PREFIX = hookspecs.GROUP.rstrip("0123456789")
CORE = Found("core", "reidcore.builtin.plugin", "reidcore", __version__)
"""The built-in components, a plugin like any other, whose name nobody else can claim."""
ALIKE = 0.8
"""From which likeness on, of 0 to 1, a group of entry points is taken for ours, misspelt."""


def find_plugins() -> list[Found]:
    """Every plugin entry point of every API version, sorted, and the built-in plugin. Imports
    nothing."""
    found = {CORE}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name = _name(distribution)
        # The first of several copies of a distribution on sys.path is the one that is imported.
        if normalized(name) not in seen:
            seen.add(normalized(name))
            found.update(_of(distribution, name))
    return sorted(found)


def plugin_at_fault(error: BaseException) -> Found | None:
    """Return the plugin whose code an exception has left; None if it has left none's."""
    place = place_in_plugin(error)
    package = package_of(place)
    found = (one for one in find_plugins() if place and one.value.partition(".")[0] == package)
    return next(found, None)


def normalized(distribution: str) -> str:
    """Return a distribution's name as names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def is_ours(group: str) -> bool:
    """Return whether a group of entry points is that of plugins, of whatever API version."""
    return re.fullmatch(re.escape(GROUP_PREFIX) + r"\d+", group) is not None


def is_nearly_ours(group: str) -> bool:
    """Return whether a group of entry points is likely meant to be that of plugins."""
    if is_ours(group):
        return False
    return SequenceMatcher(None, group.strip().lower(), hookspecs.GROUP).ratio() >= ALIKE


def _of(distribution: importlib.metadata.Distribution, name: str) -> Iterator[Found]:
    try:
        text = distribution.read_text("entry_points.txt") or ""
        _check_sections(text)
        entries = [
            (one.name, one.value.partition("[")[0].strip(), one.group)  # extras are of no use here
            for one in distribution.entry_points
            if is_ours(one.group) or is_nearly_ours(one.group)
        ]
    except Exception as error:
        problem = f"its entry_points.txt cannot be read: {in_words(error)}"
        yield Found(name, "", name, "?", hookspecs.GROUP, (), problem)
        return
    if not entries:
        return
    version, problem = "?", ""
    asked: tuple[str, ...] = ()
    try:
        version = str(distribution.metadata["Version"] or "?")
        name = str(distribution.metadata["Name"] or name)
        asked = tuple(_asked(distribution.requires or ()))
    except Exception as error:
        problem = f"its METADATA cannot be read: {in_words(error)}"
    for entry, value, group in entries:
        yield Found(entry, value, name, version, group, asked, problem)


def _check_sections(text: str) -> None:
    """Raise ValueError for headers and lines that are dropped without a word when it is read."""
    section = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(f"line {number} is no header of a group: {line[:60]!r}")
            section = line
        elif line and not line.startswith("#") and not section and "reidcore" in text:
            raise ValueError(f"line {number} stands in no group: {line[:60]!r}")


def _asked(requires: Iterable[str]) -> Iterator[str]:
    """Yield the requirements of the core, as written."""
    for line in requires:
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement)
        if name and normalized(name[0]) == "reidcore" and "extra" not in marker:
            yield re.sub(r"[\s()]", "", requirement)


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Return the name, from the name of the folder of the metadata where that has one."""
    try:
        # Reading METADATA of all that is installed would take long, and any may be damaged.
        folder = Path(str(getattr(distribution, "_path", "")))
        if folder.suffix in (".dist-info", ".egg-info") and "-" in folder.stem:
            return folder.stem.partition("-")[0].replace("_", "-")
        return str(distribution.metadata["Name"] or "unknown distribution")
    except Exception:
        return folder.stem or "unknown distribution"
