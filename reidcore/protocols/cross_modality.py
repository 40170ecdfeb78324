"""Protocols that search for queries of one modality in a gallery of another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import modality_names
from reidcore.contracts.settings import refuse_value, setting
from reidcore.errors import nearest
from reidcore.protocols.base import POOL, SIDES, Protocol, Task, Trial, numbers
from reidcore.protocols.same_camera import SameCameraProtocol


def directions(
    modalities: Sequence[str], query: str | None, gallery: str | None
) -> tuple[list[tuple[str, str]], str]:
    """Return the pairs of query and gallery modality to score, and why there are none.

    Args:
        modalities: Modalities of the test set.
        query: Modality of the queries; None for each in turn.
        gallery: Modality of the gallery; None for the other.

    Returns:
        The pairs, and "" or what is wrong.
    """
    listed = ", ".join(modalities) or "none"
    for key, name in (("query", query), ("gallery", gallery)):
        if name is not None and name not in modalities:
            hint = nearest(name, modalities) or f"; this data set has {listed}"
            return [], f"names the modality {name!r} as {key}, which nothing has{hint}"
    if len(modalities) != 2 and None in (query, gallery):
        what = "at least two modalities" if len(modalities) < 2 else "query and gallery named"
        return [], f"needs {what}; this data set has {listed}"
    pairs = [
        (one, other)
        for one in modalities
        for other in modalities
        if one != other and query in (None, one) and gallery in (None, other)
    ]
    return pairs, ""


def tasks(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Task]:
    """Return a task of one trial for every pair of modalities."""
    sides = numbers(rows, "query"), numbers(rows, "gallery")
    return [
        Task(
            "-to-".join(pair),
            (
                Trial(
                    *(
                        tuple(n for n in side if rows[n].modality == modality)
                        for side, modality in zip(sides, pair, strict=True)
                    )
                ),
            ),
        )
        for pair in pairs
    ]


@attrs.frozen
class CrossModality(SameCameraProtocol):
    """Queries of one modality, gallery of the other; by default both directions.

    Of the splits query and gallery, or both sides of the pool test where there are no such splits.
    """

    name: ClassVar[str] = "cross_modality"
    columns: ClassVar[frozenset[str]] = frozenset({"modality"})

    query: str | None = setting("Modality of the queries; each in turn if not set.", default=None)
    gallery: str | None = setting("Modality of the gallery; the other if not set.", default=None)

    @gallery.validator
    def _another(self, attribute: attrs.Attribute[str], value: str | None) -> None:
        if value is not None and value == self.query:
            refuse_value(attribute, f"expected another modality than the query's, got {value!r}")

    def splits(self, have: Collection[str]) -> tuple[str, ...]:
        return SIDES if set(SIDES) <= set(have) else POOL

    def misfit(self, columns: Collection[str], modalities: Sequence[str]) -> str:
        lacking = super().misfit(columns, modalities)
        return lacking or directions(modalities, self.query, self.gallery)[1]

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        return tasks(rows, directions(modality_names(rows), self.query, self.gallery)[0])


@attrs.frozen
class RegDBProtocol(Protocol):
    """RegDB: one modality of the pool test against the other; nothing is left out.

    A model is trained for each of the ten trials (`data.trial`), and means are over models.
    """

    name: ClassVar[str] = "regdb"
    columns: ClassVar[frozenset[str]] = frozenset({"modality"})

    query: Literal["visible", "infrared"] | None = setting(
        "Modality of the queries; each in turn if not set.", default=None
    )

    def misfit(self, columns: Collection[str], modalities: Sequence[str]) -> str:
        lacking = super().misfit(columns, modalities)
        if lacking or set(modalities) == {"visible", "infrared"}:
            return lacking
        return f"needs the modalities visible and infrared; this data set has {modalities}"

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        return tasks(rows, directions(modality_names(rows), self.query, None)[0])
