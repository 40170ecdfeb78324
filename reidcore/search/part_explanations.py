"""Explanations by a run's parts themselves.

A backbone, head or loss may have `explain(features, images)`, a matcher `explain(a, b)`; both
return {name: Heat | Lines | Table} (see `reidcore.api`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.contracts.explanations import Explanation, Heat, Lines, Table
from reidcore.contracts.parts import Loss
from reidcore.contracts.pictures import Images
from reidcore.contracts.settings import INSTANCE
from reidcore.errors import PluginError, ReidError
from reidcore.ranking.templates import take
from reidcore.wiring.blame import failure
from reidcore.wiring.plan import Wired


def identity_scores(
    wired: Wired, loss: Loss, features: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return {vector: its scores of every training identity, [B, identities]} of a loss."""
    try:
        return loss.identity_scores(features)
    except Exception as error:
        raise failure(wired, "identity_scores", error) from error


def explained_part(
    wired: Wired, part: nn.Module, features: Mapping[str, Tensor], images: Images
) -> dict[str, Explanation]:
    """Return {`ROLE.name`: explanation} of a backbone, head or loss; empty if it explains nothing.

    Raises PluginError naming the part if it fails or returns something else.
    """
    return _asked(wired, part, (features, images), len(images), lines=False)


def explained_match(
    wired: Wired, matcher: Any, features: Mapping[str, Tensor]
) -> dict[str, Explanation]:
    """Return {`ROLE.name`: explanation} of a matcher, for the first two pictures; the first is the
    query. Its templates come without a gradient, as ranking's do."""
    if not hasattr(matcher, "explain"):
        return {}
    with torch.no_grad():
        plain = {name: value.detach() for name, value in features.items()}
        template = matcher.merge([matcher.template(plain)])
        pair = take(template, slice(0, 1)), take(template, slice(1, 2))
        return _asked(wired, matcher, pair, 2, lines=True)


def _asked(
    wired: Wired, part: nn.Module, given: tuple[Any, ...], pictures: int, lines: bool
) -> dict[str, Explanation]:
    explain = getattr(part, "explain", None)
    if explain is None:
        return {}
    try:
        found = explain(*given)
    except ReidError:
        raise
    except Exception as error:
        raise failure(wired, "explain", error) from error
    complaint = _complaint(found, pictures, lines)
    if complaint:
        raise PluginError(f"{wired.part}: explain {complaint} ({wired.owner})")
    return {f"{wired.part.role}.{name}": explanation for name, explanation in found.items()}


def _complaint(found: Any, pictures: int, lines: bool) -> str:
    """Return a complaint about what `explain` returned, "" if it is as promised."""
    if not isinstance(found, Mapping):
        return f"returned {type(found).__name__}, not {{name: Heat, Lines or Table}}"
    for name, one in found.items():
        if not isinstance(name, str) or not INSTANCE.fullmatch(name):
            return f"used the name {name!r}; expected a-z, 0-9 and _, beginning with a letter"
        if not isinstance(one, Heat | Lines | Table):
            return f"returned {type(one).__name__} as {name!r}, not Heat, Lines or Table"
        if isinstance(one, Lines) and not lines:
            return f"returned Lines as {name!r}; only matchers see two pictures"
        if isinstance(one, Heat) and len(one.values) != pictures:
            return f"returned {name!r} with {len(one.values)} grids for {pictures} pictures"
    return ""
