"""Training identities that are held out, to score on. Neither torch nor optuna is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from reidcore.api import Row
from reidcore.errors import UsageError
from reidcore.tools import Plan, draw_splits, write_manifest

LEAST = 2
"""Identities that must be left on either side."""


@attrs.frozen(eq=False)
class Part:
    """One training data set, divided.

    rows: all its pictures, in the splits train, query and gallery. folder: where its manifests are.
    stem: of their names.
    """

    name: str
    rows: Sequence[Row]
    folder: Path
    stem: str

    @property
    def train(self) -> Path:
        """The manifest of what is trained on."""
        return self.folder / f"{self.stem}-train.csv"

    @property
    def test(self) -> Path:
        """The manifest of what is scored."""
        return self.folder / f"{self.stem}-held-out.csv"

    @property
    def protocol(self) -> str:
        """The protocol that scores it: across modalities where there are several."""
        modalities = {row.modality or "visible" for row in self.rows}
        return "cross_modality" if len(modalities) > 1 else "cross_camera"

    @property
    def queries(self) -> int:
        """The number of queries."""
        return len(self.of("query"))

    def of(self, *splits: str) -> list[Row]:
        """Return the rows of these splits."""
        return [row for row in self.rows if row.split in splits]

    def write(self) -> None:
        """Write both manifests."""
        write_manifest(self.train, self.of("train"))
        write_manifest(self.test, self.of("query", "gallery"))


@attrs.frozen(eq=False)
class HoldOut:
    """The training data of a run, divided: `parts`, one for each entry of data.train."""

    parts: Sequence[Part]

    def __str__(self) -> str:
        held = [part.of("query", "gallery") for part in self.parts]
        identities = _identities(held)
        trained = _identities([part.of("train") for part in self.parts])
        queries = sum(part.queries for part in self.parts)
        return (
            f"{identities} of {identities + trained} training identities are held out, with "
            f"{queries:,} queries and {sum(map(len, held)) - queries:,} gallery pictures; "
            f"{trained} train"
        )

    def write(self) -> None:
        """Write all manifests."""
        for part in self.parts:
            part.write()


def hold_out(plan: Plan, fraction: float, seed: int, folder: Path) -> HoldOut:
    """Divide the training pictures of a run: a `fraction` (0 to 1) of the identities is held out.

    Queries are drawn as `reid data index --split` draws them. folder: where the manifests will be;
    nothing is written. Raises UsageError where too few identities, or queries, are on one side.
    """
    names = [one.source.name for one in plan.data.train]
    keep = plan.runfile.eval.same_camera == "keep"
    parts = []
    for number, one in enumerate(plan.data.train):
        rows = list(one.rows or ())
        name = one.source.name if len(names) == len(set(names)) else f"{one.source.name}-{number}"
        stem = "" if len(names) == 1 else f"{number}-"
        parts.append(Part(name, _divided(rows, fraction, seed, keep), folder, f"{stem}data"))
        _check(parts[-1], fraction, keep)
    return HoldOut(parts)


def _divided(rows: Sequence[Row], fraction: float, seed: int, keep: bool) -> list[Row]:
    """The rows with their splits. keep: pictures of a query's own camera count, so that an identity
    of one camera has queries, too."""
    if not keep or len({row.camera for row in rows}) > 1:
        return draw_splits(rows, 1 - fraction, seed).rows
    drawn = draw_splits([attrs.evolve(row, camera="") for row in rows], 1 - fraction, seed).rows
    return [attrs.evolve(row, split=one.split) for row, one in zip(rows, drawn, strict=True)]


def _check(part: Part, fraction: float, keep: bool) -> None:
    held, trained = (
        _identities([part.of(*splits)]) for splits in (("query", "gallery"), ("train",))
    )
    searched = _identities([part.of("query")])
    every = held + trained
    if every < 2 * LEAST:
        raise UsageError(
            f"[data] train {part.name!r} has {every} identities, too few to hold some out: "
            f"{LEAST} at least must train, and {LEAST} be searched for"
        )
    if held < LEAST or trained < LEAST:
        raise UsageError(
            f"--hold-out {fraction:g} of the {every} identities of [data] train {part.name!r} "
            f"holds out {held} and leaves {trained}; {LEAST} at least are needed on either side"
        )
    if searched < LEAST:
        cameras = len({row.camera for row in part.rows if row.camera})
        text = (
            f"--hold-out {fraction:g} of [data] train {part.name!r}: {searched} of the {held} "
            "identities that are held out were seen by two cameras, and a query needs a match in "
            "another camera; "
        )
        if cameras == 1 and not keep:
            raise UsageError(f'{text}with one camera, set eval.same_camera = "keep"')
        raise UsageError(f"{text}hold out more, or train on pictures of more cameras")


def _identities(groups: Sequence[Sequence[Row]]) -> int:
    return sum(len({row.pid for row in rows}) for rows in groups)
