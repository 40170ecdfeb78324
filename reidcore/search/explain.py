"""Why pictures match: channel norms of any named map, Grad-CAM in it of distances and of named
vectors, and what parts say themselves.

A backbone, head or loss may have `explain(features, images)`, a matcher `explain(a, b)`; both
return {name: Heat | Lines | Table} (see `reidcore.api`). `Search.explain` calls them for pairs of a
query and a gallery picture, `reid explain` draws what they return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from reidcore.contracts.component import Feature, Row
from reidcore.contracts.explanations import Explanation, Heat, Lines, Table
from reidcore.contracts.parts import Loss
from reidcore.contracts.pictures import Images, Rows
from reidcore.contracts.rows import label_names
from reidcore.contracts.settings import INSTANCE
from reidcore.data.pictures import PictureLoader
from reidcore.errors import DataError, PluginError, ReidError, UsageError, nearest
from reidcore.model.model import Model
from reidcore.ranking.templates import take
from reidcore.runfolder.opening import load_model
from reidcore.search.heatmaps import cams, closeness, identity_score, similarity
from reidcore.wiring.plan import Plan, Wired

if TYPE_CHECKING:
    from reidcore.search.results import Ranked


@attrs.frozen(eq=False)
class Explained:
    """What there is to say about a query picture and one of its matches.

    number: the query's place in its list; rank: the match's; both count from 1. distance: as it was
    ranked. found: explanations by name, such as `norm.backbone.layer4` or `head.parts.attention`;
    heat has two grids, the query's first.
    """

    number: int
    query: Row
    rank: int
    gallery: Row
    distance: float
    found: dict[str, Explanation]


def channel_norm(values: Tensor) -> Tensor:
    """[B, C, h, w] to [B, h, w]: the Euclidean norm over the channels of every place."""
    return values.norm(dim=1)


def choose_maps(plan: Plan, names: Sequence[str] | None) -> tuple[str, ...]:
    """The named maps, or without names the last map that is computed anyway.

    Raises UsageError for a name that is no map of the run.
    """
    if names is None:
        known = _of_kind(plan, "map")
        return tuple(name for name in known if _is_wanted(plan, name))[-1:]
    return _chosen(plan, "map", names)


def choose_vectors(plan: Plan, names: Sequence[str]) -> tuple[str, ...]:
    """The named vectors. Raises UsageError for a name that is no vector of the run."""
    return _chosen(plan, "vector", names)


def choose_identity(plan: Plan, name: str | None) -> int | None:
    """The number of a training identity, None without a name.

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
    """The run's model, built again where it does not compute all of these features.

    Raises UsageError for features behind what the run has trained.
    """
    plan = model.plan
    more = [name for name in names if not _is_wanted(plan, name)]
    if not more:
        return model
    wanted = {role: set(outputs) for role, outputs in plan.wanted.items()}
    for name in more:
        instance, _, output = name.partition(".")
        wanted[_providers(plan)[instance].part.role].add(output)
    frozen = {role: frozenset(outputs) for role, outputs in wanted.items()}
    try:
        return load_model(folder, attrs.evolve(plan, wanted=frozen), str(model.device))
    except DataError as error:
        raise UsageError(
            f"the run computes no {' and no '.join(map(repr, more))}, and it has no weights for "
            f"it: {error}"
        ) from error


def explain_pair(
    model: Model,
    matchers: Sequence[str],
    maps: Sequence[str],
    images: Images,
    vectors: Sequence[str] = (),
    identity: int | None = None,
) -> dict[str, Explanation]:
    """What the core and the model's parts say about two pictures, the query first.

    Of every map the channel norm and, for every matcher that depends on it, Grad-CAM of minus the
    pair's distance. In every map that a named vector depends on, Grad-CAM of the cosine of the two
    pictures' vectors and, for every loss that scores identities by it, of the score of `identity`,
    or of each picture's highest. Views other than the plain one are left out. Raises UsageError for
    a vector that depends on none of the maps.
    """
    plan = model.plan
    wired = {one.part.role: one for one in plan.parts}
    with torch.enable_grad():
        values, features = _forward(model, maps, images)
        found: dict[str, Explanation] = {}
        for name in maps:
            found[f"norm.{name}"] = _heat(name, channel_norm(values[name]), "channel norm")
        for matcher in matchers:
            score = closeness(model.matchers[matcher], features)
            for name, cam in cams(score, values).items():
                of = f"Grad-CAM of {matcher!r} in {name}"
                found[f"gradcam.{matcher}.{name}"] = _heat(of, cam, "what brings the two closer")
        for vector in vectors:
            found |= _explained_vector(model, vector, values, features, identity)
        for role, part in model.parts():
            if role.startswith("matcher."):
                if wired[role].part.name in matchers:
                    found |= explained_match(wired[role], part, features)
            else:
                found |= explained_part(wired[role], part, features, images)
    return found


def _forward(
    model: Model, maps: Sequence[str], images: Images
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """({map: values}, all features). The values are those that later layers read; the features are
    copies where the memory's order differs, which the layers behind do not depend on."""
    raw: dict[str, Tensor] = {}

    def keep(instance: str) -> Any:
        def hook(module: nn.Module, given: Any, outputs: Mapping[str, Tensor]) -> None:
            raw.update({f"{instance}.{name}": value for name, value in outputs.items()})

        return hook

    handles = [model.backbone.register_forward_hook(keep("backbone"))]
    handles += [head.register_forward_hook(keep(name)) for name, head in model.heads.items()]
    # With pixels that need a gradient, all maps have one, even if every weight is frozen.
    pixels = images.pixels.detach().clone().requires_grad_()
    try:
        features = model(Images(pixels, images.modality, images.camera))
    finally:
        for handle in handles:
            handle.remove()
    return {name: raw[name] for name in maps}, features


def _explained_vector(
    model: Model,
    vector: str,
    values: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    identity: int | None,
) -> dict[str, Explanation]:
    """`gradcam.VECTOR.MAP` and, of losses that score identities, `gradcam.LOSS.VECTOR.MAP`."""
    scores = {vector: (similarity(features[vector]), "what brings the two vectors closer")}
    of = "each one's likeliest identity" if identity is None else "the identity"
    for wired in model.plan.losses:
        by_vector = _identity_scores(wired, model.losses[wired.part.name], features)
        if vector in by_vector:
            score = identity_score(by_vector[vector], identity)
            scores[f"{wired.part.name}.{vector}"] = (score, f"what speaks for {of}")
    found: dict[str, Explanation] = {}
    for scored, (score, meaning) in scores.items():
        for name, cam in cams(score, values).items():
            found[f"gradcam.{scored}.{name}"] = _heat(
                f"Grad-CAM of {scored!r} in {name}", cam, meaning
            )
    if not found:
        raise UsageError(
            f"{vector!r} depends on none of the maps {', '.join(values) or '(there are none)'}"
        )
    return found


def _identity_scores(
    wired: Wired, loss: Loss, features: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    try:
        return loss.identity_scores(features)
    except Exception as error:
        raise PluginError(
            f"{wired.part}: identity_scores failed: {type(error).__name__}: {error} "
            f"({wired.component.distribution} {wired.component.version})"
        ) from error


def _heat(of: str, values: Tensor, meaning: str) -> Heat:
    if not values.isfinite().all():
        raise ReidError(f"{of} is not finite, so there is nothing to draw")
    return Heat(values.detach().cpu().numpy(), meaning=meaning)


def explained_part(
    wired: Wired, part: nn.Module, features: Mapping[str, Tensor], images: Images
) -> dict[str, Explanation]:
    """{`ROLE.name`: explanation} of a backbone, head or loss; empty if it explains nothing.

    Raises PluginError naming the part if it fails or returns something else.
    """
    return _asked(wired, part, (features, images), len(images), lines=False)


def explained_match(
    wired: Wired, matcher: Any, features: Mapping[str, Tensor]
) -> dict[str, Explanation]:
    """The same of a matcher, for the first two pictures; the first is the query. Its templates
    come without a gradient, as ranking's do."""
    if not hasattr(matcher, "explain"):
        return {}
    with torch.no_grad():
        plain = {name: value.detach() for name, value in features.items()}
        template = matcher.merge([matcher.template(plain)])
        pair = take(template, slice(0, 1)), take(template, slice(1, 2))
        return _asked(wired, matcher, pair, 2, lines=True)


def _asked(
    wired: Wired, part: nn.Module, given: tuple[Any, ...], pictures: int, lines: bool
) -> dict[str, Explanation]:
    explain = getattr(part, "explain", None)
    if explain is None:
        return {}
    owner = f"({wired.component.distribution} {wired.component.version})"
    try:
        found = explain(*given)
    except ReidError:
        raise
    except Exception as error:
        raise PluginError(
            f"{wired.part}: explain failed: {type(error).__name__}: {error} {owner}"
        ) from error
    complaint = _complaint(found, pictures, lines)
    if complaint:
        raise PluginError(f"{wired.part}: explain {complaint} {owner}")
    return {f"{wired.part.role}.{name}": explanation for name, explanation in found.items()}


def _complaint(found: Any, pictures: int, lines: bool) -> str:
    """What is wrong with what `explain` returned, "" if nothing."""
    if not isinstance(found, Mapping):
        return f"returned {type(found).__name__}, not {{name: Heat, Lines or Table}}"
    for name, one in found.items():
        if not isinstance(name, str) or not INSTANCE.fullmatch(name):
            return f"used the name {name!r}; expected a-z, 0-9 and _, beginning with a letter"
        if not isinstance(one, Heat | Lines | Table):
            return f"returned {type(one).__name__} as {name!r}, not Heat, Lines or Table"
        if isinstance(one, Lines) and not lines:
            return f"returned Lines as {name!r}; only matchers see two pictures"
        if isinstance(one, Heat) and len(one.values) != pictures:
            return f"returned {name!r} with {len(one.values)} grids for {pictures} pictures"
    return ""


def listed_pairs(ranked: Ranked, limit: int | None = None) -> list[Explained]:
    """Every match of the first `limit` queries, nothing explained yet."""
    pairs = []
    for number, query in enumerate(ranked.query[:limit], 1):
        places, distances = (part[number - 1].tolist() for part in (ranked.index, ranked.distance))
        for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1):
            if place >= 0:
                pairs.append(Explained(number, query, rank, ranked.gallery[place], distance, {}))
    return pairs


def explained_pairs(
    model: Model,
    matchers: Sequence[str],
    maps: Sequence[str],
    pairs: Sequence[Explained],
    loader: PictureLoader,
    rows: Rows,
    vectors: Sequence[str] = (),
    identity: int | None = None,
) -> Iterator[Explained]:
    """The pairs with their explanations. rows: every pair's query and gallery picture in turn."""
    for pair, batch in zip(pairs, loader.plain(rows, 2), strict=True):
        images = batch.images.to(model.device)
        found = explain_pair(model, matchers, maps, images, vectors, identity)
        yield attrs.evolve(pair, found=found)
