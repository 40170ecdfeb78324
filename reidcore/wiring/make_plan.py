"""From a run file to a plan: components loaded, settings checked, features connected. Torch-free.

Every mismatch is collected and reported at once, in the user's own names. Problems that follow from
a part that has already failed are not repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import BatchShape
from reidcore.contracts.given import Given
from reidcore.contracts.trained_run import TrainedRun
from reidcore.data.datasets import DataPlan, Loaded
from reidcore.errors import nearest
from reidcore.plugins.loading import Plugins
from reidcore.protocols.base import SamePlace
from reidcore.protocols.score_names import METRICS, metric_name
from reidcore.runfiles.runfile import RunFile
from reidcore.wiring.connect import connect
from reidcore.wiring.parts import (
    LoadedParts,
    PartLoader,
    Purpose,
    find_weights,
    load_parts,
    weights_path,
)
from reidcore.wiring.plan import Plan, seen_by
from reidcore.wiring.plan_data import (
    DataFacts,
    check_protocols,
    data_facts,
    load_data,
    load_readers,
)
from reidcore.wiring.rankings import check_rankings
from reidcore.wiring.references import suggestion, wanted_outputs
from reidcore.wiring.trials import Entry, check_trials, trained_trials

BEFORE_SAMPLER = BatchShape(1024, 32, 32)
"""Told where the sampler of training batches is wrong: large, so that no part is refused for it."""


def make_plan(
    run: RunFile,
    plugins: Plugins,
    *,
    purpose: Purpose = "train",
    make_data: bool = False,
    allow_missing: bool = False,
    training: Mapping[str, Any] | None = None,
    numbered: Mapping[str, Any] | None = None,
    find_run: Callable[[str], TrainedRun | None] | None = None,
) -> Plan:
    """Connect the parts of a run and return its plan.

    For `purpose="eval"`, only what the rankings reach is loaded, so plugins that only train may be
    missing; `training` is the run record's facts about the training data, which are not read. For
    "rank" there are no test sets either, and whether a chain of postprocessors fits is left to
    `check_chain`. numbered: what the run record of a run that goes on says of its training data,
    whose cameras and modalities keep their numbers. find_run:
    `reidcore.training.teachers.find_run`, without which no teacher is found.

    Raises `RunFileError` with all problems (exit code 2), `PluginError` (3) or `DataError` (4).
    """
    loader = PartLoader(run, plugins, find_run)
    parts = load_parts(loader, purpose)
    observers = loader.load_observers() if purpose == "train" else {}
    entries = load_readers(loader, purpose)
    trials = _check_trials(loader, entries, purpose, training)
    data = load_data(loader, entries, make_data, allow_missing)
    data = attrs.evolve(data, trained=training or {}, trials=trials, numbered=numbered or {})
    check_protocols(loader, data)
    shape = _batch_shape(loader, parts, purpose, data)
    given = _given(loader, data, data_facts(run, data, entries, purpose), shape, purpose)
    connected, given = connect(loader, parts, given)
    rankings = check_rankings(loader, given, connected.posts, bool(data.test))
    _check_roles(loader)
    _check_best(loader)
    loader.raise_problems()
    assert connected.backbone is not None
    others = [part for part in (connected.batch, connected.procedure) if part is not None]
    readers = [*connected.matchers, *connected.losses, *others]
    wanted, unread = wanted_outputs(connected.heads, readers)
    return Plan(
        runfile=run,
        data=data,
        given=given,
        backbone=connected.backbone,
        heads=tuple(head for head in connected.heads if head.part.role not in unread),
        matchers=tuple(connected.matchers),
        losses=tuple(connected.losses),
        posts=tuple(connected.posts),
        rankings=rankings,
        procedure=connected.procedure,
        batch=connected.batch,
        augment=tuple(connected.augment),
        observers=observers,
        wanted=wanted,
        unread=unread,
        notes=(*_notes(run, data, unread), *loader.licences()),
        distributions=loader.distributions,
        weights=tuple(loader.weights),
        teachers=tuple((part, name, run) for (part, name), run in loader.teachers.items()),
        published=loader.published,
    )


def _check_trials(
    loader: PartLoader,
    entries: Sequence[Entry],
    purpose: Purpose,
    training: Mapping[str, Any] | None,
) -> Mapping[str, Sequence[int]]:
    """Return the trials that the model is trained on, by reader."""
    if purpose == "train":
        trials = trained_trials(loader.problems, loader.run, entries)
    else:
        trials = dict((training or {}).get("trials", {}))
    check_trials(loader.problems, trials, entries)
    return trials


def _batch_shape(
    loader: PartLoader, parts: LoadedParts, purpose: Purpose, data: DataPlan
) -> BatchShape:
    """Return the shape of a training batch as the run's sampler states it."""
    if purpose != "train" or loader.run.batch is None:
        return BatchShape(None)
    found = loader.call(parts.batch, "batch") if parts.batch is not None else None
    if found is None or parts.batch is None:
        return BEFORE_SAMPLER
    pictures = sum(sum(one.counts.values()) for one in data.train)
    if pictures and hasattr(parts.batch.config, "least") and _draws_from_all(loader.run):
        least = loader.call(parts.batch, "least", pictures)
        found = attrs.evolve(found, least=least)
    return found


def _draws_from_all(run: RunFile) -> bool:
    """Return whether training draws from all training pictures, as far as is known before."""
    return run.train.epochs > 0 and run.procedure.use == "core.train"


def _given(
    loader: PartLoader, data: DataPlan, facts: DataFacts, batch: BatchShape, purpose: Purpose
) -> Given:
    """Return what wiring methods see of the run before any part has provided a feature."""
    run = loader.run

    def find_run(name: str) -> TrainedRun | None:  # parts copy functions, but no loader
        return loader.trained_run(name)

    return Given(
        image=run.data.image,
        identities=facts.identities,
        cameras=facts.cameras,
        modalities=data.modalities,
        train_modalities=facts.train_modalities,
        train_columns=facts.train_columns,
        test_columns=facts.test_columns,
        batch=batch,
        views=tuple(run.eval.views),
        losses=tuple(part.name for part in run.of("loss")),
        find_file=find_weights,
        find_weights=functools.partial(weights_path, loader.named) if purpose == "train" else None,
        find_run=find_run if purpose == "train" else None,
        seen=seen_by(run.data, data.modalities),
        gaps=data.gaps,
    )


def _check_roles(loader: PartLoader) -> None:
    """Note the role paths in optim.scale and of [train] that do not exist."""
    run = loader.run
    roles = {"backbone", "head", "matcher", "loss"}
    roles |= {p.role for p in run.parts if p.where in ("head", "matcher", "loss")}
    for table, key, named in (
        ("optim", "scale", list(run.optim.scale) if run.optim else []),
        ("train", "frozen_norm", run.train.frozen_norm),
        ("train", "start_share", list(run.train.start_share)),
    ):
        for role in named:
            if role not in roles:
                loader.problems.add(
                    (table, key, role),
                    f"[{table}]",
                    f"{key} names the role {role!r}{suggestion(role, sorted(roles))}",
                )


def _check_best(loader: PartLoader) -> None:
    """Note a train.best that is no score."""
    best = loader.run.train.best
    if best and metric_name(best) is None:
        loader.problems.add(
            ("train", "best"),
            "[train]",
            f"best names the score {best!r}{nearest(best, METRICS) or '.'} Scores are mAP, mINP "
            "and rank-K, of at most six digits.",
        )


def _notes(run: RunFile, data: DataPlan, unread: Sequence[str]) -> tuple[str, ...]:
    """Return remarks on what is done otherwise than one may expect."""
    notes = [*data.notes, *(f"{role}: nothing reads it; it is not built" for role in unread)]
    lacking = [one for one in data.test if _lacks_cameras(one, run.eval.same_camera)]
    partly = [one for one in lacking if one.cameras and one.gap("camera")]
    for one in partly:
        notes.append(f"cameras: {one.gap('camera')}; these are not dropped for their camera")
    if len(partly) < len(lacking):
        notes.append(
            "no camera column in the test data: no gallery picture is dropped for its camera; "
            "only the query's own file is"
        )
    return tuple(notes)


def _lacks_cameras(test: Loaded, same_camera: SamePlace) -> bool:
    """Return whether a test set's protocol would drop pictures for cameras that it lacks."""
    policy = test.protocol.same_place(same_camera) if test.protocol is not None else "keep"
    return policy != "keep" and "camera" not in test.columns
