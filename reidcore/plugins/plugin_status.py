"""The state of a plugin: usable and loaded, or why it is not. Torch-free."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reidcore import hookspecs
from reidcore.plugins.commands import LoadedCommand
from reidcore.plugins.core_versions import asked_of_core
from reidcore.plugins.finding import is_ours
from reidcore.plugins.registration import Found, LoadedComponent
from reidcore.plugins.weights import LoadedWeights
from reidcore.support.wording import LONGEST_LINE, shortened


@attrs.frozen
class LoadedPlugin:
    """A plugin that was imported and whose components are all well formed.

    observes: the observer hooks it has. settings: the class of its table in run files, if it takes
    one. imports_torch: importing it imported torch (False also if
    torch had been there before). seconds: how long importing it took.
    """

    found: Found
    module: Any
    components: tuple[LoadedComponent, ...]
    observes: tuple[str, ...]
    imports_torch: bool
    seconds: float = 0.0
    commands: tuple[LoadedCommand, ...] = ()
    settings: type | None = None
    weights: tuple[LoadedWeights, ...] = ()


@attrs.frozen
class Status:
    """The state of one plugin name, with the plugin if it is ok and a message if it is not."""

    name: str
    state: Literal["ok", "broken", "other API", "twin"]
    found: tuple[Found, ...]
    message: str = ""
    plugin: LoadedPlugin | None = None
    cause: BaseException | None = None


def unfit(claims: tuple[Found, ...], found: Found) -> Status:
    """Return the status of what its metadata alone exclude."""
    if not found.problem and is_ours(found.group):
        text = (
            f"package {found.distribution}: its entry point {found.name!r} names no module; its "
            'author must write, for example, "reid_example.plugin".'
        )
    elif not found.problem:
        text = (
            f"plugin {found} stands in the entry-point group {found.group!r}, which nothing reads; "
            f"its author must write {hookspecs.GROUP!r}."
        )
    elif found.value:
        text = f"plugin {found} cannot be used: {found.problem}. Install it again."
    else:
        text = f"package {found.distribution}: {found.problem}. Install it again."
    return Status(found.name, "broken", claims, text)


def broken(
    claims: tuple[Found, ...], found: Found, problem: str, cause: BaseException | None = None
) -> Status:
    """Return the status of a plugin that has this problem, the end of a sentence about it."""
    stop = "" if problem.endswith((".", "?", "!")) else "."
    asked = asked_of_core(found.requires, cause)
    text = f"plugin {found} {shortened(problem, LONGEST_LINE)}{stop}{asked}"
    return Status(found.name, "broken", claims, text, cause=cause)
