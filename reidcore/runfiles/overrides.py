"""`--set key=value`: changing a parsed run file by dotted keys. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidcore.errors import UsageError, nearest
from reidcore.runfiles.problems import Lines
from reidcore.runfiles.strict import shown
from reidcore.runfiles.tables import LISTS, TOP_KEYS


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def apply_sets(table: dict[str, Any], sets: Sequence[str], lines: Lines | None = None) -> None:
    """Applies `--set key=value`; values are TOML, or text where they are not. `lines` keeps what
    was changed."""
    import tomli

    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {item!r}: expected key=value, such as train.seed=1")
        try:
            value = tomli.loads(f"value = {text}")["value"]
        except (tomli.TOMLDecodeError, RecursionError):
            value = text.strip()
        try:
            path = set_value(table, key.strip(), value)
            if lines is not None:
                lines.sets[path] = item
        except UsageError as error:
            raise UsageError(f"--set {item}: {error}") from None


def set_value(table: dict[str, Any], key: str, value: Any) -> tuple[str | int, ...]:
    """Sets `train.seed`, `data.batch.size` or, by instance name, `loss.graph.dim` in place.
    Returns its path, with list indices in place of instance names."""
    steps = key.split(".")
    path: tuple[str | int, ...] = ()
    here: Any = table
    for index, step in enumerate(steps[:-1]):
        if isinstance(here, dict):
            if index == 0 and step not in here:
                if step not in TOP_KEYS:
                    raise UsageError(f"no table {step!r}{nearest(step, TOP_KEYS)}")
                if step in LISTS:
                    raise UsageError(f"this run has no [[{step}]]")
            here = here.setdefault(step, {})
            path = (*path, step)
        elif isinstance(here, list):
            member = _member(here, step, steps[index - 1])
            path = (*path, next(i for i, item in enumerate(here) if item is member))
            here = member
        else:
            raise UsageError(f"{'.'.join(steps[:index])!r} is no table, but {shown(here)}")
    last = steps[-1]
    if isinstance(here, dict):
        if len(steps) == 1 and last not in TOP_KEYS:
            raise UsageError(f"no table or key {last!r}{nearest(last, TOP_KEYS)}")
        here[last] = value
        return (*path, last)
    if isinstance(here, list) and last.isdecimal() and int(last) < len(here):
        here[int(last)] = value
        return (*path, int(last))
    raise UsageError(f"{'.'.join(steps[:-1])!r} is no table, but {shown(here)}")


def _member(items: list[Any], step: str, kind: str) -> Any:
    names = [item.get("name") for item in items if isinstance(item, dict)]
    if step in names:
        return items[names.index(step)]
    if step.isdecimal() and int(step) < len(items):
        return items[int(step)]
    known = [name for name in names if isinstance(name, str)]
    raise UsageError(
        f"no {kind} named {step!r}{nearest(step, known)}"
        + ("" if nearest(step, known) else f"; there are {', '.join(known) or 'none'}")
    )
