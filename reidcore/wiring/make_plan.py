"""From a run file to a plan: components loaded, settings checked, features connected. Torch-free.

Every mismatch is collected and reported at once, in the user's own names. Problems that follow from
a part that has already failed are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import BatchShape, Feature, Matching
from reidcore.contracts.given import Given
from reidcore.contracts.rows import OPTIONAL
from reidcore.data.datasets import DataPlan, Loaded, load_sources
from reidcore.errors import PluginError, ReidError, UsageError, nearest
from reidcore.plugins.loading import Plugins
from reidcore.protocols.base import SamePlace
from reidcore.protocols.score_names import METRICS, metric_name
from reidcore.runfiles.runfile import RunFile, Source
from reidcore.wiring.parts import Purpose, _find_weights, _Resolver, _weights_path
from reidcore.wiring.plan import Plan, Wired
from reidcore.wiring.rankings import _rankings
from reidcore.wiring.references import _check_references, _reachable_heads, _suggest, _wanted
from reidcore.wiring.trials import check_trials, trained_trials


def make_plan(
    run: RunFile,
    plugins: Plugins,
    *,
    purpose: Purpose = "train",
    make_data: bool = False,
    allow_missing: bool = False,
    training: Mapping[str, Any] | None = None,
) -> Plan:
    """Connects a run. For `purpose="eval"`, only what the rankings reach is loaded, so plugins
    that only train may be missing; `training` is the lock file's record of the training data,
    which are not read. For "rank" there are no test sets either, and whether a chain of
    postprocessors fits is left to `check_chain`.

    Raises `RunFileError` with all problems (exit code 2), `PluginError` (3) or `DataError` (4).
    """
    resolver = _Resolver(run, plugins)
    train = purpose == "train"
    heads = {part.name: resolver.wired(part) for part in run.of("head")} if train else {}
    if not train:
        heads = _reachable_heads(run, resolver)
    backbone = next((resolver.wired(part) for part in run.of("backbone")), None)
    used = {name for ranking in run.rankings for name in ranking.matchers}
    matchers = [
        resolver.wired(part) for part in run.of("matcher") if train or not used or part.name in used
    ]
    losses = [resolver.wired(part) for part in run.of("loss")] if train else []
    posts = [resolver.wired(part) for part in run.of("post")]
    augment = [resolver.wired(part) for part in run.augment] if train else []
    batch = resolver.wired(run.batch) if train and run.batch is not None else None
    procedure = resolver.wired(run.procedure) if train and run.train.epochs > 0 else None
    if train:
        for name in run.plugins:
            try:
                plugins.observers([name])
                found = plugins.load(name).found
                resolver.distributions[found.distribution] = found.version
            except PluginError as error:
                resolver.broken.append(str(error))
            except UsageError as error:
                resolver.problems.add(("plugins",), "key 'plugins'", str(error))
    entries = _entries(resolver, purpose)
    trials = dict(training.get("trials", {})) if training is not None else {}
    if train:
        trials = trained_trials(resolver.problems, run, entries)
    check_trials(resolver.problems, trials, entries)
    if resolver.problems.texts:
        # A wrong file is reported also where the data are absent or damaged.
        try:
            data = load_sources(entries, make=False, allow_missing=True)
        except ReidError:
            resolver.done()
    else:
        if resolver.broken:
            resolver.done()
        data = load_sources(entries, make=make_data, allow_missing=allow_missing)

    for one in data.test:
        if one.unfit and one.protocol is not None:
            path, place = (*one.source.path, "protocol"), f"[data] test {one.source.name!r}"
            text = f"protocol {one.protocol.name} {one.unfit}"
            resolver.problems.add(path if one.source.protocol else one.source.path, place, text)
    if training is not None:
        data = attrs.evolve(data, trained=training)
    given = Given(
        image=run.data.image,
        identities=data.identities,
        cameras=data.cameras,
        modalities=data.modalities,
        train_modalities=data.train_modalities,
        train_columns=data.train_columns,
        test_columns=data.test_columns,
        views=tuple(run.eval.views),
        losses=tuple(part.name for part in run.of("loss")),
        find_file=_find_weights,
        find_weights=_weights_path if train else None,
    )
    if training is not None:
        given = attrs.evolve(
            given,
            identities=training["identities"],
            cameras=training["cameras"],
            train_columns=frozenset(training["columns"]),
        )
    # What depends on a source or sampler that has failed is not reported: the best is assumed.
    sound = [source for source, _ in entries]
    failed = {source.role for source in run.sources if source not in sound}
    if train and "train" in failed:
        given = attrs.evolve(
            given,
            identities=10**6,
            cameras=10**6,
            train_modalities=("visible", "infrared"),
            train_columns=frozenset(OPTIONAL),
        )
    if "test" in failed:
        given = attrs.evolve(given, test_columns=frozenset(OPTIONAL))
    if train and run.batch is not None and batch is None:
        given = attrs.evolve(given, batch=BatchShape(1024, 32, 32))
    elif batch is not None:
        shape = resolver.call(batch, "batch")
        given = attrs.evolve(given, batch=shape or BatchShape(1024, 32, 32))
    data = attrs.evolve(data, trials=trials)
    return _connect(
        resolver, data, given, backbone, heads, matchers, losses, posts, batch, augment, procedure
    )


def _entries(resolver: _Resolver, purpose: Purpose) -> list[tuple[Source, Any]]:
    """The entries of data.train and data.test with their readers' configs, None for manifests."""
    entries: list[tuple[Source, Any]] = []
    for source in resolver.run.sources:
        if purpose == "rank" or (source.role == "train" and purpose != "train"):
            continue
        reader = None
        if source.reader is not None:
            wired = resolver.reader(source.reader)
            if wired is None:
                continue
            reader = wired.config
            if not source.root and not hasattr(reader, "default_root"):
                resolver.add(source.reader, "", "missing key 'root', the folder of the data set")
                continue
        entries.append((source, reader))
    return entries


def _connect(
    resolver: _Resolver,
    data: DataPlan,
    given: Given,
    backbone: Wired | None,
    heads: Mapping[str, Wired | None],
    matchers: Sequence[Wired | None],
    losses: Sequence[Wired | None],
    posts: Sequence[Wired | None],
    batch: Wired | None,
    augment: Sequence[Wired | None],
    procedure: Wired | None,
) -> Plan:
    run = resolver.run
    features: dict[str, Feature] = {}
    found: dict[str, Matching] = {}

    def provide(wired: Wired, instance: str) -> Wired:
        outputs = resolver.call(wired, "outputs", given)
        if wired.part.role in resolver.failed:
            return wired
        if not isinstance(outputs, Mapping) or not outputs:
            resolver.own_fault(
                wired, "outputs()", f"it returned {outputs!r}, not {{name: Feature}}"
            )
            return wired
        for name, feature in outputs.items():
            features[f"{instance}.{name}"] = feature
        return attrs.evolve(wired, outputs=dict(outputs))

    def read(wired: Wired) -> Wired | None:
        ok, reads = _check_references(resolver, wired, features, found, given.losses)
        return attrs.evolve(wired, reads=tuple(reads)) if ok else None

    given = attrs.evolve(given, features=features, matchers=found)
    if backbone is not None:
        backbone = provide(backbone, "backbone")
    ready_heads: list[Wired] = []
    for head in heads.values():
        checked = read(head) if head is not None else None
        if checked is not None:
            ready_heads.append(provide(checked, checked.part.name))
    ready_matchers: list[Wired] = []
    for matcher in matchers:
        checked = read(matcher) if matcher is not None else None
        if checked is not None:
            matching = resolver.call(checked, "describe", given)
            if checked.part.role not in resolver.failed and not isinstance(matching, Matching):
                resolver.own_fault(
                    checked, "describe()", f"it returned {matching!r}, not a Matching"
                )
            elif matching is not None:
                found[checked.part.name] = matching
                ready_matchers.append(attrs.evolve(checked, matching=matching))
    if batch is not None:
        batch = read(batch)
        if batch is not None:
            resolver.call(batch, "check", given)
    ready_losses: list[Wired] = []
    for loss in losses:
        checked = read(loss) if loss is not None else None
        if checked is not None:
            resolver.call(checked, "check", given)
            ready_losses.append(checked)
    if procedure is not None:
        procedure = read(procedure)
        if procedure is not None:
            resolver.call(procedure, "check", given)
    ready_posts = [read(post) if post is not None else None for post in posts]
    rankings = _rankings(resolver, given, found, ready_posts, data)
    _check_roles(resolver)
    _check_best(resolver)
    resolver.done()
    assert backbone is not None
    others = [part for part in (batch, procedure) if part is not None]
    wanted, unread = _wanted(ready_heads, [*ready_matchers, *ready_losses, *others])
    notes = [*data.notes, *(f"{role}: nothing reads it; it is not built" for role in unread)]
    if any(_needs_cameras(one, run.eval.same_camera) for one in data.test):
        notes.append(
            "no camera column in the test data: no gallery picture is dropped for its camera; "
            "only the query's own file is"
        )
    return Plan(
        runfile=run,
        data=data,
        given=given,
        backbone=backbone,
        heads=tuple(head for head in ready_heads if head.part.role not in unread),
        matchers=tuple(ready_matchers),
        losses=tuple(ready_losses),
        posts=tuple(post for post in posts if post is not None),
        rankings=rankings,
        procedure=procedure,
        batch=batch,
        augment=tuple(part for part in augment if part is not None),
        wanted=wanted,
        unread=unread,
        notes=tuple(notes),
        distributions=resolver.distributions,
        weights=tuple(resolver.weights),
    )


def _needs_cameras(test: Loaded, same_camera: SamePlace) -> bool:
    """Whether a test set lacks the cameras that its protocol would drop pictures for."""
    policy = test.protocol.same_place(same_camera) if test.protocol is not None else "keep"
    return policy != "keep" and "camera" not in test.columns


def _check_roles(resolver: _Resolver) -> None:
    """Role paths in optim.scale and train.frozen_norm must exist."""
    run = resolver.run
    roles = {"backbone", "head", "matcher", "loss"}
    roles |= {p.role for p in run.parts if p.where in ("head", "matcher", "loss")}
    for table, key, named in (
        ("optim", "scale", list(run.optim.scale) if run.optim else []),
        ("train", "frozen_norm", run.train.frozen_norm),
    ):
        for role in named:
            if role not in roles:
                resolver.problems.add(
                    (table, key, role),
                    f"[{table}]",
                    f"{key} names the role {role!r}{_suggest(role, sorted(roles))}",
                )


def _check_best(resolver: _Resolver) -> None:
    best = resolver.run.train.best
    if best and metric_name(best) is None:
        resolver.problems.add(
            ("train", "best"),
            "[train]",
            f"best names the score {best!r}{nearest(best, METRICS) or '.'} Scores are mAP, mINP "
            "and rank-K.",
        )
