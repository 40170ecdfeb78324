"""Weights of third parties that plugins name, and where they are kept. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.published_weights import PublishedWeights
from reidcore.contracts.settings import CHECKPOINTS
from reidcore.plugins.registration import WEIGHTS_HOOK, Found, named_by_hook

NAME = re.compile(r"[\w.\-]+")
ADDRESSES = ("https://", "file://")


@attrs.frozen
class LoadedWeights:
    """Published weights with the plugin that names them."""

    found: Found
    weights: PublishedWeights

    @property
    def name(self) -> str:
        """The name in run files."""
        return f"{self.found.name}:{self.weights.name}"

    @property
    def path(self) -> Path:
        """Where the file is kept: among the checkpoints of torch.hub."""
        home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        torch_home = os.environ.get("TORCH_HOME", os.path.join(home, "torch"))
        ending = next(end for end in CHECKPOINTS if self.weights.url.endswith(end))
        file = f"{self.found.name}-{self.weights.name}-{self.weights.sha256[:8]}{ending}"
        return Path(os.path.expanduser(torch_home), "hub", "checkpoints", file).absolute()


def registered_weights(found: Found, module: Any) -> tuple[LoadedWeights, ...]:
    """Return the published weights that an imported plugin names, whose hooks are known to be
    sound. Raises Refused with everything that is wrong with them."""
    every = named_by_hook(
        found, module, WEIGHTS_HOOK, PublishedWeights, "PublishedWeights", _problems
    )
    return tuple(LoadedWeights(found, one) for one in every)


def _problems(one: PublishedWeights) -> Iterable[str]:
    what = f"weights {one.name!r}"
    for field in attrs.fields(PublishedWeights):
        if not isinstance(getattr(one, field.name), str):
            yield f"{what} have a {field.name} that is no text"
            return
    if not NAME.fullmatch(one.name) or one.name.endswith(CHECKPOINTS):
        yield f"{what} have a name that does not match {NAME.pattern}, or ends as a file's"
    if not one.url.startswith(ADDRESSES) or not one.url.endswith(CHECKPOINTS):
        yield (
            f"{what} have url={one.url!r}, which does not begin with {' or '.join(ADDRESSES)} and "
            f"end with one of {', '.join(CHECKPOINTS)}"
        )
    if not re.fullmatch(r"[0-9a-f]{64}", one.sha256):
        yield f"{what} have a sha256 that is not 64 hexadecimal digits in lower case"
    if not one.licence.strip():
        yield f"{what} name no licence"
