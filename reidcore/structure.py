"""TOML tables to attrs instances, strictly: no silent conversion, every problem at once.

cattrs' stock converter turns 2.7 into 2 for int, true into 1 and "abc" into ['a', 'b', 'c'], so
each basic type has its own hook here.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from reidcore.errors import nearest

TOML_NAMES = {
    bool: "true or false",
    int: "int",
    float: "number",
    str: "text",
    list: "list",
    dict: "table",
}


class Mismatch(ValueError):
    """A value that does not fit its declared type; the text says what was found and expected."""


def shown(value: Any) -> str:
    """A TOML value as "float 5.5", "text 'a'" or "table with keys a, b", for messages."""
    if isinstance(value, bool):
        return f"bool {str(value).lower()}"
    if isinstance(value, int):
        return f"int {value}"
    if isinstance(value, float):
        return f"float {value!r}"
    if isinstance(value, str):
        return f"text {value!r}"
    if isinstance(value, Mapping):
        return f"table with keys {', '.join(map(str, value)) or 'none'}"
    if isinstance(value, list):
        return f"list {value!r}"
    return f"{type(value).__name__} {value!r}"


def _exact(kind: type, accept: tuple[type, ...] = ()) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is kind or type(value) in accept:
            return kind(value)
        raise Mismatch(f"expected {TOML_NAMES[kind]}, got {shown(value)}")

    return hook


def _literal(value: Any, declared: Any) -> Any:
    choices = get_args(declared)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    text = ", ".join(repr(choice) for choice in choices)
    near = nearest(value, [c for c in choices if isinstance(c, str)]) if type(value) is str else ""
    raise Mismatch(f"expected one of {text}, got {shown(value)}{near}")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)

    def union(value: Any, declared: Any) -> Any:
        members = [member for member in get_args(declared) if member is not type(None)]
        if value is None and len(members) < len(get_args(declared)):
            return None
        if len(members) == 1:
            return converter.structure(value, members[0])
        for member in members:
            base = get_origin(member) or member
            fits = isinstance(value, base) if isinstance(base, type) else False
            if fits and not (isinstance(value, bool) and base is not bool):
                return converter.structure(value, member)
        names = " or ".join(
            TOML_NAMES.get(get_origin(m) or m, getattr(m, "__name__", str(m))) for m in members
        )
        raise Mismatch(f"expected {names}, got {shown(value)}")

    def sequence_factory(declared: Any) -> Any:
        inner = get_args(declared)
        origin = get_origin(declared) or declared
        fixed = origin is tuple and inner and inner[-1] is not Ellipsis

        def hook(value: Any, _: Any) -> Any:
            if type(value) not in (list, tuple):
                raise Mismatch(f"expected list, got {shown(value)}")
            if fixed and len(value) != len(inner):
                raise Mismatch(f"expected a list of {len(inner)}, got {shown(list(value))}")
            types_ = inner if fixed else [inner[0] if inner else Any] * len(value)
            items, failures = [], []
            for index, (item, kind) in enumerate(zip(value, types_, strict=True)):
                try:
                    items.append(item if kind is Any else converter.structure(item, kind))
                except Exception as error:
                    error.__notes__ = [
                        *getattr(error, "__notes__", []),
                        cattrs.IterableValidationNote(f"[{index}]", index, kind),
                    ]
                    failures.append(error)
            if failures:
                raise IterableValidationError("", failures, declared)
            return tuple(items) if origin is tuple else items

        return hook

    def mapping_factory(declared: Any) -> Any:
        arguments = get_args(declared)
        kind = arguments[1] if len(arguments) == 2 else Any

        def hook(value: Any, _: Any) -> Any:
            if not isinstance(value, Mapping):
                raise Mismatch(f"expected table, got {shown(value)}")
            items, failures = {}, []
            for key, item in value.items():
                try:
                    items[key] = item if kind is Any else converter.structure(item, kind)
                except Exception as error:
                    error.__notes__ = [
                        *getattr(error, "__notes__", []),
                        cattrs.IterableValidationNote(f".{key}", f".{key}", kind),
                    ]
                    failures.append(error)
            if failures:
                raise IterableValidationError("", failures, declared)
            return items

        return hook

    converter.register_structure_hook(bool, _exact(bool))
    converter.register_structure_hook(int, _exact(int))
    converter.register_structure_hook(float, _exact(float, (int,)))
    converter.register_structure_hook(str, _exact(str))
    converter.register_structure_hook_func(lambda t: get_origin(t) is Literal, _literal)
    converter.register_structure_hook_func(
        lambda t: get_origin(t) in (Union, types.UnionType), union
    )
    converter.register_structure_hook_factory(
        lambda t: t in (list, tuple) or get_origin(t) in (list, tuple), sequence_factory
    )
    converter.register_structure_hook_factory(
        lambda t: t is dict or get_origin(t) in (dict, Mapping),
        mapping_factory,
    )
    return converter


_CONVERTER = _converter()


@attrs.frozen
class Fault:
    """One problem inside a table: path of keys (and list indices), and what is wrong."""

    path: tuple[str | int, ...]
    text: str


def structure(cls: type, table: Any) -> tuple[Any, list[Fault]]:
    """(instance, []) or (None, faults) for an attrs class and a parsed TOML table."""
    if not isinstance(table, Mapping):
        return None, [Fault((), f"expected table, got {shown(table)}")]
    resolve(cls)
    try:
        return _CONVERTER.structure(table, cls), []
    except Exception as error:
        return None, list(_faults(error, (), cls))


def resolve(cls: type) -> type:
    """The attrs class with its annotations evaluated (`from __future__ import annotations`),
    nested attrs classes included."""
    if getattr(cls, "_reid_resolved", None) != cls.__qualname__:
        attrs.resolve_types(cls)
        for field in attrs.fields(cls):
            for part in _inside(field.type):
                if attrs.has(part) and part is not cls:
                    resolve(part)
        cls._reid_resolved = cls.__qualname__  # type: ignore[attr-defined]
    return cls


def _inside(declared: Any) -> list[Any]:
    arguments = get_args(declared)
    return [declared] if not arguments else [x for a in arguments for x in _inside(a)]


def _faults(error: BaseException, path: tuple[str | int, ...], cls: Any) -> list[Fault]:
    if isinstance(error, ClassValidationError):
        found = []
        for inner, note in error.group_exceptions()[0]:
            found += _faults(inner, (*path, note.name), note.type)
        for inner in error.group_exceptions()[1]:
            found += _faults(inner, path, error.cl)
        return found
    if isinstance(error, IterableValidationError):
        return [
            fault
            for inner, note in error.group_exceptions()[0]
            for fault in _faults(inner, (*path, note.index), note.type)
        ]
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        return [
            Fault((*path, key), f"unknown key {key!r}{nearest(key, known)}{_keys(known, key)}")
            for key in sorted(error.extra_fields)
        ]
    if isinstance(error, KeyError) and path and error.args == (path[-1],):
        return [Fault(path[:-1], f"missing key {path[-1]!r}")]
    field = getattr(error, "reid_field", None)
    return [Fault(path if field is None else (*path, field), str(error))]


def _keys(known: list[str], key: str) -> str:
    if nearest(key, known):
        return ""
    return f"; the keys here are {', '.join(known)}" if known else "; this table takes no keys"


def dotted(path: tuple[str | int, ...]) -> str:
    """(".k1" or ".steps.at[0]") for a path of keys and indices."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part).lstrip('.')}"
    return text
