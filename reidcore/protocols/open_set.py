"""The protocol of an open set: some queries show nobody who is in the gallery. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.errors import UsageError
from reidcore.protocols.base import Task, Trial
from reidcore.protocols.cross_camera import CrossCamera

DRAW = "open-set-1"
"""Name and version of `digest`; its draws are part of published scores, so it may not change."""


def digest(seed: int, trial: int, pid: str) -> bytes:
    """Return SHA-256 of `open-set-1 SEED TRIAL PID` in UTF-8, by which identities are drawn.

    Args:
        seed: Setting of the protocol.
        trial: Number of the trial, from 0.
        pid: Identity.
    """
    return sha256(f"{DRAW} {seed} {trial} {pid}".encode()).digest()


@attrs.frozen
class OpenSet(CrossCamera):
    """`cross_camera` with some of the query identities taken out of the gallery, so that their
    queries have nothing to find.

    In a trial those identities are unknown whose digest is least, so a draw is the same in any
    order of lines, on any machine. Queries that have no match anyway are unknown too.
    """

    name: ClassVar[str] = "open_set"

    unknown: float = setting(
        "Share of the identities of queries that is taken out of the gallery, rounded to a whole "
        "number of them; 0 where the data have queries without a match themselves.",
        default=0.5,
        at_least=0,
        below=1,
    )
    trials: int = setting("Draws, whose scores are averaged.", default=5, at_least=1)
    seed: int = setting("Another number draws other identities.", default=0, at_least=0)
    far_at: list[float] = setting(
        "False alarm rates, shares of the queries without a match, at which DIR is reported.",
        default=[0.01, 0.1],
        above=0,
        at_most=1,
    )
    known_at: list[float] = setting(
        "Probabilities from which an answer counts as known, at which DIR and FAR are reported: "
        "thresholds that do not depend on the test set.",
        default=[0.9],
        at_least=0,
        at_most=1,
    )

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        ((closed,),) = (task.trials for task in super().tasks(rows))
        wanted = dict.fromkeys(rows[number].pid for number in closed.query)
        there = {rows[number].pid for number in closed.gallery}
        known = [pid for pid in wanted if pid in there]
        count = round(self.unknown * len(wanted))
        if count >= len(known) or (count == 0 and len(known) == len(wanted)):
            left = len(known) - count
            none = "no query would have a match" if left <= 0 else "every query would have a match"
            raise UsageError(
                f"protocol open_set: {none}: {len(known)} of {len(wanted)} identities of queries "
                f"are in the gallery, and unknown = {self.unknown:g} takes {count} of them out"
            )

        def trial(number: int) -> Trial:
            out = set(sorted(known, key=lambda pid: digest(self.seed, number, pid))[:count])
            return Trial(closed.query, tuple(n for n in closed.gallery if rows[n].pid not in out))

        return [Task("", tuple(map(trial, range(self.trials if count else 1))))]
