"""Checks the names by which parts refer to features, matchers and losses. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import attrs

from reidcore.contracts.component import Feature, Matching
from reidcore.contracts.settings import (
    FeatureName,
    LossName,
    MapName,
    MatcherName,
    TensorName,
    VectorName,
)
from reidcore.errors import nearest
from reidcore.runfiles.runfile import RunFile
from reidcore.runfiles.strict import resolve
from reidcore.wiring.parts import _Resolver
from reidcore.wiring.plan import Wired

FEATURE_KINDS = {MapName: "map", VectorName: "vector", TensorName: "tensor", FeatureName: ""}


def references(config: Any) -> Iterator[tuple[str, Any, str]]:
    """(setting, name type, name) for every setting that names a feature, matcher or loss."""
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


def _reachable_heads(run: RunFile, resolver: _Resolver) -> dict[str, Wired | None]:
    """For evaluation: the heads that the rankings' matchers reach, others not even loaded."""
    used = {name for ranking in run.rankings for name in ranking.matchers}
    needed: set[str] = set()
    for part in run.of("matcher"):
        if not used or part.name in used:
            needed |= _mentioned(part.table)
    heads: dict[str, Wired | None] = {}
    for part in reversed(run.of("head")):
        if part.name in needed:
            heads[part.name] = resolver.wired(part)
            needed |= _mentioned(part.table)
    return {part.name: heads[part.name] for part in run.of("head") if part.name in heads}


def _mentioned(value: Any) -> set[str]:
    """Instance names in texts of the form `instance.output` anywhere in a table."""
    if isinstance(value, str):
        return {value.partition(".")[0]} if "." in value else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _mentioned(item)}
    return set()


def _check_references(
    resolver: _Resolver,
    wired: Wired,
    features: Mapping[str, Feature],
    matchers: Mapping[str, Matching],
    losses: Sequence[str],
) -> tuple[bool, list[tuple[str, str]]]:
    run, part = resolver.run, wired.part
    ok, reads = True, []
    for field, kind, name in references(wired.config):
        if kind is MatcherName:
            known = [other.name for other in run.of("matcher")]
            if name not in known:
                resolver.add(part, field, f"names the matcher {name!r}{_suggest(name, known)}")
                ok = False
            elif name not in matchers:
                ok = False  # its own failure is reported
            continue
        if kind is LossName:
            known = [other for other in losses if other != part.name]
            if name not in known:
                resolver.add(part, field, f"names the loss {name!r}{_suggest(name, known)}")
                ok = False
            continue
        wants = FEATURE_KINDS[kind]
        fitting = {key: feature for key, feature in features.items() if wants in ("", feature.kind)}
        if name not in features:
            ok = False
            instance = name.partition(".")[0]
            role = "backbone" if instance == "backbone" else f"head.{instance}"
            if role in resolver.failed:
                resolver.failed.add(part.role)
                continue
            later = [head.name for head in run.of("head")]
            if part.where == "head" and instance in later[later.index(part.name) :]:
                why = "is its own output" if instance == part.name else "is computed later"
                resolver.add(part, field, f"names {name!r}, which {why}; heads run in file order")
                continue
            resolver.add(
                part,
                field,
                f"names {name!r}, which nothing provides{nearest(name, features) or '.'} "
                f"Available {wants + 's' if wants else 'features'}: {_listed(fitting)}",
            )
        elif wants and features[name].kind != wants:
            resolver.add(
                part,
                field,
                f"needs a {wants}, but {name!r} is a {features[name]}. "
                f"Available {wants}s: {_listed(fitting)}",
            )
            ok = False
        else:
            reads.append((field, name))
    if not ok:
        resolver.failed.add(part.role)
    return ok, reads


def _suggest(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return near if near else f", which does not exist; there are {', '.join(known) or 'none'}"


def _listed(features: Mapping[str, Feature]) -> str:
    return ", ".join(f"{name} ({feature})" for name, feature in features.items()) or "none"


def _wanted(
    heads: Sequence[Wired], readers: Sequence[Wired]
) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """Which outputs somebody reads, directly or through other heads."""
    wanted: dict[str, set[str]] = {"backbone": set()}

    def take(wired: Wired) -> None:
        for _, name in wired.reads:
            instance, _, output = name.partition(".")
            role = "backbone" if instance == "backbone" else f"head.{instance}"
            wanted.setdefault(role, set()).add(output)

    for reader in readers:
        take(reader)
    unread = []
    for head in reversed(heads):
        if wanted.get(head.part.role):
            take(head)
        else:
            unread.append(head.part.role)
    return {role: frozenset(names) for role, names in wanted.items()}, tuple(reversed(unread))
