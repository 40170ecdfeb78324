"""Settings and wiring of `qaconv.tfusion`."""

from __future__ import annotations

import attrs

from reidcore.api import Given, setting


@attrs.frozen
class TFusion:
    """Settings of `qaconv.tfusion`."""

    top: int = setting(
        "how many of the most similar pictures of other cameras are taken for the query's person; "
        "those as similar as the last of them too",
        default=10,
        at_least=1,
    )
    window: float = setting(
        "seconds around a time difference in which others count as equal to it; 28 are the 700 "
        "frames of the authors' program on Market-1501",
        default=28.0,
        above=0,
    )
    farthest: float | None = setting(
        "pictures that are more seconds apart than this keep their similarity, as those of other "
        "sessions of a camera do; none if not set",
        default=None,
        above=0,
    )
    wrong_accepts: float = setting(
        "share of those taken for the person who are somebody else, E_p",
        default=0.0,
        at_least=0,
        below=0.5,
    )
    wrong_rejects: float = setting(
        "share of the others who are the person all the same, E_n",
        default=0.0,
        at_least=0,
        below=0.5,
    )

    def check(self, given: Given) -> bool:
        given.need_column("camera")
        given.need_column("time")
        given.need_unit()
        given.need_every_distance()
        return True
