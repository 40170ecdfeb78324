"""What losses and matchers are built from, and what every part's build function is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from reidcore.contracts.given import Given
from reidcore.contracts.pictures import Batch, Rows
from reidcore.contracts.precision import at_least_float32
from reidcore.contracts.settings import IMAGENET

Initial = Literal["need", "offer", "none"]


Template = dict[str, Tensor]
"""Stored representation of images: name -> tensor whose leading axis is the images."""


class Context:
    """What `build(config, context)` gets: everything of the finished `Given` (image, identities,
    features, ...) plus what is known only when parts are built.

    name: the instance's name. wanted: the part's own output names that somebody reads; compute no
    others. matchers: built matcher modules by name (for losses; hold them `Unowned`). initial: what
    to do about published weights to start from: "need" them, as a run does, take them where they
    are there ("offer"), as a check does, or leave them, because trained weights follow ("none").
    `reidcore.networks.initial_weights` does it.
    """

    def __init__(
        self,
        given: Given,
        name: str,
        wanted: Iterable[str] = (),
        matchers: Mapping[str, Matcher] | None = None,
        initial: Initial = "offer",
    ):
        self.given = given
        self.name = name
        self.wanted = frozenset(wanted)
        self.matchers = dict(matchers or {})
        self.initial = initial
        self.notes: list[str] = []

    def weights(self, field: str, value: str, published: str = IMAGENET) -> str:
        """As `Given.weights`, "" also where trained weights follow."""
        return "" if self.initial == "none" else self.given.weights(field, value, published)

    def say(self, text: str) -> None:
        """Tells the user something about how the part was built."""
        self.notes.append(text)

    def __getattr__(self, name: str) -> Any:
        if name == "given":  # not yet set, as while copying
            raise AttributeError(name)
        return getattr(self.given, name)


class Extract(Protocol):
    """Runs the model over pictures in eval mode with the test transform, without gradients.

    Yields (features, batch) in row order; the default rows are the training set.
    """

    def __call__(
        self, rows: Rows | None = None
    ) -> Iterator[tuple[Mapping[str, Tensor], Batch]]: ...


class Unowned:
    """Holds a module without registering it, so that a loss that trains a matcher neither saves it
    twice nor hands its parameters to the optimizer twice. Call it to get the module."""

    def __init__(self, module: nn.Module):
        self._module = module

    def __call__(self) -> Any:
        return self._module


class Loss(nn.Module):
    """Base of losses. May own parameters and buffers; all its state is in `state_dict`.

    `forward` changes no state but that of norm layers. State changes in the three moments, which
    the procedure calls outside autograd.
    """

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | tuple[Tensor, Mapping[str, Tensor]]:
        """The scalar loss, or (loss, {term: scalar to log})."""
        raise NotImplementedError

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{vector's name: [B, identities]}: how much each vector speaks for every training
        identity, by which `reid explain` shows where in a picture that comes from. Empty for a
        loss that classifies nothing."""
        return {}

    def before_training(self, extract: Extract) -> None:
        """Once before the first epoch; not repeated when a run is resumed."""

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        """After every optimizer step, with the step's detached features."""

    def after_epoch(self, means: Mapping[str, float]) -> None:
        """After every epoch, with {term: unweighted mean of the epoch}."""


class Matcher(nn.Module):
    """Base of matchers. May own parameters; `distance` is differentiable. May have
    `explain(a, b)`, as every other part `explain(features, images)`: see docs/contracts.md."""

    def template(self, features: Mapping[str, Tensor]) -> Template:
        """What is kept of each image: name -> tensor [B, ...] as `Matching.template` declares."""
        raise NotImplementedError

    def merge(self, views: Sequence[Template]) -> Template:
        """Joins the templates of one image's test views; always called at inference, also for one
        view, and its result is what is stored. Default: the mean, in the declared dtype."""
        if len(views) == 1:
            return dict(views[0])
        return {
            key: torch.stack([at_least_float32(view[key]) for view in views])
            .mean(0)
            .to(views[0][key].dtype)
            for key in views[0]
        }

    def distance(self, a: Template, b: Template) -> Tensor:
        """float32 [len(a), len(b)], under autocast too, finite, >= 0, smaller is closer; `a` is
        the query side."""
        raise NotImplementedError

    def logits(self, a: Template, b: Template) -> Tensor:
        """[len(a), len(b)] unbounded, larger means same identity. One call is one batch for norm
        layers; chunking inside is the matcher's own business. Only if `Matching.logits`."""
        raise NotImplementedError
