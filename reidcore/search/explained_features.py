"""The features of a run that `Search.explain` looks at: maps, vectors, identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reidcore.contracts.component import Feature
from reidcore.contracts.rows import label_names
from reidcore.errors import UsageError, nearest
from reidcore.model.model import Model
from reidcore.runfolder.opening import load_with
from reidcore.wiring.plan import Plan, Wired


def choose_maps(plan: Plan, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the named maps, or without names the last map that is computed anyway.

    Raises UsageError for a name that is no map of the run.
    """
    if names is None:
        known = _of_kind(plan, "map")
        return tuple(name for name in known if _is_wanted(plan, name))[-1:]
    return _chosen(plan, "map", names)


def choose_vectors(plan: Plan, names: Sequence[str]) -> tuple[str, ...]:
    """Return the named vectors. Raises UsageError for a name that is no vector of the run."""
    return _chosen(plan, "vector", names)


def choose_identity(plan: Plan, name: str | None) -> int | None:
    """Return the number of a training identity, None without a name.

    Raises UsageError for a name that the training data do not have, or without the losses, which
    score identities, or without those data.
    """
    if name is None:
        return None
    if not plan.losses:
        raise UsageError(f"identity {name!r} is scored by losses, which are not loaded")
    there = all(one.rows is not None for one in plan.data.train)
    names = label_names(plan.data.training_rows()) if there else []
    if name not in names:
        found = f"There are {len(names)}." if there else "The training data are not there."
        raise UsageError(f"no training identity {name!r}{nearest(name, names) or '.'} {found}")
    return names.index(name)


def _of_kind(plan: Plan, kind: str) -> dict[str, Feature]:
    """The features of one kind that the run has, computed or not."""
    return {
        f"{instance}.{output}": feature
        for instance, wired in _providers(plan).items()
        for output, feature in wired.outputs.items()
        if feature.kind == kind
    }


def _chosen(plan: Plan, kind: str, names: Sequence[str]) -> tuple[str, ...]:
    known = _of_kind(plan, kind)
    for name in names:
        if name not in known:
            raise UsageError(_none_such(plan, kind, name, known))
    return tuple(dict.fromkeys(names))


def _providers(plan: Plan) -> dict[str, Wired]:
    return {wired.part.name or "backbone": wired for wired in (plan.backbone, *plan.heads)}


def _is_wanted(plan: Plan, name: str) -> bool:
    instance, _, output = name.partition(".")
    return output in plan.wanted[_providers(plan)[instance].part.role]


def _none_such(plan: Plan, kind: str, name: str, known: Mapping[str, Feature]) -> str:
    listed = ", ".join(f"{key} ({feature})" for key, feature in known.items()) or "none"
    listed = f"{kind.capitalize()}s of the run: {listed}"
    if name in plan.given.features:
        return f"{name!r} is a {plan.given.features[name]}, not a {kind}. {listed}"
    return f"the run has no {kind} {name!r}{nearest(name, known) or '.'} {listed}"


def with_features(model: Model, folder: Path, names: Sequence[str]) -> Model:
    """Return the run's model, built again where it does not compute all of these features.

    Raises UsageError for features behind what the run has trained.
    """
    if all(_is_wanted(model.plan, name) for name in names):
        return model
    return load_with(folder, model.plan, names, str(model.device))
