"""Training identities that are held out, to fit scales and probabilities on. Torch-free."""

from __future__ import annotations

from hashlib import sha256

import attrs

from reidcore.data.datasets import Loaded
from reidcore.errors import UsageError

DRAW = "hold-out-1"
"""Name and version of `digest`, which may not change."""


def digest(pid: str) -> bytes:
    """Return SHA-256 of `hold-out-1 PID` in UTF-8, by which identities are drawn."""
    return sha256(f"{DRAW} {pid}".encode()).digest()


def hold_out(loaded: Loaded, share: float) -> Loaded:
    """Return a training set without a share of its identities, those whose digest is least, whose
    pictures become its `held`. Of absent data their number alone is known.

    Raises UsageError where the share gives fewer than two identities, or all.
    """
    if not share:
        return loaded
    count = round(share * loaded.identities)
    if count < 2 or count >= loaded.identities:
        raise UsageError(
            f"[data] hold_out = {share:g} is {count} of the {loaded.identities} identities of "
            f"{loaded.source.role} {loaded.source.name!r}; it has to hold out at least 2 and leave "
            "at least 1"
        )
    if loaded.rows is None:
        return attrs.evolve(loaded, held_identities=count)
    pids = sorted({row.pid for row in loaded.rows}, key=digest)
    out = set(pids[:count])
    held = tuple(row for row in loaded.rows if row.pid in out)
    rows = tuple(row for row in loaded.rows if row.pid not in out)
    return attrs.evolve(loaded, rows=rows, held=held)
