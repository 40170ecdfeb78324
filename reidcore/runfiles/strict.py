"""TOML tables to attrs instances, strictly: no silent conversion, every problem at once.

cattrs' stock converter turns 2.7 into 2 for int, true into 1 and "abc" into ['a', 'b', 'c'], so
each basic type has its own hook here.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs

from reidcore.errors import nearest
from reidcore.runfiles.keys import LARGEST, KeyPath
from reidcore.runfiles.value_words import TOML_NAMES, literals, shown, type_in_words


class Mismatch(ValueError):
    """A value that does not fit its declared type; the text says what was found and expected."""


@attrs.frozen
class Fault:
    """One problem inside a table: path of keys (and list indices), and what is wrong."""

    path: KeyPath
    text: str


class _Faults(ValueError):
    """All problems inside one value, with their paths from it."""

    def __init__(self, faults: list[Fault]):
        self.faults = faults
        super().__init__("; ".join(fault.text for fault in faults))


def _exact(kind: type) -> Any:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return kind(value)
        raise Mismatch(f"expected {TOML_NAMES[kind]}, got {shown(value)}")

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) not in (float, int):
        raise Mismatch(f"expected {TOML_NAMES[float]}, got {shown(value)}")
    if not math.isfinite(value):
        raise Mismatch(f"expected a finite number, got {shown(value)}")
    if abs(value) > LARGEST:
        way = f"at most {LARGEST:g}" if value > 0 else f"at least {-LARGEST:g}"
        raise Mismatch(f"expected a number {way}, got {shown(value)}")
    return float(value)


def _literal(value: Any, declared: Any) -> Any:
    choices = get_args(declared)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    text = ", ".join(repr(choice) for choice in choices)
    near = nearest(value, [c for c in choices if isinstance(c, str)]) if type(value) is str else ""
    raise Mismatch(f"expected one of {text}, got {shown(value)}{near}")


def _faults(error: Exception) -> list[Fault]:
    if isinstance(error, _Faults):
        return error.faults
    field = getattr(error, "reid_field", None)
    return [Fault(() if field is None else (field,), str(error))]


def _fits(member: Any, value: Any) -> bool:
    """Return whether a value is of the form of this member of a union, its inside not looked at."""
    member = getattr(member, "__supertype__", member)
    base = get_origin(member) or member
    if base is Literal:
        return any(type(one) is type(value) and one == value for one in get_args(member))
    if base is float:
        return type(value) in (float, int)
    if isinstance(base, type) and attrs.has(base):
        return isinstance(value, Mapping)
    if base is tuple:
        return isinstance(value, list)
    return isinstance(base, type) and isinstance(value, base) and type(value) is not bool


_CONVERTER = cattrs.Converter()


def _structure_each(parts: Iterable[tuple[Any, Any, Any]], faults: list[Fault]) -> dict[Any, Any]:
    """Return the sound ones of (key or index, value, type); faults of the others are appended."""
    sound = {}
    for step, value, kind in parts:
        try:
            sound[step] = value if kind is Any else _CONVERTER.structure(value, kind)
        except Exception as error:
            faults += [Fault((step, *fault.path), fault.text) for fault in _faults(error)]
    return sound


def _union(value: Any, declared: Any) -> Any:
    members = [member for member in get_args(declared) if member is not type(None)]
    if value is None and len(members) < len(get_args(declared)):
        return None
    fitting = [member for member in members if _fits(member, value)]
    if type(value) in (bool, int) and type(value) in members:
        fitting = [type(value)]
    if len(members) == 1 or fitting:
        return _CONVERTER.structure(value, (fitting or members)[0])
    names = " or ".join(type_in_words(member) for member in members)
    choices = [one for member in members for one in literals(member) if isinstance(one, str)]
    near = nearest(value, choices) if type(value) is str else ""
    raise Mismatch(f"expected {names}, got {shown(value)}{near}")


def _table_as(cls: Any) -> Callable[[Any, Any], Any]:
    """Return the hook that makes an instance of an attrs class."""
    resolve(cls)
    fields = {field.alias or field.name: field for field in attrs.fields(cls) if field.init}

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Mismatch(f"expected table, got {shown(value)}")
        faults: list[Fault] = []
        given = [(key, value[key], field.type) for key, field in fields.items() if key in value]
        sound = _structure_each(given, faults)
        for key, field in fields.items():
            if key not in value and field.default is attrs.NOTHING:
                faults.append(Fault((), f"missing key {key!r}"))
        faults += [_unknown(key, list(fields)) for key in sorted(value.keys() - fields.keys())]
        if not faults:
            try:
                return cls(**sound)
            except Exception as error:
                faults += _faults(error)
        faults += [fault for fault in _complaints(cls, fields, sound) if fault not in faults]
        raise _Faults(faults)

    return hook


def _sequence_as(declared: Any) -> Callable[[Any, Any], Any]:
    """Return the hook that makes a list or tuple of a declared type."""
    inner = get_args(declared)
    origin = get_origin(declared) or declared
    fixed = origin is tuple and inner and inner[-1] is not Ellipsis

    def hook(value: Any, _: Any) -> Any:
        if type(value) not in (list, tuple):
            raise Mismatch(f"expected list, got {shown(value)}")
        if fixed and len(value) != len(inner):
            raise Mismatch(f"expected a list of {len(inner)}, got {shown(list(value))}")
        kinds = inner if fixed else [inner[0] if inner else Any] * len(value)
        faults: list[Fault] = []
        sound = _structure_each(zip(range(len(value)), value, kinds, strict=True), faults)
        if faults:
            raise _Faults(faults)
        return tuple(sound.values()) if origin is tuple else list(sound.values())

    return hook


def _mapping_as(declared: Any) -> Callable[[Any, Any], Any]:
    """Return the hook that makes a dictionary of a declared type."""
    arguments = get_args(declared)
    kind = arguments[1] if len(arguments) == 2 else Any

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Mismatch(f"expected table, got {shown(value)}")
        faults: list[Fault] = []
        sound = _structure_each([(key, item, kind) for key, item in value.items()], faults)
        if faults:
            raise _Faults(faults)
        return sound

    return hook


def _is(*origins: Any) -> Callable[[Any], bool]:
    """Return a test of a declared type: it is one of `origins`, or one of them with arguments."""
    return lambda declared: declared in origins or get_origin(declared) in origins


_CONVERTER.register_structure_hook(bool, _exact(bool))
_CONVERTER.register_structure_hook(int, _exact(int))
_CONVERTER.register_structure_hook(float, _float)
_CONVERTER.register_structure_hook(str, _exact(str))
_CONVERTER.register_structure_hook_func(_is(Literal), _literal)
_CONVERTER.register_structure_hook_func(_is(Union, types.UnionType), _union)
_CONVERTER.register_structure_hook_factory(_is(list, tuple), _sequence_as)
_CONVERTER.register_structure_hook_factory(_is(dict, Mapping), _mapping_as)
_CONVERTER.register_structure_hook_factory(attrs.has, _table_as)


def _complaints(
    cls: Any, fields: Mapping[str, attrs.Attribute[Any]], sound: Mapping[Any, Any]
) -> list[Fault]:
    """Return what the validators refuse among the sound values of a table that has a fault."""
    instance: Any = None
    try:
        with attrs.validators.disabled():
            instance = cls(**sound)
    except Exception:
        pass  # a key is missing or wrong; validators that look at other keys are left out
    found: list[Fault] = []
    for key, value in sound.items():
        validator: Callable[..., Any] | None = fields[key].validator
        try:
            if validator is not None:
                validator(instance, fields[key], value)
        except Exception as error:
            if instance is not None or hasattr(error, "reid_field"):
                found += _faults(error)
    return found


def structure(cls: type, table: Any, core_keys: Sequence[str] = ()) -> tuple[Any, list[Fault]]:
    """Return (instance, []) or (None, faults) for an attrs class and a parsed TOML table.

    cls: its fields' types and validators say what fits. core_keys: further keys that the user may
    write beside the class's, for suggestions.
    """
    if not isinstance(table, Mapping):
        return None, [Fault((), f"expected table, got {shown(table)}")]
    keys = [field.alias or field.name for field in attrs.fields(resolve(cls)) if field.init]
    unknown = [_unknown(key, [*keys, *core_keys]) for key in sorted(table.keys() - set(keys))]
    try:
        own = {key: value for key, value in table.items() if key in keys}
        value: Any = _CONVERTER.structure(own, cls)
        return None if unknown else value, unknown
    except Exception as error:
        return None, [*_faults(error), *unknown]


def resolve(cls: type) -> type:
    """Return the attrs class with the annotations of its fields, and of theirs, evaluated.

    `from __future__ import annotations` leaves them as texts.
    """
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


def _unknown(key: str, known: list[str]) -> Fault:
    keys = f"; the keys here are {', '.join(known)}" if known else "; this table takes no keys"
    return Fault((key,), f"unknown key {key!r}{nearest(key, known) or keys}")
