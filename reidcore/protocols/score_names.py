"""Names of scores, which say in which of several ways a score was counted. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import attrs

from reidcore.protocols.base import CMC

Precision = Literal["step", "trapezoid"]
"""Rule by which precision is integrated over recall."""

Ties = Literal["gallery", "grouped", "optimistic", "pessimistic"]
"""Order of gallery pictures at equal distances."""

Counted = Literal["valid", "all"]
"""Queries in the mean: those with a match in the gallery, or all."""

METRICS = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
"""Scores that are always given."""

CURVE = "cmc"
"""Entry of a test set's results that is a list, the CMC curve."""
OPEN_SET_CURVES = ("far", "dir", "confidence", "observed", "weight")
"""Entries of an open set's results that are lists: false alarm rates with the detection and
identification rate at each; and the mean probability of every bin of pairs, the share of them that
are matches, and the bin's weight."""
CURVES = (CURVE, *OPEN_SET_CURVES)
"""Entries of a test set's results that are lists."""
OTHERS = (*CURVES, "queries", "queries_without_match")
"""Entries of a test set's results that are no scores."""

_NAME = re.compile(r"(?P<metric>mAP|mINP|rank-(?P<rank>[1-9]\d*))(?:-[a-z_-]+)?")


def metric_name(text: str) -> str | None:
    """Return the text if it names a metric: mAP, mINP or rank-K, below a million; else None."""
    return text if text in METRICS or re.fullmatch(r"rank-[1-9][0-9]{0,5}", text) else None


def metric_of(name: str) -> str:
    """Return the metric of a score's name: mAP, mINP or rank-K; other names as they are."""
    said = _NAME.fullmatch(name)
    return said["metric"] if said else name


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of scores, each once, in the order mAP, ranks by number, the rest."""

    def place(name: str) -> tuple[int, int]:
        said = _NAME.fullmatch(name)
        if said and said["rank"]:
            return 1, int(said["rank"])
        return (0 if said and said["metric"] == "mAP" else 2), 0

    return sorted(dict.fromkeys(names), key=place)


@attrs.frozen
class Ways:
    """The way in which scores are counted; what is not usual becomes part of their names."""

    precision: Precision = "step"
    ties: Ties = "gallery"
    counted: Counted = "valid"
    cmc: CMC = "picture"

    def name(self, metric: str) -> str:
        """Return the name of a score, such as `mAP`, `mAP-trapezoid-all` or `rank-1-identity`.

        Args:
            metric: mAP, mINP or rank-K.
        """
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
"""The way that leaves no mark on names."""


def tar_name(rate: float) -> str:
    """Return the name of a verification score, such as `TAR@FAR=0.0001`."""
    return f"TAR@FAR={rate:g}"


def dir_name(rate: float) -> str:
    """Return the name of the detection and identification rate, such as `DIR@FAR=0.01`."""
    return f"DIR@FAR={rate:g}"


def known_names(probability: float) -> tuple[str, str]:
    """Return the names of both rates at a probability, such as `DIR@P=0.9` and `FAR@P=0.9`."""
    return f"DIR@P={probability:g}", f"FAR@P={probability:g}"


ECE = "ECE"
"""Name of the calibration error of the probabilities of pairs."""
ECE_FIRST = "ECE-first"
"""Name of that of the probabilities of first answers."""


def smaller_is_better(name: str) -> bool:
    """Return whether a score is an error: a calibration error, or a rate of false alarms."""
    return name in (ECE, ECE_FIRST) or name.startswith("FAR@")
