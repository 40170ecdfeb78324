"""The dry run: one random batch through training and ranking, before any picture is read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.contracts.component import Feature
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Images, Meta
from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import take, view_of
from reidcore.runfiles.tables import RankingTable
from reidcore.support.author_code import with_place
from reidcore.support.seeds import seeded
from reidcore.support.too_much import is_too_much, largest
from reidcore.support.wording import few, in_words, shortened
from reidcore.wiring.plan import Plan, Wired

PER_ID = 3
"""Pictures of an identity in a random batch: not as many as identities, so that a part that takes
one for the other is seen."""
EXTREME = 1e6
"""Numbers of settings from which on a dry run that fails is not put down to a plugin."""


def random_batch(plan: Plan, device: torch.device, seed: int = 0, training: bool = False) -> Batch:
    """Return random pixels, float32 [B, 3, H, W], of 2 identities with 3 pictures each in every
    modality, or if `training`, in every modality of the training pictures."""
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
    """Turn whatever a part raises into an error that names it."""
    try:
        yield
    except ReidError:
        raise
    except (Exception, SystemExit) as error:
        owner = f"{wired.component.distribution} {wired.component.version}"
        raise PluginError(
            f"dry run: {wired.part}: {doing} failed: {with_place(error)} ({owner})"
        ) from error


def dry_run(plan: Plan, model: Model) -> list[str]:
    """Train, match and rank with a random batch, on a copy of the model. Return notes, such as on
    parameters without gradient.

    Raises PluginError naming the part whose shapes, numbers or promises are not as declared;
    UsageError where batches of one picture cannot be trained on, or a setting is so large that
    nothing can be computed with it.
    """
    try:
        return _dry_run(plan, model)
    except Exception as error:
        parts = plan.resolved().get("parts", {})
        large = largest(parts, EXTREME)
        if (isinstance(error, PluginError) and large) or is_too_much(error, parts):
            which = large or largest(parts) or f"image = {list(plan.given.image)}"
            raise UsageError(
                f"{which}: nothing can be computed with so large a number: "
                f"{shortened(in_words(error), 300)}"
            ) from error
        raise


def _dry_run(plan: Plan, model: Model) -> list[str]:
    with seeded("dry run"):
        copied = copy.deepcopy(model)
        notes = []
        if plan.losses:
            batch = random_batch(plan, model.device, training=True)
            notes = train_once(plan, copied, batch)
            if plan.runfile.train.epochs and 1 in (plan.given.batch.size, plan.given.batch.least):
                _train_on_one(plan, copied, Batch(batch.images[:1], batch.pid[:1]))
        copied.eval()
        batch = random_batch(plan, model.device)
        # Not as many pictures of each modality, as in any gallery.
        batch = Batch(batch.images[:-1], batch.pid[:-1])
        with torch.no_grad(), _watched(plan, copied):
            check_features(plan, copied(batch.images), len(batch))
            templates = {
                wired.part.name: _match_once(copied, wired, batch) for wired in plan.matchers
            }
            for ranking in plan.rankings:
                _rank_once(plan, copied, ranking, templates, batch)
    return notes


def train_once(plan: Plan, model: Model, batch: Batch) -> list[str]:
    """Do one training step with every moment of the losses, as `core.train` does. Return notes on
    parameters without gradient."""
    with _watched(plan, model):
        model.train().before_training(lambda rows=None: _extracted(model, batch))
        features = model(batch.images)
        check_features(plan, features, len(batch))
        loss, terms = model.loss(features, batch)
        if not loss.requires_grad:
            return ["no loss has a gradient"]
        loss.backward()
        notes = _gradient_notes(model)
        torch.optim.SGD(model.parameters(), lr=1e-6).step()
        model.after_step(features, batch)
        model.after_epoch({name: float(value) for name, value in terms.items()})
    return notes


def _train_on_one(plan: Plan, model: Model, batch: Batch) -> None:
    """Refuse a run whose sampler gives a batch of one picture where the model cannot train on it,
    as batch norms of vectors cannot."""
    try:
        with _watched(plan, model):
            model.loss(model.train()(batch.images), batch)
    except PluginError as error:
        which = "every" if plan.given.batch.size == 1 else "the last"
        raise UsageError(
            f"[data] batch: {which} batch of an epoch has one picture, which this run cannot "
            "train on; change its size, or leave an incomplete last batch out (drop_last = true). "
            f"{str(error).removeprefix('dry run: ')}"
        ) from error


def _extracted(model: Model, batch: Batch) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
    """Yield what `Run.extract` gives, of training pictures that are this one batch."""
    model.eval()
    with torch.no_grad():
        features = model(batch.images)
    model.train()
    yield features, batch


def _gradient_notes(model: Model) -> list[str]:
    without = [
        f"{role}.{key}"
        for role, module in model.parts()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    return [f"no gradient reaches {few(without)}"] if without else []


@contextmanager
def _watched(plan: Plan, model: Model) -> Iterator[None]:
    """Check what the parts give while the model trains, and name the part that fails."""
    parts = dict(model.parts())
    with ExitStack() as stack:
        # A compiled part is not called by the method that is watched, and takes minutes besides.
        _replace(stack, model, "compiles", False)

        def watch(wired: Wired, method: str, check: Callable[[Any], None] | None = None) -> None:
            part = parts[wired.part.role]
            called = getattr(part, method)

            def checked(*given: Any, **named: Any) -> Any:
                with blamed(wired, method):
                    result = called(*given, **named)
                    if check is not None:
                        check(result)
                return result

            _replace(stack, part, method, checked)

        for wired in (plan.backbone, *plan.heads):
            watch(wired, "forward", functools.partial(_check_names, plan, wired))
        for wired in plan.losses:
            watch(wired, "forward", _check_loss)
            for moment in ("before_training", "after_step", "after_epoch"):
                watch(wired, moment)
        yield


def _replace(stack: ExitStack, owner: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of the object until the stack is closed."""
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)


def _check_names(plan: Plan, wired: Wired, outputs: Mapping[str, Tensor]) -> None:
    """Check that the wanted outputs are given, and none that is not declared."""
    if not isinstance(outputs, Mapping):
        return  # The model says so.
    missing = sorted(plan.wanted[wired.part.role] - set(outputs))
    extra = sorted(set(outputs) - set(wired.outputs))
    for names, text in ((missing, "does not give"), (extra, "gives undeclared")):
        if names:
            raise PluginError(f"dry run: {wired.part}: {text} output {', '.join(names)}")


def _check_loss(result: Any) -> None:
    """Check that a loss is one finite number, and its logged terms numbers."""
    value, logged = result if isinstance(result, tuple) else (result, {})
    if not isinstance(value, Tensor) or value.ndim != 0:
        raise ValueError(f"the loss is {_shown(value)}, not a scalar")
    if not value.isfinite():
        raise ValueError(f"the loss is {value.item()}")
    for term, number in logged.items():
        if torch.as_tensor(number).numel() != 1:
            raise ValueError(f"its term {term!r} is {_shown(number)}, not a number")


def check_features(plan: Plan, features: Mapping[str, Tensor], size: int) -> None:
    """Check that every feature has its declared shape and only finite numbers."""
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
    """Return the batch's template, once it and the distances within the batch are checked."""
    matcher, matching = model.matchers[wired.part.name], wired.matching
    assert matching is not None
    size, queries = len(batch), len(batch) - 1
    seen = [model(view_of(batch.images, view)) for view in model.plan.given.views]
    with blamed(wired, "template"):
        template = matcher.merge([matcher.template(features) for features in seen])
    _check_template(wired, template, size)
    asking = take(template, slice(queries))
    with blamed(wired, "distance"):
        distances = matcher.distance(asking, template)
    check_distances(wired, distances, (queries, size))
    if matching.logits:
        with blamed(wired, "logits"):
            logits = matcher.logits(asking, template)
        if tuple(logits.shape) != (queries, size) or not logits.isfinite().all():
            raise PluginError(
                f"dry run: {wired.part}: logits of {queries} x {size} pictures are "
                f"{_shown(logits)}, not finite float32 [{queries}, {size}]"
            )
    return template


def _check_template(wired: Wired, template: Template, size: int) -> None:
    """Check the tensors of a template of `size` pictures against what the matcher declares."""
    assert wired.matching is not None
    for key, spec in wired.matching.template.items():
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


def _rank_once(
    plan: Plan, model: Model, ranking: RankingTable, templates: dict[str, Template], batch: Batch
) -> None:
    """Rank the batch for all of its pictures but one, postprocessors included."""
    images, size, queries = batch.images, len(batch), len(batch) - 1
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
    asking = {name: take(template, slice(queries)) for name, template in templates.items()}
    sides = Sides(meta[:queries], meta, {"query": asking, "gallery": templates})
    resources = Resources(plan.runfile.eval.memory, model.device)
    context = MatcherRanking(make_fusion(ranking, model, pairs), sides, resources)
    distances = context.before_postprocessing(context.between("query", "gallery", 0, queries))
    posts = {post.part.name: post for post in plan.posts}
    for name in ranking.post:
        post = posts[name]
        built = build_postprocessor(plan, post)
        with blamed(post, "postprocessing"):
            distances = built(distances, context)


def check_distances(wired: Wired, distances: Any, shape: tuple[int, int]) -> None:
    """Check a matcher's promises: float32, finite, not negative, at most 1 if `unit`."""
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
