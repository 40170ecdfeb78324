"""The settings of a component, described for people: `reid plugins NAME` and the documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

import attrs

from reidcore.contracts import settings
from reidcore.support.toml_values import toml_value

_NAMES = {
    bool: "true/false",
    int: "integer",
    float: "number",
    str: "text",
    dict: "table",
    list: "list",
    tuple: "list",
    Any: "any value",
    types.NoneType: "nothing",
    settings.MapName: "map name",
    settings.VectorName: "vector name",
    settings.TensorName: "tensor name",
    settings.FeatureName: "feature name",
    settings.MatcherName: "matcher name",
    settings.LossName: "loss name",
}
_PLURALS = {"text": "texts", "true/false": "true/false", "any value": "any values"}
_BOUNDS = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
_FACTORY: Any = attrs.Factory  # a class, which attrs' type stubs call a function


@attrs.frozen
class SettingDoc:
    """One key of a component's table.

    type: in the words of a run file, such as "list of numbers". default: as TOML, "none" where the
    key can only be left out, None where the key is required. bounds: such as "above 0, at most 1".
    """

    key: str
    type: str
    default: str | None
    bounds: str
    doc: str

    @property
    def summary(self) -> str:
        """Type, default and range in one phrase."""
        default = "required" if self.default is None else f"default {self.default}"
        return ", ".join(filter(None, (self.type, self.bounds, default)))


def describe_settings(config: type) -> list[SettingDoc]:
    """Return the settings of a component's config class, in their order in the class."""
    try:
        hints = typing.get_type_hints(config)
    except Exception:
        # A name imported under TYPE_CHECKING only: the annotation is shown as it is written.
        hints = {}
    return [
        SettingDoc(
            key=field.name,
            type=type_name(hints.get(field.name, field.type)),
            default=_default(field),
            bounds=_bounds(field.metadata.get("bounds")),
            doc=" ".join(str(field.metadata.get("doc", "")).split()),
        )
        for field in attrs.fields(config)
        if field.init
    ]


def _bounds(bounds: Any) -> str:
    """Bounds as `setting` writes them, in words; none of a field that was made otherwise."""
    known = bounds if isinstance(bounds, Mapping) else {}
    return ", ".join(
        f"{_BOUNDS[bound]} {number:g}"
        for bound, number in known.items()
        if bound in _BOUNDS and isinstance(number, int | float)
    )


def type_name(annotation: Any) -> str:
    """An annotation in the words of a run file: "list of numbers" for `list[float]`."""
    if annotation is None or isinstance(annotation, str):
        return annotation or "any value"
    try:
        known = _NAMES.get(annotation)
    except TypeError:
        known = None
    if known:
        return known
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return "one of " + " | ".join(map(toml_value, arguments))
    if origin in (Union, types.UnionType):
        # TOML has no null: an optional key is left out, which its default says.
        given = [one for one in arguments if one is not types.NoneType]
        if set(given) == {int, float}:
            return "number"
        return " or ".join(type_name(one) for one in given)
    if isinstance(origin, type):
        return _container_name(origin, arguments)
    if isinstance(annotation, type) and attrs.has(annotation):
        return "table"
    if hasattr(annotation, "__supertype__"):
        return type_name(annotation.__supertype__)
    return getattr(annotation, "__name__", str(annotation))


def _container_name(origin: type, arguments: tuple[Any, ...]) -> str:
    if issubclass(origin, Mapping):
        return f"table of {_plural(type_name(arguments[1]))}"
    if issubclass(origin, tuple) and arguments[-1:] != (...,):
        items = list(dict.fromkeys(type_name(one) for one in arguments))
        if len(items) == 1:
            return f"list of {len(arguments)} {_plural(items[0])}"
        return f"list of {', '.join(items)}"
    return f"list of {_plural(type_name(arguments[0]))}"


def _plural(name: str) -> str:
    if name.startswith("one of "):
        return name.removeprefix("one of ")
    if name.startswith(("list of ", "table of ")):
        return name.replace(" of ", "s of ", 1)
    return _PLURALS.get(name, " or ".join(f"{one}s" for one in name.split(" or ")))


def _default(field: attrs.Attribute[Any]) -> str | None:
    default = field.default
    if default is attrs.NOTHING:
        return None
    if isinstance(default, _FACTORY):
        if default.takes_self:
            return "computed from the other settings"
        try:
            default = default.factory()
        except Exception:
            return "computed"
    return toml_value(default)
