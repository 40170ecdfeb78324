"""Settings and wiring of `qaconv.tlift`."""

from __future__ import annotations

import attrs

from reidcore.api import Given, setting


@attrs.frozen
class TLift:
    """Settings of `qaconv.tlift`."""

    tau: float = setting(
        "queries of one camera that are less than so many seconds apart vote together",
        default=100.0,
        above=0,
    )
    sigma: float = setting(
        "seconds from a pivot after which its vote has fallen to 1 / e", default=200.0, above=0
    )
    k: int = setting(
        "how many best pairs of nearby queries and one camera's gallery pictures become pivots; "
        "pairs as good as the last of them are pivots too",
        default=10,
        at_least=1,
    )
    alpha: float = setting(
        "added to the temporal probability, so that appearance counts where it is 0; above 0 the "
        "result may leave [0, 1]",
        default=0.2,
        at_least=0,
    )
    sharpness: float = setting(
        "similarities s become 1 / (1 + (1 / s - 1) ^ sharpness) first; 10 makes sigmoid(z), the "
        "paper's probability of a match, of the sigmoid(z / 10) that qaconv.matcher gives",
        default=1.0,
        above=0,
    )
    prior: float = setting(
        "share of pairs that match: similarities, probabilities as if half of all pairs did, first "
        "become those where so many do, which ranks by appearance as before but weighs time less",
        default=0.5,
        above=0,
        below=1,
    )
    skip_same_camera: bool = setting(
        "whether the gallery pictures of a query's own camera get no temporal probability; the "
        "authors' code gives them one",
        default=False,
    )
    skip_high_cameras: bool = setting(
        "whether queries of cameras that are numbered above all of the gallery's get no temporal "
        "probability, as in the authors' code",
        default=False,
    )

    def check(self, given: Given) -> bool:
        given.need_column("camera")
        given.need_column("time")
        given.need_unit()
        return self.alpha == 0
