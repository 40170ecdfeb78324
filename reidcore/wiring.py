"""From a run file to a plan: components loaded, settings checked, features connected. Torch-free.

Every mismatch is collected and reported at once, in the user's own names. Problems that follow from
a part that has already failed are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import attrs

from reidcore.api import (
    BatchShape,
    Feature,
    FeatureName,
    Given,
    LossName,
    MapName,
    MatcherName,
    Matching,
    TensorName,
    VectorName,
    WiringError,
)
from reidcore.data_trials import check_trials, has_trials, trained_trials, with_trial
from reidcore.datasets import DataPlan, Loaded, load_sources
from reidcore.errors import PluginError, ReidError, UsageError, nearest
from reidcore.manifest import OPTIONAL, find_data
from reidcore.plan import Plan, Wired
from reidcore.plugins import LoadedComponent, Plugins
from reidcore.protocols import SamePlace
from reidcore.registration import in_words
from reidcore.runfile import RunFile
from reidcore.score_names import METRICS, metric_name
from reidcore.structure import resolve, structure
from reidcore.tables import FITTED, Part, RankingTable, Source
from reidcore.toml_text import Problems

FEATURE_KINDS = {MapName: "map", VectorName: "vector", TensorName: "tensor", FeatureName: ""}
Purpose = Literal["train", "eval", "rank"]


class _Resolver:
    """Loads components and settings, collecting problems by the exit code they deserve."""

    def __init__(self, run: RunFile, plugins: Plugins):
        self.run = run
        self.plugins = plugins
        self.problems = Problems(run.path, run.lines)
        self.broken: list[str] = []
        self.failed: set[str] = set()
        self.distributions: dict[str, str] = {}
        self.weights: dict[tuple[str, str], None] = {}

    def component(self, part: Part) -> LoadedComponent | None:
        try:
            component = self.plugins.component(part.kind, part.use)
            self.distributions[component.distribution] = component.version
            return component
        except PluginError as error:
            self.broken.append(f"{part}: {error}")
        except UsageError as error:
            key = "read" if part.kind == "reader" else "use"
            self.problems.add((*part.path, key), str(part), str(error))
        self.failed.add(part.role)
        return None

    def wired(self, part: Part) -> Wired | None:
        component = self.component(part)
        if component is None:
            return None
        try:
            config, faults = structure(component.component.config, part.table, part.core_keys)
        except Exception as error:
            self.own_fault(Wired(part, component, None), "its settings class", error)
            return None
        self.problems.faults(part.path, str(part), faults)
        if config is None:
            self.failed.add(part.role)
            return None
        return Wired(part, component, config)

    def reader(self, part: Part) -> Wired | None:
        """As `wired`, with the trial of [data]."""
        wired, trial = self.wired(part), self.run.data.trial
        if wired is None or trial is None or not has_trials(type(wired.config)):
            return wired
        return self.wired(with_trial(self.problems, part, type(wired.config), trial))

    def add(self, part: Part, field: str, text: str) -> None:
        self.failed.add(part.role)
        path = (*part.path, field) if field else part.path
        self.problems.add(path, str(part), f"{field} {text}" if field else text)

    def call(self, wired: Wired, method: str, *given: Given) -> Any:
        """A wiring method, with the user's mistakes and the plugin's own told apart. Notes which
        weights it asks for."""

        def find_weights(value: str) -> str:
            path = _weights_path(value)
            self.weights[str(wired.part), path] = None
            return path

        given = tuple(
            attrs.evolve(one, find_weights=find_weights if one.find_weights else None)
            for one in given
        )
        try:
            return getattr(wired.config, method)(*given)
        except WiringError as error:
            self.add(wired.part, error.field, error.text)
        except ReidError as error:
            self.add(wired.part, "", str(error))
        except Exception as error:
            self.own_fault(wired, f"{method}()", error)
        return None

    def own_fault(self, wired: Wired, what: str, error: Exception | str) -> None:
        """A mistake of the plugin, not of the user."""
        self.failed.add(wired.part.role)
        owner = f"{wired.component.distribution} {wired.component.version}"
        text = error if isinstance(error, str) else in_words(error)
        self.broken.append(f"{wired.part}: {what} of {owner} failed: {text}")

    def done(self) -> None:
        if self.broken and not self.problems.texts:
            raise PluginError("\n".join(self.broken))
        self.problems.texts += self.broken
        self.problems.done()


def references(config: Any) -> Iterator[tuple[str, Any, str]]:
    """(setting, name type, name) for every setting that names a feature, matcher or loss."""
    for field in attrs.fields(resolve(type(config))):
        kind = _name_type(field.type)
        value = getattr(config, field.name)
        if kind is None or value is None:
            continue
        names = [value] if isinstance(value, str) else list(value)
        for name in names:
            if name or field.default != "":  # a setting may be "" where it names nothing
                yield field.name, kind, name


def _name_type(declared: Any) -> Any:
    if declared in FEATURE_KINDS or declared in (MatcherName, LossName):
        return declared
    for argument in get_args(declared) if get_origin(declared) is not None else ():
        found = _name_type(argument)
        if found is not None:
            return found
    return None


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


def _weights_path(value: str) -> str:
    return str(find_data(value, "REID_WEIGHTS"))


def _find_weights(value: str) -> tuple[bool, str]:
    path = find_data(value, "REID_WEIGHTS")
    return path.is_file(), str(path)


def _reachable_heads(run: RunFile, resolver: _Resolver) -> dict[str, Wired | None]:
    """For evaluation: the heads that the rankings' matchers reach, others not even loaded."""
    used = {name for ranking in run.rankings for name in ranking.matchers}
    needed: set[str] = set()
    for part in run.of("matcher"):
        if not used or part.name in used:
            needed |= _mentioned(part.table)
    heads: dict[str, Wired | None] = {}
    for part in reversed(run.of("head")):
        if part.name in needed:
            heads[part.name] = resolver.wired(part)
            needed |= _mentioned(part.table)
    return {part.name: heads[part.name] for part in run.of("head") if part.name in heads}


def _mentioned(value: Any) -> set[str]:
    """Instance names in texts of the form `instance.output` anywhere in a table."""
    if isinstance(value, str):
        return {value.partition(".")[0]} if "." in value else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _mentioned(item)}
    return set()


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
        runfile=run, data=data, given=given, backbone=backbone,
        heads=tuple(head for head in ready_heads if head.part.role not in unread),
        matchers=tuple(ready_matchers), losses=tuple(ready_losses),
        posts=tuple(post for post in posts if post is not None), rankings=rankings,
        procedure=procedure, batch=batch,
        augment=tuple(part for part in augment if part is not None),
        wanted=wanted, unread=unread, notes=tuple(notes),
        distributions=resolver.distributions, weights=tuple(resolver.weights),
    )  # fmt: skip


def _needs_cameras(test: Loaded, same_camera: SamePlace) -> bool:
    """Whether a test set lacks the cameras that its protocol would drop pictures for."""
    policy = test.protocol.same_place(same_camera) if test.protocol is not None else "keep"
    return policy != "keep" and "camera" not in test.columns


def _check_references(
    resolver: _Resolver,
    wired: Wired,
    features: Mapping[str, Feature],
    matchers: Mapping[str, Matching],
    losses: Sequence[str],
) -> tuple[bool, list[tuple[str, str]]]:
    run, part = resolver.run, wired.part
    ok, reads = True, []
    for field, kind, name in references(wired.config):
        if kind is MatcherName:
            known = [other.name for other in run.of("matcher")]
            if name not in known:
                resolver.add(part, field, f"names the matcher {name!r}{_suggest(name, known)}")
                ok = False
            elif name not in matchers:
                ok = False  # its own failure is reported
            continue
        if kind is LossName:
            known = [other for other in losses if other != part.name]
            if name not in known:
                resolver.add(part, field, f"names the loss {name!r}{_suggest(name, known)}")
                ok = False
            continue
        wants = FEATURE_KINDS[kind]
        fitting = {key: feature for key, feature in features.items() if wants in ("", feature.kind)}
        if name not in features:
            ok = False
            instance = name.partition(".")[0]
            role = "backbone" if instance == "backbone" else f"head.{instance}"
            if role in resolver.failed:
                resolver.failed.add(part.role)
                continue
            later = [head.name for head in run.of("head")]
            if part.where == "head" and instance in later[later.index(part.name) :]:
                why = "is its own output" if instance == part.name else "is computed later"
                resolver.add(part, field, f"names {name!r}, which {why}; heads run in file order")
                continue
            resolver.add(
                part, field,
                f"names {name!r}, which nothing provides{nearest(name, features) or '.'} "
                f"Available {wants + 's' if wants else 'features'}: {_listed(fitting)}",
            )  # fmt: skip
        elif wants and features[name].kind != wants:
            resolver.add(
                part, field,
                f"needs a {wants}, but {name!r} is a {features[name]}. "
                f"Available {wants}s: {_listed(fitting)}",
            )  # fmt: skip
            ok = False
        else:
            reads.append((field, name))
    if not ok:
        resolver.failed.add(part.role)
    return ok, reads


def _suggest(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return near if near else f", which does not exist; there are {', '.join(known) or 'none'}"


def _listed(features: Mapping[str, Feature]) -> str:
    return ", ".join(f"{name} ({feature})" for name, feature in features.items()) or "none"


def _rankings(
    resolver: _Resolver,
    given: Given,
    matchers: Mapping[str, Matching],
    posts: Sequence[Wired | None],
    data: DataPlan,
) -> tuple[RankingTable, ...]:
    run = resolver.run
    names = [part.name for part in run.of("matcher")]
    by_name = {post.part.name: post for post in posts if post is not None}
    all_posts = [part.name for part in run.of("post")]
    rankings = list(run.rankings)
    if not rankings:
        if len(names) > 1:
            resolver.problems.add(
                (), "",
                f"there are several [[matcher]] ({', '.join(names)}) and no [[ranking]] that says "
                "which of them rank the gallery",
            )  # fmt: skip
            return ()
        if not names:
            if any(source.role == "test" for source in run.sources) or all_posts:
                resolver.problems.add(
                    (), "", "there is no [[matcher]], which ranking the test data needs"
                )
            return ()
        rankings = [RankingTable(name="main", matcher=names[0], post=all_posts)]
    used: set[str] = set()
    for index, ranking in enumerate(rankings):
        path, place = ("ranking", index), f"ranking {ranking.name!r}"
        for name in ranking.weights:
            if name not in names:
                key = "fuse" if ranking.fuse else "matcher"
                resolver.problems.add(
                    (*path, key), place, f"{key} names {name!r}{_suggest(name, names)}"
                )
        if ranking.shortlist is not None:
            by = ranking.shortlist.by
            if by not in names:
                text = f"shortlist.by names {by!r}{_suggest(by, names)}"
                resolver.problems.add((*path, "shortlist"), place, text)
            elif [by] == list(ranking.weights):
                resolver.problems.add(
                    (*path, "shortlist"), place,
                    f"shortlist.by is the ranking's own matcher {by!r}, which scores all pictures "
                    "to choose; name a faster one",
                )  # fmt: skip
        if ranking.scale in FITTED and not any(source.role == "train" for source in run.sources):
            resolver.problems.add(
                (*path, "scale"), place,
                f"scale = {ranking.scale!r} is fitted on training pairs, but [data] has no 'train'",
            )  # fmt: skip
        for name in ranking.post:
            used.add(name)
            if name not in all_posts:
                resolver.problems.add(
                    (*path, "post"), place, f"post names {name!r}{_suggest(name, all_posts)}"
                )
        twice = [name for name in all_posts if ranking.post.count(name) > 1]
        if twice:
            text = f"post names {', '.join(map(repr, twice))} more than once"
            resolver.problems.add((*path, "post"), place, text)
            continue
        if not matchers.keys() >= set(ranking.matchers):
            continue
        if data.test or not run.sources:
            promised = {name: found.unit for name, found in matchers.items()}
            follow_chain(
                ranking, promised, given, by_name,
                lambda post, here: resolver.call(post, "check", here),
            )  # fmt: skip
    for part in run.of("post"):
        if part.name not in used and part.role not in resolver.failed:
            resolver.problems.add(part.path, str(part), "no [[ranking]] names it in its 'post'")
    return tuple(rankings)


def follow_chain(
    ranking: RankingTable,
    promised: Mapping[str, bool],
    given: Given,
    posts: Mapping[str, Wired | None],
    check: Callable[[Wired, Given], Any],
) -> bool:
    """Asks every postprocessor of a ranking whether it fits what comes before it; `promised` says
    whose matchers' distances lie in [0, 1]. Returns whether the chain's do."""
    unit = ranking.unit(promised)
    given = attrs.evolve(
        given, by_row=ranking.scale == "row_minmax", shortlisted=ranking.shortlist is not None
    )
    for position, name in enumerate(ranking.post):
        post = posts.get(name)
        if post is None:
            unit = True  # its own failure is reported
            continue
        unit = bool(check(post, attrs.evolve(given, unit=unit, first=position == 0)))
    return unit


def check_chain(plan: Plan, ranking: RankingTable, columns: frozenset[str]) -> None:
    """Whether a ranking's postprocessors fit pictures that have these optional manifest columns;
    `UsageError` if not."""

    def check(post: Wired, here: Given) -> Any:
        try:
            return post.config.check(here)
        except WiringError as error:
            raise UsageError(f"ranking {ranking.name!r}: {post.part}: {error}") from None

    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    follow_chain(ranking, promised, attrs.evolve(plan.given, test_columns=columns), posts, check)


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
                    (table, key, role), f"[{table}]",
                    f"{key} names the role {role!r}{_suggest(role, sorted(roles))}",
                )  # fmt: skip


def _check_best(resolver: _Resolver) -> None:
    best = resolver.run.train.best
    if best and metric_name(best) is None:
        resolver.problems.add(
            ("train", "best"), "[train]",
            f"best names the score {best!r}{nearest(best, METRICS) or '.'} Scores are mAP, mINP "
            "and rank-K.",
        )  # fmt: skip


def _wanted(
    heads: Sequence[Wired], readers: Sequence[Wired]
) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """Which outputs somebody reads, directly or through other heads."""
    wanted: dict[str, set[str]] = {"backbone": set()}

    def take(wired: Wired) -> None:
        for _, name in wired.reads:
            instance, _, output = name.partition(".")
            role = "backbone" if instance == "backbone" else f"head.{instance}"
            wanted.setdefault(role, set()).add(output)

    for reader in readers:
        take(reader)
    unread = []
    for head in reversed(heads):
        if wanted.get(head.part.role):
            take(head)
        else:
            unread.append(head.part.role)
    return {role: frozenset(names) for role, names in wanted.items()}, tuple(reversed(unread))
