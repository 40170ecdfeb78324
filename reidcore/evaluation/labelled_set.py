"""Test sets: labelled pictures, the tasks of their protocol, and the pairs that match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.pictures import Rows
from reidcore.data.datasets import Loaded
from reidcore.data.numbering import Numbering
from reidcore.data.pictures import make_rows
from reidcore.errors import DataError, UsageError
from reidcore.evaluation.relevance import NOBODY, Relevance
from reidcore.protocols.base import Protocol, SamePlace, Task, scored_name
from reidcore.wiring.plan import Plan


@attrs.frozen(eq=False)
class LabelledSet:
    """A test set: its pictures, with identities numbered over all of them, and its tasks.

    file, place: int64 [N], equal where the picture or the protocol's place is; place `NOBODY` if
    unknown. same_place: what happens to pictures of a query's place.
    """

    name: str
    protocol: Protocol
    tasks: tuple[Task, ...]
    rows: Rows
    file: Tensor
    place: Tensor
    same_place: SamePlace

    @property
    def identity(self) -> Tensor:
        """The pictures' identities, int64 [N]."""
        return torch.from_numpy(self.rows.pid)

    def relevance(self, query: Tensor, gallery: Tensor) -> Relevance:
        """Return the judge of pairs of these pictures, by their numbers, int64 [Q] and [G]."""
        identity, file, place = self.identity, self.file, self.place
        return Relevance(
            (identity[query], file[query], place[query]),
            (identity[gallery], file[gallery], place[gallery]),
            self.same_place,
        )


def make_labelled_set(loaded: Loaded, numbering: Numbering, same_camera: SamePlace) -> LabelledSet:
    """Return the pictures and tasks of a test entry whose rows are at hand.

    same_camera: what [eval] says of pictures of the query's own camera.
    """
    assert loaded.rows is not None and loaded.protocol is not None
    protocol = loaded.protocol
    rows = make_rows(loaded.rows, numbering.cameras, numbering.modalities)
    pictures = [row.name for row in loaded.rows]
    places = [protocol.place(row) for row in loaded.rows]
    known = dict.fromkeys(place for place in places if place)
    return LabelledSet(
        loaded.source.name,
        protocol,
        tuple(protocol.tasks(loaded.rows)),
        rows,
        _numbered(pictures, dict.fromkeys(pictures)),
        _numbered(places, known),
        protocol.same_place(same_camera),
    )


def _numbered(names: Sequence[str], known: Mapping[str, Any]) -> Tensor:
    """int64 [N]: the place of each name among the known ones, `NOBODY` for others."""
    number = {name: index for index, name in enumerate(known)}
    return torch.tensor([number.get(name, NOBODY) for name in names], dtype=torch.int64)


def require_matches(
    rows: Sequence[Row], name: str, protocol: Protocol, same_camera: SamePlace
) -> None:
    """Raise DataError, with counts of the reasons, if no query of a trial can have a match.

    rows: of the test set. same_camera: what [eval] says.
    """
    policy = protocol.same_place(same_camera)
    for task in protocol.tasks(rows):
        for trial in task.trials:
            query, gallery = ([rows[n] for n in side] for side in (trial.query, trial.gallery))
            reasons = _reasons(query, gallery, protocol, policy)
            if reasons is not None:
                _refuse(scored_name(name, task), query, rows, protocol, policy, reasons)


def _reasons(
    query: Sequence[Row], gallery: Sequence[Row], protocol: Protocol, policy: SamePlace
) -> dict[str, int] | None:
    """Count the queries without a match by reason; None if one has a match."""
    others: dict[str, list[Row]] = {}
    for row in gallery:
        others.setdefault(row.pid, []).append(row)
    reasons = {"identity": 0, "file": 0, "place": 0}
    for row in query:
        found = others.get(row.pid, [])
        if not found:
            reasons["identity"] += 1
            continue
        files = [other for other in found if other.name != row.name]
        if not files:
            reasons["file"] += 1
            continue
        place = protocol.place(row)
        if policy == "keep" or not place or any(protocol.place(one) != place for one in files):
            return None
        reasons["place"] += 1
    return reasons


def _refuse(
    name: str,
    query: Sequence[Row],
    rows: Sequence[Row],
    protocol: Protocol,
    policy: SamePlace,
    reasons: Mapping[str, int],
) -> None:
    cameras = {row.camera for row in rows if row.camera}
    key = protocol.same_camera_key
    text = (
        f"[data] test {name!r}: none of the {len(query)} queries has a match in the gallery: "
        f"{reasons['identity']} have an identity that is not in the gallery, "
    )
    if policy != "keep":
        said = f"{key} = {policy!r}; " if key else ""
        text += (
            f"{reasons['place']} have gallery pictures of their identity from their own camera "
            f"only ({said}the data have {len(cameras)} cameras), "
        )
    text += f"{reasons['file']} find only their own file. "
    if reasons["place"] and key:
        raise DataError(text + f'With one camera, set {key} = "keep".')
    raise DataError(text + "Check the pids of the query and gallery splits.")


def require_scorable(plan: Plan) -> None:
    """Raise `ReidError` if a test set that is at hand has no match, or two have one name."""
    names: set[str] = set()
    for one in plan.data.test:
        if one.rows is None or one.protocol is None:
            continue
        require_matches(one.rows, one.source.name, one.protocol, plan.runfile.eval.same_camera)
        for task in one.protocol.tasks(one.rows):
            name = scored_name(one.source.name, task)
            if name in names:
                raise UsageError(
                    f"[data] test: two test sets are scored as {name!r}; give each its own 'name'"
                )
            names.add(name)


@attrs.frozen(eq=False)
class Pools:
    """The pictures of a task that any trial takes, and the places of each trial's among them.

    query, gallery: int64, numbers of the test set's pictures. trials: places of both sides.
    """

    query: Tensor
    gallery: Tensor
    trials: tuple[tuple[Tensor, Tensor], ...]


def pools_of(task: Task) -> Pools:
    """Return the union of all trials' pictures on either side, ascending as they are in each
    trial."""
    sides = []
    for side in ("query", "gallery"):
        each = [np.asarray(getattr(trial, side), dtype=np.int64) for trial in task.trials]
        pool = np.unique(np.concatenate(each))
        sides.append((pool, [np.searchsorted(pool, numbers) for numbers in each]))
    (query, queries), (gallery, galleries) = sides
    trials = zip(map(torch.from_numpy, queries), map(torch.from_numpy, galleries), strict=True)
    return Pools(torch.from_numpy(query), torch.from_numpy(gallery), tuple(trials))
