"""Thumbnails, and pictures of why two match. These functions block."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import attrs

from reid_gallery.serve.problems import Problem
from reidcore.api import Heat, Lines, Row
from reidcore.errors import DataError
from reidcore.tools import Explained, Search, draw_explanation, load, open_picture

UPLOADED = "your picture"
LOST = "the picture's file is no longer there, or cannot be read"


def thumbnail(row: Row, height: int) -> bytes:
    """Return a row's picture as a JPEG of at most this height and twice this width in pixels."""
    try:
        picture = open_picture(row)
    except DataError:
        raise Problem(404, LOST) from None
    picture.thumbnail((2 * height, height))
    content = BytesIO()
    picture.save(content, "JPEG", quality=88)
    return content.getvalue()


@lru_cache(maxsize=1)
def explainer(folder: str, device: str) -> Search:
    """Return a run of its own for explanations, whose hooks must not see other pictures."""
    return load(folder, device=device)


def explanation(
    search: Search, query: Row, match: Row, ranking: str | None, view: str | None
) -> tuple[bytes, list[str], str]:
    """Return a PNG of why two pictures match, the names of all such views, and that of this one.

    view: a name, by default correspondences where there are any, else heat.
    """
    try:
        distance = float(search.distances([query], [match], ranking)[0, 0])
        pair = Explained(1, query, 1, match, distance, {})
        (pair,) = search.explain_pairs([pair], ranking)
        drawn = {name: one for name, one in pair.found.items() if isinstance(one, Heat | Lines)}
        # Correspondences first, then what the distance comes from, then how strong the maps are.
        names = sorted(
            drawn, key=lambda name: (isinstance(drawn[name], Heat), name.startswith("norm."), name)
        )
        if view is not None and view not in drawn:
            raise Problem(
                422, f"there is no view {view!r} of this pair; there are {', '.join(names)}"
            )
        if not names:
            raise Problem(404, "nothing explains this pair")
        chosen = view or names[0]
        if query.path.startswith("memory-"):  # an upload's own name, which tells nobody anything
            pair = attrs.evolve(pair, query=attrs.evolve(query, path=UPLOADED))
        content = BytesIO()
        draw_explanation(pair, chosen, drawn[chosen]).save(content, "PNG")
    except DataError:
        raise Problem(404, LOST) from None
    return content.getvalue(), names, chosen
