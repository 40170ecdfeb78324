"""Base classes of losses and matchers, and the context in which every part is built."""

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
"""Use of published weights: required, used where they are there, or left out."""

Template = dict[str, Tensor]
"""Template of N pictures, what a matcher keeps of them: tensors [N, ...] by name."""


class Context:
    """The finished run as a part's build function sees it: `build(config, context)`.

    Everything of `Given` is there too: `context.image`, `context.identities`, `context.features`,
    `context.map(name)` and so on.

    Args:
        given: The finished `Given` of the run.
        name: Name of the part in the run file.
        wanted: Names of the part's own outputs that somebody reads; compute no others.
        matchers: Built matchers by name, for losses, which hold them `Unowned`.
        initial: Use of published weights to start from: "need" them, as a run does; use them where
            they are there ("offer"), as a check does; or leave them out, because trained weights
            follow ("none"). `reidcore.networks.initial_weights` acts on it.

    Example:
        >>> from reidcore.api import Feature, Given
        >>> from reidcore.modules import Context
        >>> given = Given((256, 128), features={"backbone.layer4": Feature.map(2048, 16, 8)})
        >>> context = Context(given, "cut", wanted=["vector"])
        >>> context.map("backbone.layer4")
        (2048, 16, 8)
        >>> "vector" in context.wanted
        True
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
        """Return the checkpoint to start from, as `Given.weights` does, or "" for none.

        Args:
            field: The setting that names the checkpoint.
            value: Its value.
            published: The part's word for published weights.

        Returns:
            An absolute path; `published` if that is the value; "" for random weights, and where
            trained weights follow.
        """
        return "" if self.initial == "none" else self.given.weights(field, value, published)

    def say(self, text: str) -> None:
        """Tell the user something about how the part was built."""
        self.notes.append(text)

    def __getattr__(self, name: str) -> Any:
        if name == "given":  # not yet set, as while copying
            raise AttributeError(name)
        return getattr(self.given, name)


class Extract(Protocol):
    """Function that runs the model over pictures in eval mode, without gradients."""

    def __call__(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """Yield the features of pictures and the pictures themselves, batch by batch.

        Pictures are read with the test transform, without augmentation.

        Args:
            rows: Pictures in the wanted order; None for the whole training set.

        Yields:
            Features [B, ...] by full name, and the batch with its labels.
        """


class Unowned:
    """A reference to a module that belongs to somebody else; call it to get the module.

    A loss that trains a matcher holds it so: registered as a submodule, it would be saved twice and
    its parameters would reach the optimizer twice.

    Args:
        module: The module.

    Example:
        >>> from torch import nn
        >>> from reidcore.modules import Loss, Unowned
        >>> class Pairs(Loss):
        ...     def __init__(self, matcher):
        ...         super().__init__()
        ...         self.matcher = Unowned(matcher)
        >>> loss = Pairs(nn.Linear(4, 4))
        >>> loss.matcher()
        Linear(in_features=4, out_features=4, bias=True)
        >>> list(loss.parameters())
        []
    """

    def __init__(self, module: nn.Module):
        self._module = module

    def __call__(self) -> Any:
        return self._module


class Loss(nn.Module):
    """Base class of losses, which alone see identities.

    A loss may own parameters and buffers; all its state is in `state_dict`. `forward` changes no
    state but that of norm layers: other state changes in `before_training`, `after_step` and
    `after_epoch`, which the procedure calls outside autograd.

    Example:
        >>> import torch
        >>> from reidcore.modules import Batch, Images, Loss
        >>> class Length(Loss):
        ...     def forward(self, features, batch):
        ...         lengths = features["neck.pooled"].norm(dim=1)
        ...         return lengths.mean(), {"longest": lengths.max()}
        >>> zeros = torch.zeros(2).long()
        >>> batch = Batch(Images(torch.zeros(2, 3, 8, 8), zeros, zeros), torch.tensor([0, 1]))
        >>> Length()({"neck.pooled": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}, batch)
        (tensor(3.), {'longest': tensor(5.)})
    """

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of one batch.

        Args:
            features: float32 features [B, ...] by full name.
            batch: The pictures and their labels.

        Returns:
            The loss, a scalar; or the loss and further scalars to log, by name.
        """
        raise NotImplementedError

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return how much each vector speaks for every training identity.

        `reid explain` shows where in a picture that comes from.

        Args:
            features: Features [B, ...] by full name, with their graph.

        Returns:
            float [B, identities], with their graph, by the vector's full name; empty for a loss
            that classifies nothing.
        """
        return {}

    def before_training(self, extract: Extract) -> None:
        """Prepare before the first epoch; not called again when a run is resumed.

        Args:
            extract: Gives the features of any training pictures.
        """

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        """Update state after an optimizer step.

        Args:
            features: The step's features [B, ...] by full name, detached.
            batch: The step's pictures and labels.
        """

    def after_epoch(self, means: Mapping[str, float]) -> None:
        """Update state after an epoch.

        Args:
            means: Unweighted means over the epoch of all losses and what they log, by name.
        """


class Matcher(nn.Module):
    """Base class of matchers, which turn features into templates and templates into distances.

    A matcher may own parameters. It may have `explain(a, b)`, as every other part may have
    `explain(features, images)`: see docs/contracts.md.

    Example:
        >>> import torch
        >>> from reidcore.modules import Matcher
        >>> class Manhattan(Matcher):
        ...     def template(self, features):
        ...         return {"vector": features["neck.bn"]}
        ...     def distance(self, a, b):
        ...         return torch.cdist(a["vector"].float(), b["vector"].float(), p=1)
        >>> matcher = Manhattan()
        >>> a = matcher.template({"neck.bn": torch.tensor([[0.0, 1.0]])})
        >>> b = matcher.template({"neck.bn": torch.tensor([[0.0, 1.0], [2.0, 3.0]])})
        >>> matcher.distance(a, b)
        tensor([[0., 4.]])
    """

    def template(self, features: Mapping[str, Tensor]) -> Template:
        """Return the template of B pictures.

        Args:
            features: Features [B, ...] by full name.

        Returns:
            Tensors [B, ...] by name, as `Matching.template` declares them.
        """
        raise NotImplementedError

    def merge(self, views: Sequence[Template]) -> Template:
        """Return one template for several test views of the same pictures.

        It is called at inference, for a single view too, and its result is what is stored. By
        default it is the mean, in the views' dtype.

        Args:
            views: Template of the pictures in each view.
        """
        if len(views) == 1:
            return dict(views[0])
        return {
            key: torch.stack([at_least_float32(view[key]) for view in views])
            .mean(0)
            .to(views[0][key].dtype)
            for key in views[0]
        }

    def distance(self, a: Template, b: Template) -> Tensor:
        """Return the distances of every query to every gallery picture.

        Args:
            a: Template of Q queries.
            b: Template of G gallery pictures.

        Returns:
            float32 [Q, G], under autocast too, differentiable, finite, at least 0, at most 1 if
            `Matching.unit`; smaller is closer.
        """
        raise NotImplementedError

    def logits(self, a: Template, b: Template) -> Tensor:
        """Return logits of all pairs, for losses that train the matcher; only if `Matching.logits`.

        One call is one batch for norm layers; a matcher that splits it must see to that.

        Args:
            a: Template of Q pictures.
            b: Template of G pictures.

        Returns:
            float [Q, G], unbounded; larger where the identity is rather the same.
        """
        raise NotImplementedError
