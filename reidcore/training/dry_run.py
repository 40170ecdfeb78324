"""One tiny random batch through training and ranking, on a copy, before pictures are read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reidcore.contracts.component import Feature
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Images, Meta
from reidcore.errors import PluginError, ReidError
from reidcore.model.model import Model, widened
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.resources import Resources
from reidcore.ranking.scorer import make_fusion
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import view_of
from reidcore.runfiles.tables import RankingTable
from reidcore.support.seeds import seeded
from reidcore.wiring.plan import Plan, Wired

PER_ID = 2


def random_batch(plan: Plan, device: torch.device, seed: int = 0, training: bool = False) -> Batch:
    """2 identities x 2 pictures for every modality, or, if `training`, for those of the training
    pictures; random pixels, float32 [B, 3, H, W]."""
    draw = torch.Generator().manual_seed(seed)
    every = plan.given.modalities
    trained = [number for number, name in enumerate(every) if name in plan.given.train_modalities]
    numbers = torch.tensor((training and trained) or list(range(max(1, len(every)))))
    identities = min(2, max(1, plan.given.identities))
    size = identities * PER_ID * len(numbers)
    order = torch.arange(size)
    images = Images(
        torch.rand(size, 3, *plan.given.image, generator=draw),
        numbers[order // (identities * PER_ID)],
        order % max(1, plan.given.cameras),
    )
    return Batch(images.to(device), (order // PER_ID % identities).to(device))


@contextmanager
def blamed(wired: Wired, doing: str) -> Iterator[None]:
    """Whatever a part raises becomes an error that names it."""
    try:
        yield
    except ReidError:
        raise
    except Exception as error:
        owner = f"{wired.component.distribution} {wired.component.version}"
        raise PluginError(
            f"dry run: {wired.part}: {doing} failed: {type(error).__name__}: {error} ({owner})"
        ) from error


def dry_run(plan: Plan, model: Model) -> list[str]:
    """Pushes a random batch through everything. Returns notes, such as parameters without gradient.

    Raises PluginError naming the part whose shapes, numbers or promises are not as declared.
    """
    with seeded("dry run"):
        copied = copy.deepcopy(model)
        batch = random_batch(plan, model.device)
        notes = []
        if plan.losses:
            training = random_batch(plan, model.device, training=True)
            notes = train_once(plan, copied, training)
        copied.eval()
        with torch.no_grad():
            check_features(plan, copied(batch.images), len(batch))
            templates = {
                wired.part.name: _match_once(copied, wired, batch) for wired in plan.matchers
            }
            for ranking in plan.rankings:
                _rank_once(plan, copied, ranking, templates, batch)
    return notes


def train_once(plan: Plan, model: Model, batch: Batch) -> list[str]:
    """One training step with every moment. Returns a note on parameters without gradient."""
    model.train()

    def extract(rows: Any = None) -> Iterator[tuple[dict[str, Tensor], Batch]]:
        model.eval()
        with torch.no_grad():
            features = model(batch.images)
        model.train()
        yield features, batch

    losses = {wired.part.name: wired for wired in plan.losses}
    for name, loss in model.losses.items():
        with blamed(losses[name], "before_training"):
            loss.before_training(extract)
    features = _forward(plan, model, batch.images)
    check_features(plan, features, len(batch))
    total: Tensor | None = None
    terms: dict[str, float] = {}
    for name, loss in model.losses.items():
        with blamed(losses[name], "forward"), model.autocast():
            result = loss(features, batch)
            value, logged = result if isinstance(result, tuple) else (result, {})
            if not isinstance(value, Tensor) or value.ndim != 0:
                raise ValueError(f"the loss is {_shown(value)}, not a scalar")
            if not value.isfinite():
                raise ValueError(f"the loss is {value.item()}")
            terms[name] = value.item()
            terms.update(
                {f"{name}.{t}": float(torch.as_tensor(x).detach()) for t, x in logged.items()}
            )
        weighted = value * losses[name].part.weight
        total = weighted if total is None else total + weighted
    assert total is not None
    if not total.requires_grad:
        return ["no loss has a gradient"]
    total.backward()
    without = [
        f"{role}.{key}"
        for role, module in model.parts()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    torch.optim.SGD(model.parameters(), lr=1e-6).step()
    detached = {name: value.detach() for name, value in features.items()}
    with torch.no_grad():
        for name, loss in model.losses.items():
            with blamed(losses[name], "after_step"):
                loss.after_step(detached, batch)
            with blamed(losses[name], "after_epoch"):
                loss.after_epoch(terms)
    if not without:
        return []
    shown = ", ".join(without[:4]) + (f" and {len(without) - 4} more" if len(without) > 4 else "")
    return [f"no gradient reaches {shown}"]


def _forward(plan: Plan, model: Model, images: Images) -> dict[str, Tensor]:
    """The model's forward pass, part by part so that a failure has a name."""
    features: dict[str, Tensor] = {}
    images = model.laid_out(images)
    with blamed(plan.backbone, "forward"), model.autocast():
        outputs = model.backbone(images)
    _take(features, plan, plan.backbone, outputs)
    for wired, head in zip(plan.heads, model.heads.values(), strict=True):
        with blamed(wired, "forward"), model.autocast():
            outputs = head(features, images)
        _take(features, plan, wired, outputs)
    return {name: widened(value) for name, value in features.items()}


def _take(
    features: dict[str, Tensor], plan: Plan, wired: Wired, outputs: Mapping[str, Tensor]
) -> None:
    wanted = plan.wanted[wired.part.role]
    missing = sorted(wanted - set(outputs))
    extra = sorted(set(outputs) - set(wired.outputs))
    for names, text in ((missing, "does not give"), (extra, "gives undeclared")):
        if names:
            raise PluginError(f"dry run: {wired.part}: {text} output {', '.join(names)}")
    instance = wired.part.name or "backbone"
    for name in wanted:
        features[f"{instance}.{name}"] = outputs[name].contiguous()


def check_features(plan: Plan, features: Mapping[str, Tensor], size: int) -> None:
    """Declared shapes are the actual ones, and every number is finite."""
    for wired in (plan.backbone, *plan.heads):
        instance = wired.part.name or "backbone"
        for output in plan.wanted[wired.part.role]:
            declared: Feature = wired.outputs[output]
            tensor = features[f"{instance}.{output}"]
            if tuple(tensor.shape) != (size, *declared.shape):
                raise PluginError(
                    f"dry run: {wired.part}: output {output!r} is declared as {declared} for each "
                    f"picture, but {size} pictures give {list(tensor.shape)}"
                )
            if not tensor.isfinite().all():
                raise PluginError(f"dry run: {wired.part}: output {output!r} is not finite")


def _match_once(model: Model, wired: Wired, batch: Batch) -> Template:
    """The batch's template, after checking it and the distances within the batch."""
    matcher, matching = model.matchers[wired.part.name], wired.matching
    assert matching is not None
    seen = [model(view_of(batch.images, view)) for view in model.plan.given.views]
    with blamed(wired, "template"):
        template = matcher.merge([matcher.template(features) for features in seen])
    size = len(batch)
    for key, spec in matching.template.items():
        found = template.get(key)
        if found is None or tuple(found.shape) != (size, *spec.shape):
            raise PluginError(
                f"dry run: {wired.part}: template {key!r} is declared as {list(spec.shape)} for "
                f"each picture, but {size} pictures give {_shown(found)}"
            )
        if str(found.dtype) != f"torch.{spec.dtype}":
            raise PluginError(
                f"dry run: {wired.part}: template {key!r} is declared as {spec.dtype}, but is "
                f"{found.dtype}"
            )
    with blamed(wired, "distance"):
        distances = matcher.distance(template, template)
    check_distances(wired, distances, (size, size))
    if matching.logits:
        with blamed(wired, "logits"):
            logits = matcher.logits(template, template)
        if tuple(logits.shape) != (size, size) or not logits.isfinite().all():
            raise PluginError(f"dry run: {wired.part}: logits are {_shown(logits)}")
    return template


def _rank_once(
    plan: Plan, model: Model, ranking: RankingTable, templates: dict[str, Template], batch: Batch
) -> None:
    """The batch ranked against itself, postprocessors included."""
    images, size = batch.images, len(batch)
    meta = Meta(
        images.camera,
        torch.arange(size, dtype=torch.float64, device=images.camera.device),
        images.modality,
    )
    same = batch.pid[:, None] == batch.pid
    pairs = {}
    for name in ranking.weights:
        found = model.matchers[name].distance(templates[name], templates[name])
        pairs[name] = Pairs(found[same].cpu(), found[~same].cpu())
    sides = Sides(meta, meta, {"query": templates, "gallery": templates})
    resources = Resources(plan.runfile.eval.memory, model.device)
    context = MatcherRanking(make_fusion(ranking, model, pairs), sides, resources)
    distances = context.before_postprocessing(context.between("query", "gallery", 0, size))
    posts = {post.part.name: post for post in plan.posts}
    for name in ranking.post:
        post = posts[name]
        built = build_postprocessor(plan, post)
        with blamed(post, "postprocessing"):
            distances = built(distances, context)


def check_distances(wired: Wired, distances: Any, shape: tuple[int, int]) -> None:
    """A matcher's promises: float32, finite, not negative, at most 1 if unit."""
    place = f"dry run: {wired.part}: distance"
    if not isinstance(distances, Tensor) or tuple(distances.shape) != shape:
        raise PluginError(f"{place} gives {_shown(distances)} for {shape[0]} x {shape[1]} pictures")
    if distances.dtype != torch.float32:
        raise PluginError(f"{place} gives {distances.dtype}, not torch.float32")
    if not distances.isfinite().all():
        raise PluginError(f"{place} is not finite")
    if (distances < 0).any():
        raise PluginError(f"{place} is negative: {distances.min().item():g}")
    assert wired.matching is not None
    if wired.matching.unit and (distances > 1).any():
        raise PluginError(
            f"{place} promises to lie in [0, 1], but reaches {distances.max().item():g}"
        )


def _shown(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
