"""Checks the names by which parts refer to features, matchers and losses. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import attrs

from reidcore.contracts.component import Feature
from reidcore.contracts.settings import (
    FeatureName,
    LossName,
    MapName,
    MatcherName,
    TensorName,
    VectorName,
)
from reidcore.errors import nearest
from reidcore.runfiles.runfile import Part, RunFile
from reidcore.runfiles.strict import resolve
from reidcore.wiring.plan import Wired

FEATURE_KINDS = {MapName: "map", VectorName: "vector", TensorName: "tensor", FeatureName: ""}


def references(config: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield (setting, name type, name) for every setting that names a feature, matcher or loss."""
    for field in attrs.fields(resolve(type(config))):
        kind = _name_type(field.type)
        value = getattr(config, field.name)
        if kind is None or value is None:
            continue
        names = [value] if isinstance(value, str) else list(value)
        for name in names:
            if name or field.default != "":  # a setting may be "" where it names nothing
                yield field.name, kind, name


def _name_type(declared: Any) -> Any:
    if declared in FEATURE_KINDS or declared in (MatcherName, LossName):
        return declared
    for argument in get_args(declared) if get_origin(declared) is not None else ():
        found = _name_type(argument)
        if found is not None:
            return found
    return None


def reachable_heads(run: RunFile, matchers: Sequence[Part]) -> list[Part]:
    """Return the heads that these matchers read, directly or through other heads."""
    needed = {name for part in matchers for name in _mentioned(part.table)}
    reached = []
    for part in reversed(run.of("head")):
        if part.name in needed:
            reached.append(part)
            needed |= _mentioned(part.table)
    return reached[::-1]


def _mentioned(value: Any) -> set[str]:
    """Return the instances that texts of the form `instance.output` in a table name."""
    if isinstance(value, str):
        return {value.partition(".")[0]} if "." in value else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _mentioned(item)}
    return set()


def wanted_outputs(
    heads: Sequence[Wired], readers: Sequence[Wired]
) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """Return the outputs by role that `readers` read, directly or through heads, and the roles of
    the heads that nobody reads."""
    wanted: dict[str, set[str]] = {"backbone": set()}

    def take(wired: Wired) -> None:
        for _, name in wired.reads:
            wanted.setdefault(provider_role(name), set()).add(name.partition(".")[2])

    for reader in readers:
        take(reader)
    unread = []
    for head in reversed(heads):
        if wanted.get(head.part.role):
            take(head)
        else:
            unread.append(head.part.role)
    return {role: frozenset(names) for role, names in wanted.items()}, tuple(reversed(unread))


def provider_role(feature: str) -> str:
    """Return the role of the part that provides a feature, such as head.NAME for "NAME.output"."""
    instance = feature.partition(".")[0]
    return "backbone" if instance == "backbone" else f"head.{instance}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, or all there are."""
    near = nearest(name, known)
    return near if near else f", which does not exist; there are {', '.join(known) or 'none'}"


def listing(features: Mapping[str, Feature]) -> str:
    """Return features with their kinds and shapes, for messages."""
    return ", ".join(f"{name} ({feature})" for name, feature in features.items()) or "none"
