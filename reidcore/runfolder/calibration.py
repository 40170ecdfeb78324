"""Tells whether a matcher's distances of training pairs, which a run has kept, are still those that
it would give. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

PICTURES = "data.image", "data.interpolation", "data.normalize", "eval.views"
"""Settings of test pictures on which every distance depends."""
SAME_DISTANCES = "fused", "weights", "allow"
"""Settings of parts that do not change what a trained part computes."""


def measured_otherwise(old: Mapping[str, Any], new: Mapping[str, Any], matcher: str) -> str:
    """Return the settings under which the matcher's distances differ, with both values, as words;
    "" where there are none.

    old, new: resolved run files, of the run that measured and of now. A setting that the old one
    does not have is taken as unchanged.
    """
    before = dict(_settings(old, matcher))
    now = dict(_settings(json.loads(json.dumps(new)), matcher))
    return ", ".join(
        f"{key} was {before[key]!r} and is {value!r}"
        for key, value in now.items()
        if key in before and before[key] != value
    )


def _settings(resolved: Mapping[str, Any], matcher: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of all that the matcher's distances depend on."""
    for key in PICTURES:
        table, _, name = key.partition(".")
        if name in (resolved.get(table) or {}):
            yield key, resolved[table][name]
    for role, settings in (resolved.get("parts") or {}).items():
        if role in ("backbone", f"matcher.{matcher}") or role.startswith("head."):
            for name, value in settings.items():
                if name not in SAME_DISTANCES:
                    yield f"{role}.{name}", value
