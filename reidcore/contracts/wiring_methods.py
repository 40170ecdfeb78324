"""Calls wiring methods, which change no setting and return what their kind needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from reidcore.contracts.component import BatchShape, Feature, Matching, Row, TensorSpec
from reidcore.contracts.rows import Facts

_AXES = {"map": 3, "vector": 1}
"""Axes of the features of a kind, where they are fixed."""
_PLAIN = (bool, int, float, str)
_CHANGED = (
    "it changed the setting {!r} from {} to {}, so that the run record would not say what the run "
    "file says; declare the settings with attrs.frozen, and keep elsewhere what is computed of them"
)
_LONGEST = 200
"""Characters of a value that a message quotes."""


class Unkept(Exception):
    """What settings or a wiring method do that their contract forbids, in words."""


def call_wiring(kind: str, config: Any, method: str, *given: Any) -> Any:
    """Call a wiring method of the settings of a component of this kind, and return its result.

    Rows of a reader come as a list. Raises `Unkept` if the method changes a setting or returns
    something else than its kind needs, and whatever the method raises.
    """
    with unchanged(config):
        found = getattr(config, method)(*given)
        if method == "rows" and hasattr(found, "__iter__"):
            found = list(found)
    wanted = _missed(kind, method, found)
    if wanted:
        raise Unkept(f"it returned {_shortened(repr(found))}, not {wanted}")
    return found


def check_as_written(config: Any, table: Mapping[str, Any]) -> None:
    """Raise `Unkept` if a number or text of the settings is not as it stands in their table.

    Settings that a converter of their class makes are the author's choice.
    """
    for field in attrs.fields(type(config)):
        key = field.alias or field.name
        kept = getattr(config, field.name)
        written = table.get(key)
        if type(kept) is float and type(written) is int:
            written = float(written)  # as a setting takes it, also where that is not exact
        plain = type(kept) in _PLAIN and type(written) in _PLAIN and field.converter is None
        if plain and kept != written and kept == kept:
            raise Unkept(_CHANGED.format(key, written, kept))


@contextmanager
def unchanged(config: Any) -> Iterator[None]:
    """Raise `Unkept` after a `with` block that has changed the settings."""
    before = _settings(config)
    yield
    for name, value in _settings(config).items():
        if value != before[name]:
            raise Unkept(_CHANGED.format(name, _shortened(before[name]), _shortened(value)))


def _settings(config: Any) -> dict[str, str]:
    """Return the settings as texts that tell whether one has changed."""
    if not attrs.has(type(config)):
        return {}
    settings = attrs.asdict(config, filter=lambda field, _: field.init)
    return {name: repr(value) for name, value in settings.items()}


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _missed(kind: str, method: str, found: Any) -> str:
    """Return what a wiring method had to return, "" if it did."""
    if method == "check":
        sound = kind != "postprocessor" or type(found).__name__ in ("bool", "bool_")
        return "" if sound else "True or False, whether distances lie in [0, 1] afterwards"
    fits, wanted = {
        "outputs": (_are_outputs, "{name: Feature} with whole numbers as extents"),
        "describe": (_is_matching, "a Matching whose template is {name: TensorSpec}"),
        "batch": (_is_shape, "a BatchShape of whole numbers"),
        "least": (_is_extent, "a whole number"),
        "facts": (_are_facts, "Facts, or None where nothing is known without the data"),
        "rows": (_are_rows, "a list of Row"),
    }[method]
    return "" if fits(found) else wanted


def _are_outputs(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(key, str) for key in found)
        and all(isinstance(one, Feature) and _is_feature(one) for one in found.values())
    )


def _is_feature(feature: Feature) -> bool:
    axes = _AXES.get(feature.kind, len(feature.shape))
    return len(feature.shape) == axes and all(_is_extent(extent) for extent in feature.shape)


def _is_extent(value: Any) -> bool:
    return hasattr(value, "__index__") and value >= 0


def _is_matching(found: Any) -> bool:
    return (
        isinstance(found, Matching)
        and isinstance(found.template, Mapping)
        and all(isinstance(one, TensorSpec) for one in found.template.values())
        and all(_is_extent(extent) for one in found.template.values() for extent in one.shape)
    )


def _is_shape(found: Any) -> bool:
    return isinstance(found, BatchShape) and all(
        value is None or _is_extent(value) for value in (found.size, found.ids, found.per_id)
    )


def _are_facts(found: Any) -> bool:
    return found is None or (isinstance(found, Facts) and _is_extent(found.identities))


def _are_rows(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(row, Row) for row in found)
