"""How scores may be counted, and names that say how they were. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import attrs

from reidcore.protocols.base import CMC

Precision = Literal["step", "trapezoid"]
Ties = Literal["gallery", "grouped", "optimistic", "pessimistic"]
Counted = Literal["valid", "all"]

METRICS = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
OTHERS = ("cmc", "queries", "queries_without_match")
"""What stands beside the scores and is none."""
_NAME = re.compile(r"(?P<metric>mAP|mINP|rank-(?P<rank>[1-9]\d*))(?:-[a-z_-]+)?")


def metric_name(text: str) -> str | None:
    """The text if it names a score, whichever way it is counted: mAP, mINP, rank-K; else None."""
    return text if text in METRICS or re.fullmatch(r"rank-[1-9]\d*", text) else None


def metric_of(name: str) -> str:
    """mAP, mINP or rank-K for a score's name; other names as they are."""
    said = _NAME.fullmatch(name)
    return said["metric"] if said else name


def in_order(names: Iterable[str]) -> list[str]:
    """Names of scores, each once: mAP, ranks by number, then the rest."""

    def place(name: str) -> tuple[int, int]:
        said = _NAME.fullmatch(name)
        if said and said["rank"]:
            return 1, int(said["rank"])
        return (0 if said and said["metric"] == "mAP" else 2), 0

    return sorted(dict.fromkeys(names), key=place)


@attrs.frozen
class Ways:
    """How scores are counted; what is not the usual way is part of a score's name."""

    precision: Precision = "step"
    ties: Ties = "gallery"
    counted: Counted = "valid"
    cmc: CMC = "picture"

    def name(self, metric: str) -> str:
        """Such as `mAP`, `mAP-trapezoid-all` or `rank-1-identity`, for mAP, mINP or rank-K."""
        marks: list[str] = []
        ordered = self.ties in ("optimistic", "pessimistic")
        if metric == "mAP":
            marks += [self.precision] * (self.precision != "step")
            marks += [self.ties] * (self.ties != "gallery")
        elif metric == "mINP":
            marks += [self.ties] * ordered
        else:
            marks += [self.cmc] * (self.cmc != "picture")
            marks += [self.ties] * (ordered and self.cmc != "single_shot")
        marks += [self.counted] * (self.counted != "valid")
        return "-".join([metric, *marks])


USUAL = Ways()


def tar_name(rate: float) -> str:
    """Such as `TAR@FAR=0.0001`."""
    return f"TAR@FAR={rate:g}"
