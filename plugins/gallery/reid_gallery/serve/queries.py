"""What is looked for, such that several requests' searches can be done together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch

from reidcore.errors import ReidError
from reidcore.tools import Templates


@attrs.frozen
class Wanted:
    """What a search is to find, beside its pictures, as for `Gallery.search`."""

    camera: tuple[str, ...] | None = None
    after: str | None = None
    before: str | None = None
    where: str = ""
    top: int = 10
    ranking: str | None = None
    candidates: int = 200
    unknown_above: float | None = None

    def told(self) -> dict[str, Any]:
        """Return it as arguments."""
        return attrs.asdict(self)


@attrs.frozen
class Kind:
    """What searches that are done together have in common. made_by: the run of their templates.
    alone: nobody else's, where they are not to be done with others."""

    wanted: Wanted
    made_by: str
    alone: object | None


def each(templates: Templates) -> list[Templates]:
    """Return the templates of each picture. Raises ReidError where the network gave more or fewer
    than there are pictures, since some would be another's."""
    count = len(templates.rows)
    sizes = {len(value) for template in templates.parts.values() for value in template.values()}
    if sizes - {count}:
        raise ReidError(f"the network gave {max(sizes - {count})} templates of {count} pictures")

    def one(at: int) -> Templates:
        parts = {
            name: {key: value[at : at + 1] for key, value in template.items()}
            for name, template in templates.parts.items()
        }
        return Templates(templates.rows[at : at + 1], parts, templates.made_by)

    return [one(at) for at in range(count)]


def joined(some: Sequence[Templates]) -> Templates:
    """Return templates of one run together."""
    first = some[0]
    parts = {
        name: {key: torch.cat([one.parts[name][key] for one in some]) for key in template}
        for name, template in first.parts.items()
    }
    return Templates(tuple(row for one in some for row in one.rows), parts, first.made_by)
