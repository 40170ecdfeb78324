"""Values as they would stand in a TOML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs


def toml_value(value: Any) -> str:
    """Return a value as it would stand in a run file; "none" for None, which TOML cannot write."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        items = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml_value, value))}]"
    return str(value)
