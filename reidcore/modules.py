"""The torch half of the contracts: what components are built from and what they are given.

Plugins import this module from their torch files, never from `plugin.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from reidcore.api import IMAGENET, Given
from reidcore.fusing import Fused, Unfit

__all__ = [
    "Ask",
    "Batch",
    "Context",
    "Extract",
    "Fused",
    "Images",
    "Loss",
    "Matcher",
    "Meta",
    "Ranking",
    "Rows",
    "Run",
    "Template",
    "Unfit",
    "Unowned",
    "grad_cam",
    "open_run",
]

Initial = Literal["need", "offer", "none"]
Template = dict[str, Tensor]
"""Stored representation of images: name -> tensor whose leading axis is the images."""


@attrs.frozen(eq=False)
class Images:
    """All that inference may use of B pictures.

    pixels: float [B, 3, H, W]. modality: int64 [B], index into the run's modalities. camera: int64
    [B], -1 if unknown.
    """

    pixels: Tensor
    modality: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str) -> Images:
        return Images(*(value.to(device, non_blocking=True) for value in self._values()))

    def __getitem__(self, index: Any) -> Images:
        return Images(*(value[index] for value in self._values()))

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels, self.modality, self.camera


@attrs.frozen(eq=False)
class Batch:
    """Pictures with their identities, for losses only. pid: int64 [B], 0 .. identities - 1."""

    images: Images
    pid: Tensor

    def __len__(self) -> int:
        return self.pid.shape[0]


@attrs.frozen(eq=False)
class Meta:
    """What ranking may know of N pictures; never their identity.

    camera: int64 [N], -1 if unknown. time: float64 [N] seconds, NaN if unknown. modality: int64
    [N].
    """

    camera: Tensor
    time: Tensor
    modality: Tensor

    def __len__(self) -> int:
        return self.camera.shape[0]

    def __getitem__(self, index: Any) -> Meta:
        return Meta(self.camera[index], self.time[index], self.modality[index])

    def to(self, device: torch.device | str) -> Meta:
        return Meta(self.camera.to(device), self.time.to(device), self.modality.to(device))


@attrs.frozen(eq=False)
class Rows:
    """A list of labelled training pictures: what samplers and procedures see.

    paths: absolute paths. pid: int64 [N], 0 .. identities - 1. camera, time, modality: as `Meta`.
    names: the identities' names in the data set, by number. listed: where each row stands.
    """

    paths: Sequence[str]
    pid: np.ndarray
    camera: np.ndarray
    time: np.ndarray
    modality: np.ndarray
    names: Sequence[str]
    listed: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def identities(self) -> int:
        """Number of identities that labels may name; some may have no picture in a part."""
        return len(self.names)

    def where(self, mask: Sequence[bool] | np.ndarray) -> Rows:
        """The rows where `mask` [N] is true, in order, with labels unchanged."""
        if len(mask) != len(self):
            raise ValueError(f"mask has {len(mask)} entries for {len(self)} rows")
        return self.take(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """The rows at `indices`, in that order, with labels unchanged."""
        index = np.asarray(indices, dtype=np.int64)
        return attrs.evolve(
            self,
            paths=[self.paths[int(i)] for i in index],
            listed=[self.listed[int(i)] for i in index],
            **{name: getattr(self, name)[index] for name in ("pid", "camera", "time", "modality")},
        )

    def relabelled(self, pids: Sequence[int]) -> Rows:
        """The same rows with label pids[k] renamed to k; every row's label must be listed."""
        number = {int(pid): new for new, pid in enumerate(pids)}
        missing = sorted({int(pid) for pid in self.pid} - number.keys())
        if missing:
            raise ValueError(f"rows have labels that pids does not list: {missing[:5]}")
        return attrs.evolve(
            self,
            pid=np.array([number[int(pid)] for pid in self.pid], dtype=np.int64),
            names=[self.names[int(pid)] for pid in pids],
        )


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


def _at_least_float32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


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
            key: torch.stack([_at_least_float32(view[key]) for view in views])
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


class Ranking(Protocol):
    """What a postprocessor may ask. Sides are "query" and "gallery". Everything is on one device,
    that of the distances, which is the CPU where they do not fit on the model's."""

    query: Meta
    gallery: Meta
    symmetric: bool
    """Whether two pictures' distance does not depend on which of them is the query."""

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        """Rows start..stop of the matcher's own distances between two sides, float32
        [stop - start, len(b)]."""

    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        """All of the matcher's own distances within a side, as (start, first, block): float32 of
        the rows `start` and following and the columns `first` and following, about `entries`
        numbers at most. Where distances are `symmetric`, a pair of pictures comes once, apart from
        blocks that begin on the diagonal. Several processes get a share each."""

    def everyone(self, value: Tensor) -> list[Tensor]:
        """`value` of every process that shares this evaluation; one alone gets its own."""

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, which follows from the gallery's distances alone; made once for as
        long as this gallery is searched."""

    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        """The matcher's own distances of the listed pairs (i[k], j[k]), float32 [K]."""

    def expanded(self, neighbours: Tensor) -> Tensor:
        """Query expansion: every query's template merged with those of its gallery pictures
        `neighbours` int64 [Q, K], scored against the gallery again; float32 [Q, G]."""


class Ask(Protocol):
    """What a sampler may ask about the training pictures, in eval mode without gradients."""

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        """The feature `name` (`instance.output`) of the rows at `indices`, [len(indices), ...]."""

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """The matcher's distances between the rows at `a` and at `b`, float32 [len(a), len(b)]."""


class Run(Protocol):
    """What a procedure is written against; the plain training of the core uses nothing else.

    folder: the run folder. table: the resolved run file. device, seed: of the run. model: the
    assembled model; `model(images) -> features`, `model.loss(features, batch) -> (scalar, terms)`,
    `model.before_training(extract)`, `model.after_step(features, batch)`,
    `model.after_epoch(means)`, and `model.backbone`. train: the training pictures.

    Where several processes share a run, each runs the procedure. A batch of `batches` is the whole
    batch in each of them; of its pixels a process reads only those that `model(images)` is to
    compute there, and gathers the features of the others, so that losses, labels and moments need
    no thought. Every process must come to the same calls in the same order.
    """

    folder: Path
    table: Mapping[str, Any]
    device: torch.device
    seed: int
    model: Any
    train: Rows

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        """One epoch of augmented batches of `rows` in the sampler's order. Order and augmentation
        follow from seed, epoch and stream alone."""

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """See `Extract`."""

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        """The run file's optimizer over `parameters`, by default the whole model with the learning
        rate scales of its roles; its learning rate follows the run file's schedule."""

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Clears gradients, `backward`, gradient clipping and one step of each optimizer."""

    def backward(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Adds the loss's gradients, as all processes have them together, which `loss.backward()`
        would not, to those of the model, of `optimizer()`'s parameters and of what these
        optimizers step."""

    def epochs(self, **state: Any) -> Iterator[int]:
        """Counts epochs from where the last save stopped. Everything in `state` with a
        `state_dict` is saved with the model after each epoch and restored on resume."""

    def log(self, /, **numbers: float | Tensor) -> None:
        """Adds numbers to the current epoch's means."""

    def means(self) -> dict[str, float]:
        """The unweighted means of what was logged in the current epoch."""

    def say(self, text: str) -> None:
        """Shows the user a line that stays."""

    def evaluate(self) -> dict[str, Any] | None:
        """Scores on every test set now; None if the run has none."""

    def write(self, name: str, data: str | bytes) -> Path:
        """Writes a file into the run folder atomically."""


def grad_cam(values: Tensor, gradient: Tensor) -> Tensor:
    """[B, C, h, w] twice to [B, h, w], at least 0: what in a map raises a score.

    The channels' sum, each weighted by its gradient's mean over all places, cut off below 0
    (Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2).
    """
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * values).sum(1).clamp(min=0)


def open_run(folder: str | Path, device: str = "auto") -> Any:
    """A trained model from its run folder, in eval mode, with what its rankings need.

    Returns a `reidcore.model.Model`. Raises `reidcore.errors.ReidError` with what is wrong.
    """
    from reidcore.runfolder import open_model

    return open_model(Path(folder), device)


Builder = Callable[[Any, Context], Any]
