"""The dry run: one random batch through training and ranking, before any picture is read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Images, Meta
from reidcore.errors import PluginError, UsageError
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import take, view_of
from reidcore.runfiles.tables import RankingTable
from reidcore.support.seeds import seeded
from reidcore.support.too_much import is_too_much, largest
from reidcore.support.wording import few, in_words, shortened
from reidcore.training.dry_checks import (
    check_distances,
    check_features,
    check_logits,
    check_loss,
    check_names,
    check_template,
)
from reidcore.wiring.blame import blamed
from reidcore.wiring.plan import Plan, Wired

PER_ID = 3
"""Pictures of an identity in a random batch: not as many as identities, so that a part that takes
one for the other is seen."""
MOMENT = "dry run: "
"""The beginning of every message that says what a part does wrong in it."""
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
    """Do one training step with every moment of the losses, as `core.train` does, and a second one
    if the first left parameters without gradient: losses that remember begin with the second.
    Return notes on parameters that have none then."""
    with _watched(plan, model):
        model.train().before_training(lambda rows=None: _extracted(model, batch))
        notes: list[str] = []
        for _ in range(2):
            features = model(batch.images)
            check_features(plan, features, len(batch))
            loss, terms = model.loss(features, batch)
            if not loss.requires_grad:
                return ["no loss has a gradient"]
            loss.backward()
            notes = _gradient_notes(model)
            torch.optim.SGD(model.parameters(), lr=1e-6).step()
            model.after_step(features, batch)
            if not notes:
                break
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
                with blamed(wired, method, MOMENT):
                    result = called(*given, **named)
                    if check is not None:
                        check(result)
                return result

            _replace(stack, part, method, checked)

        for wired in (plan.backbone, *plan.heads):
            watch(wired, "forward", functools.partial(check_names, plan, wired))
        for wired in plan.losses:
            watch(wired, "forward", check_loss)
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


def _match_once(model: Model, wired: Wired, batch: Batch) -> Template:
    """Return the batch's template, once it and the distances within the batch are checked."""
    matcher, matching = model.matchers[wired.part.name], wired.matching
    assert matching is not None
    size, queries = len(batch), len(batch) - 1
    seen = [model(view_of(batch.images, view)) for view in model.plan.given.views]
    with blamed(wired, "template", MOMENT):
        template = matcher.merge([matcher.template(features) for features in seen])
    check_template(wired, template, size)
    asking = take(template, slice(queries))
    with blamed(wired, "distance", MOMENT):
        distances = matcher.distance(asking, template)
    check_distances(wired, distances, (queries, size))
    if matching.logits:
        with blamed(wired, "logits", MOMENT):
            logits = matcher.logits(asking, template)
        check_logits(wired, logits, (queries, size))
    return template


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
        distances = built(distances, context)
