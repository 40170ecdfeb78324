"""Values, types and places of TOML in the words of messages. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from reidcore.runfiles.keys import KeyPath
from reidcore.support.toml_values import toml_value
from reidcore.support.wording import shortened

TOML_NAMES = {
    bool: "true or false",
    int: "int",
    float: "number",
    str: "text",
    list: "list",
    dict: "table",
}

LONGEST = 60
"""Characters of a value that a message quotes."""


def shown(value: Any) -> str:
    """Return a TOML value as "float 5.5", "text 'a'" or "table with keys a, b"."""
    if isinstance(value, bool):
        return f"bool {str(value).lower()}"
    if isinstance(value, int):
        digits = int(value.bit_length() * 0.30103) + 1  # more than 4,300 cannot be written
        return f"int {value}" if digits <= LONGEST else f"int of about {digits} digits"
    if isinstance(value, float):
        return f"float {value!r}"
    if isinstance(value, str):
        return f"text {shortened(repr(value), 3 * LONGEST)}"
    if isinstance(value, Mapping):
        return f"table with keys {shortened(', '.join(map(str, value)), 5 * LONGEST) or 'none'}"
    if isinstance(value, list):
        text = toml_value(value)
        return f"list {text if len(text) <= LONGEST else text[:LONGEST] + ' ...'}"
    return f"{type(value).__name__} {value}"


def literals(member: Any) -> tuple[Any, ...]:
    """Return the values of a `Literal`, none of another type."""
    return get_args(member) if get_origin(member) is Literal else ()


def type_in_words(member: Any) -> str:
    """Return a declared type as messages name it, such as "number" for float."""
    member = getattr(member, "__supertype__", member)
    if literals(member):
        return " or ".join(map(toml_value, literals(member)))
    base = get_origin(member) or member
    if isinstance(base, type) and attrs.has(base):
        base = dict
    return TOML_NAMES.get(list if base is tuple else base, getattr(base, "__name__", str(base)))


def dotted(path: KeyPath) -> str:
    """Return a path of keys and indices as ".k1" or ".steps.at[0]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part).lstrip('.')}"
    return text
