"""Settings classes as JSON schemas, for editors that complete and check run files. Torch-free."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

import attrs

Schema = dict[str, Any]
"""A JSON schema of draft 7."""
_BOUNDS = {
    "at_least": "minimum",
    "above": "exclusiveMinimum",
    "at_most": "maximum",
    "below": "exclusiveMaximum",
}
_BASIC = {bool: "boolean", int: "integer", float: "number", str: "string"}


def table_schema(config: type) -> Schema:
    """Return the schema of a table that an attrs class reads: its keys and no others."""
    try:
        hints = typing.get_type_hints(config)
    except Exception:  # a name imported under TYPE_CHECKING only says nothing about its values
        hints = {}
    properties: dict[str, Schema] = {}
    required = []
    for field in attrs.fields(config):
        if not field.init:
            continue
        key = field.alias or field.name
        properties[key] = _setting_schema(field, hints.get(field.name, Any))
        if field.default is attrs.NOTHING:
            required.append(key)
    return table(properties, required)


def table(properties: Mapping[str, Schema], required: typing.Iterable[str] = ()) -> Schema:
    """Return the schema of a table with these keys and no others."""
    needed = list(required)
    return {
        "type": "object",
        "properties": dict(properties),
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def _setting_schema(field: attrs.Attribute[Any], annotation: Any) -> Schema:
    stated = field.metadata.get("bounds")
    bounds = {
        _BOUNDS[name]: number
        for name, number in (stated if isinstance(stated, Mapping) else {}).items()
        if name in _BOUNDS
    }
    schema = type_schema(annotation, bounds)
    if doc := " ".join(str(field.metadata.get("doc", "")).split()):
        schema["description"] = doc
    default = _default(field)
    if default is not None:
        schema["default"] = default
    return schema


def type_schema(annotation: Any, bounds: Mapping[str, float]) -> Schema:
    """Return the schema of the values of an annotated type; what it does not know may be anything.

    bounds: keys of JSON schema that hold for every number in the value, in whatever list or table.
    """
    annotation = getattr(annotation, "__supertype__", annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_schema(arguments[0], bounds)
    if annotation in _BASIC:
        numbers = annotation in (int, float)
        return {"type": _BASIC[annotation], **(bounds if numbers else {})}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        # TOML has no null: an optional key is left out.
        members = [type_schema(one, bounds) for one in arguments if one is not types.NoneType]
        return members[0] if len(members) == 1 else {"anyOf": members}
    kind = origin or annotation
    if isinstance(kind, type) and attrs.has(kind):
        return table_schema(kind)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        inner = type_schema(arguments[1], bounds) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": inner}
    if isinstance(kind, type) and issubclass(kind, tuple | list):
        return _list_schema(kind, arguments, bounds)
    return {}


def _list_schema(kind: type, arguments: tuple[Any, ...], bounds: Mapping[str, float]) -> Schema:
    if kind is tuple and arguments and arguments[-1] is not ...:
        items = [type_schema(one, bounds) for one in arguments]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
    return {"type": "array", "items": type_schema(arguments[0], bounds) if arguments else {}}


def _default(field: attrs.Attribute[Any]) -> Any:
    """Return a setting's default as TOML may hold it, None where there is none to show."""
    default: Any = field.default
    factory: Any = attrs.Factory  # a class, which attrs' type stubs call a function
    if isinstance(default, factory):
        if default.takes_self:
            return None
        try:
            default = default.factory()
        except Exception:
            return None
    try:
        return json.loads(json.dumps(default))
    except (TypeError, ValueError):  # NOTHING, and what is no JSON
        return None
