"""`--set key=value`: changing a parsed run file by dotted keys. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidcore.errors import UsageError, nearest
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.keys import LISTS, TOP_KEYS, KeyPath
from reidcore.runfiles.toml_files import TOO_LONG
from reidcore.runfiles.value_words import shown
from reidcore.support.wording import one_line_of


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one with dotted keys: {"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def apply_sets(table: dict[str, Any], sets: Sequence[str], lines: KeyLines | None = None) -> None:
    """Apply `--set key=value` in place; values are TOML, or text where they are none.

    lines: remembers what was changed, for messages.
    """
    import tomli

    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            shown_item = one_line_of(repr(item))
            raise UsageError(f"--set {shown_item}: expected key=value, such as train.seed=1")
        try:
            value = tomli.loads(f"value = {text}")["value"]
        except (tomli.TOMLDecodeError, RecursionError):
            value = text.strip()
        except ValueError:  # Python reads at most 4,300 digits
            raise UsageError(f"--set {one_line_of(item)}: {TOO_LONG}") from None
        try:
            path = set_value(table, key.strip(), value)
            if lines is not None:
                lines.sets[path] = item
        except UsageError as error:
            raise UsageError(f"--set {one_line_of(item)}: {error}") from None


def set_value(table: dict[str, Any], key: str, value: Any) -> KeyPath:
    """Set `train.seed`, `data.batch.size` or, by instance name, `loss.graph.dim` in place.

    Returns its path, with list indices in place of instance names.
    """
    steps = key.split(".")
    path: KeyPath = ()
    here: Any = table
    for index, step in enumerate(steps[:-1]):
        if isinstance(here, dict):
            if index == 0 and step not in here:
                known = _top_keys(here)
                if step not in known:
                    raise UsageError(f"no table {step!r}{nearest(step, known)}")
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
        if len(steps) == 1 and last not in (known := _top_keys(here)):
            raise UsageError(f"no table or key {last!r}{nearest(last, known)}")
        here[last] = value
        return (*path, last)
    if isinstance(here, list) and _is_index(last, here):
        here[int(last)] = value
        return (*path, int(last))
    raise UsageError(f"{'.'.join(steps[:-1])!r} is no table, but {shown(here)}")


def _top_keys(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tables and keys that a run file may have, those of its observers too."""
    plugins = table.get("plugins", [])
    named = plugins if isinstance(plugins, list) else []
    return (*TOP_KEYS, *(name for name in named if isinstance(name, str)))


def _is_index(step: str, items: list[Any]) -> bool:
    """Return whether a step of a dotted key counts one of the items."""
    return step.isdecimal() and len(step) < 10 and int(step) < len(items)


def _member(items: list[Any], step: str, kind: str) -> Any:
    """Return the table of a list that a step of a dotted key means, by name or index."""
    names = [item.get("name") for item in items if isinstance(item, dict)]
    if step in names:
        return items[names.index(step)]
    if _is_index(step, items):
        return items[int(step)]
    known = [name for name in names if isinstance(name, str)]
    hint = nearest(step, known) or f"; there are {', '.join(known) or 'none'}"
    raise UsageError(f"no {kind} named {step!r}{hint}")
