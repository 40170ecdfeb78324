"""A gallery of pictures that grows, answers and forgets, kept in Lance tables.

from reid_gallery import Gallery

gallery = Gallery.create("runs/demo", "gallery")     # later: Gallery.open("gallery")
gallery.add("pictures")                              # those that are there already are skipped
for answer in gallery.search(["new.jpg"], top=5):
    for match in answer.matches:
        print(match.source, match.camera, match.time, match.distance, match.probability)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid_gallery.answers import Answer, Match
    from reid_gallery.filters import Filter
    from reid_gallery.gallery import Gallery

__all__ = ["Answer", "Filter", "Gallery", "Match"]

_PLACES = {"Answer": "answers", "Filter": "filters", "Gallery": "gallery", "Match": "answers"}


def __getattr__(name: str) -> Any:
    """Import the module of a name that is used for the first time."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"reid_gallery.{_PLACES[name]}"), name)
