"""The tables of a run file that belong to the core, with their settings. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from reidcore.contracts.settings import setting
from reidcore.protocols.base import SamePlace
from reidcore.protocols.score_names import Counted, Precision, Ties


@attrs.frozen
class Normalize:
    """Statistics of a data set's pixels, for red, green and blue in [0, 1]."""

    mean: tuple[float, float, float] = setting(
        "What is subtracted from red, green and blue, of pixels in [0, 1].", at_least=0, at_most=1
    )
    deviation: tuple[float, float, float] = setting("What they are divided by afterwards.", above=0)


IMAGENET_PIXELS = Normalize(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
"""ImageNet's statistics, which `normalize = "imagenet"` means."""


@attrs.frozen
class Data:
    """Pictures: where they are and how they are read."""

    train: dict[str, Any] | list[dict[str, Any]] = setting(
        "Training pictures: a table with `manifest = FILE` or `read = READER` (and the reader's "
        "own keys), or a list of them, whose identities are kept apart. `splits` names the "
        "manifest splits to use.",
        default=[],
    )
    test: dict[str, Any] | list[dict[str, Any]] = setting(
        "Test sets, each a table like `train`, with an optional `name` and `protocol`; each needs "
        "query and gallery pictures, or a pool `test` from which its protocol takes both.",
        default=[],
    )
    hold_out: float = setting(
        "Share of the identities of every training set that is not trained on, rounded to a whole "
        "number of them: scales and probabilities are fitted on their pictures, which the network "
        "has not seen.",
        default=0.0,
        at_least=0,
        below=1,
    )
    trial: int | None = setting(
        "The trial of data sets that divide their people in several ways: handed to every reader "
        "that has a setting `trial`.",
        default=None,
        at_least=1,
    )
    image: tuple[int, int] = setting(
        "Height and width, in pixels, that pictures are resized to.", at_least=8, at_most=16384
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = setting(
        "How Pillow resizes.", default="bilinear"
    )
    normalize: Literal["imagenet", "none"] | Normalize = setting(
        "Subtract ImageNet's mean and divide by its deviation, leave pixels in [0, 1], or a table "
        "with the mean and deviation of another data set.",
        default="imagenet",
    )
    augment: list[dict[str, Any]] = setting(
        "Augmentations of training pictures, in order, each a table with `use` and its keys.",
        default=[],
    )
    batch: dict[str, Any] | None = setting(
        "The sampler of training batches: a table with `use` and its keys.", default=None
    )
    workers: int = setting(
        "Threads or processes that read, resize and augment pictures, beside those that compute.",
        default=2,
        at_least=1,
        at_most=1024,
    )
    worker_kind: Literal["thread", "process"] = setting(
        "What reads pictures: threads, which share the cache and the interpreter's lock, or forked "
        "processes, which read every picture every time and leave the step alone. The same "
        "pictures either way.",
        default="thread",
    )
    cache: float = setting(
        "Memory for decoded and resized pictures, in GiB; 0 reads every picture every time.",
        default=1.0,
        at_least=0,
        at_most=1e6,
    )


def _some(value: list[str]) -> str | None:
    return None if value else "expected at least one"


def _device(value: str) -> str | None:
    fits = re.fullmatch(r"auto|cpu|cuda(:\d+)?", value)
    return None if fits else "expected auto, cpu, cuda or cuda:N"


@attrs.frozen
class Train:
    """The course of training."""

    epochs: int = setting("Number of epochs; 0 evaluates the model as built.", at_least=0)
    device: str = setting(
        "auto (cuda if there is one, else cpu), cpu, cuda or cuda:N; the run prints which.",
        default="auto",
        check=_device,
    )
    seed: int = setting("Weights, order and augmentation follow from it.", default=0, at_least=0)
    deterministic: bool = setting(
        "Ask torch for deterministic kernels on the GPU too; slower. On CPU a run with one thread "
        "count is always repeatable.",
        default=False,
    )
    amp: bool = setting(
        "Train in mixed precision on a GPU: bfloat16 where torch holds it safe. Weights, optimizer "
        "and evaluation stay float32. Does nothing on a CPU.",
        default=False,
    )
    channels_last: bool = setting(
        "Keep pictures and the weights of convolutions channels-last in memory: faster, equal up "
        "to rounding.",
        default=True,
    )
    compile: bool = setting(
        "Let torch compile backbone and heads in training, which takes up to minutes at the first "
        "step and needs a C++ compiler on a CPU, Triton on a GPU; equal up to rounding. Evaluation "
        "is as without.",
        default=False,
    )
    frozen_norm: list[str] = setting(
        "Role paths, such as backbone or head.neck, whose batch norms keep their statistics.",
        default=[],
    )
    start_share: dict[str, float] = setting(
        "Share of the weights it started from in those that a part ends with, by role path as in "
        "optim.scale: after the last epoch weights are share * start + (1 - share) * trained. For "
        "parts that start from a checkpoint, to serve cameras that training has not seen "
        "(Wortsman et al., CVPR 2022).",
        default={},
        at_least=0,
        at_most=1,
    )
    best: str = setting(
        "A score, such as mAP or rank-1: also keep the weights of the evaluated epoch where the "
        "first test set's first ranking, at its end, had the largest. Chosen on the test set.",
        default="",
    )


@attrs.frozen
class Steps:
    """Learning rate steps."""

    at: list[int] = setting("Epochs, counted from 0, before which the rate changes.", at_least=1)
    by: float = setting("Factor at each step.", default=0.1, above=0)


@attrs.frozen
class Cosine:
    """A half cosine from the full learning rate, at the first epoch, down to `to` after the
    last."""

    to: float = setting("Final fraction of the learning rate.", default=0.0, at_least=0, at_most=1)


@attrs.frozen
class Warmup:
    """A linear rise over the first epochs, reaching the full rate in epoch number `epochs`."""

    epochs: int = setting("Length of the rise.", at_least=1)
    start: float = setting("Fraction of the rate in the first epoch.", default=0.1, above=0)


@attrs.frozen
class Optim:
    """The optimizer and its learning rate."""

    kind: Literal["sgd", "adam", "adamw"] = setting("The optimizer.", default="adam")
    lr: float = setting("Learning rate.", above=0)
    momentum: float = setting("SGD's momentum.", default=0.9, at_least=0, below=1)
    nesterov: bool = setting("SGD's Nesterov form.", default=False)
    betas: tuple[float, float] = setting(
        "Adam's decay rates.", default=(0.9, 0.999), at_least=0, below=1
    )
    weight_decay: float = setting("Weight decay.", default=5e-4, at_least=0)
    scale: dict[str, float] = setting(
        "Learning rate factor by role path (backbone, head.NAME, matcher.NAME, loss.NAME, or "
        "head, matcher, loss for all of them); the longest path counts.",
        default={},
        at_least=0,
    )
    steps: Steps | None = setting("Step schedule.", default=None)
    cosine: Cosine | None = setting("Cosine schedule.", default=None)
    warmup: Warmup | None = setting("Warm-up, together with either schedule.", default=None)
    clip_norm: float = setting(
        "Clip the gradient's norm to this; 0 does not.", default=0, at_least=0
    )


@attrs.frozen
class Eval:
    """Evaluation."""

    protocol: str | dict[str, Any] | None = setting(
        "The protocol of test sets that name none: its name, or a table with `use` and its "
        "settings. If not set, what a data set's reader says, and cross_camera for manifests.",
        default=None,
    )
    same_camera: SamePlace = setting(
        "For protocols that ask: of the query's own camera, drop its identity's pictures "
        "(Market-1501's rule), drop all pictures, or keep all.",
        default="drop",
    )
    ap: Precision = setting(
        "Average precision: by steps, or by trapezoids as in Market-1501's program.",
        default="step",
    )
    ties: Ties = setting(
        "Equal distances: in the gallery's order, grouped under one threshold (average precision "
        "only), or with matches first (optimistic) or last (pessimistic).",
        default="gallery",
    )
    queries: Counted = setting(
        "Queries that means are taken over: those with a match, or all, of which the others "
        "count 0.",
        default="valid",
    )
    tar_at: list[float] = setting(
        "False accept rates at which the true accept rate is reported.",
        default=[],
        above=0,
        at_most=1,
    )
    every: int = setting(
        "Evaluate every so many epochs; 0 only after the last.", default=0, at_least=0
    )
    views: list[Literal["plain", "flip", "zoom", "zoom_flip"]] = setting(
        "Views of each picture whose templates are merged; zoom is the middle 7/8 of height and "
        "width.",
        default=["plain"],
        check=_some,
    )
    ranks: list[int] = setting("CMC ranks to print.", default=[1, 5, 10], at_least=1, at_most=10**6)
    batch: int = setting("Pictures per forward pass.", default=64, at_least=1)
    memory: float = setting(
        "GiB for one tile of pairs while scoring; halved when memory runs out.",
        default=0.5,
        above=0,
        at_most=1e6,
    )
    templates: Literal["auto", "device", "host", "disk"] = setting(
        "Where templates are while they are compared: on the run's device; in the CPU's memory, "
        "from where each tile's are moved to a GPU; or in the run folder, from where they are "
        "read, which takes longer and no memory. auto is device, or host where they would take "
        "more than half of what is free on a GPU.",
        default="auto",
    )


FITTED = ("constant", "logistic", "isotonic")
"""Scales that are fitted on training pairs."""


@attrs.frozen
class Shortlist:
    """The gallery pictures that a ranking compares with each query, where it is not all."""

    by: str = setting("Name of the [[matcher]] that chooses them, a fast one.")
    top: int = setting("How many, the nearest ones.", at_least=1)


@attrs.frozen
class RankingTable:
    """One way to rank the gallery: a matcher, or several of them added, and postprocessors."""

    name: str = setting("Name in the scores.")
    matcher: str = setting("Name of a [[matcher]].", default="")
    fuse: dict[str, float] = setting(
        "In place of `matcher`, the weights of several: the weighted sum of their scaled "
        "distances ranks.",
        default={},
        above=0,
    )
    scale: Literal["none", "constant", "logistic", "isotonic", "row_minmax"] = setting(
        "What is done to each matcher's distances: nothing; divide by the mean over strangers; "
        "turn them into the probability of strangers (`logistic`, `isotonic`); or stretch each "
        "query's row to [0, 1] (`row_minmax`). The first three are fitted on training pairs.",
        default="none",
    )
    shortlist: Shortlist | None = setting(
        "Score only the gallery pictures that another matcher finds nearest to the query.",
        default=None,
    )
    post: list[str] = setting(
        "Names of [[post]] tables, in order; scores are given before each and at the end.",
        default=[],
    )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each matcher in the sum of distances, in the file's order."""
        return dict(self.fuse) if self.fuse else {self.matcher: 1.0}

    @property
    def matchers(self) -> tuple[str, ...]:
        """Every matcher whose templates the ranking needs."""
        chooses = (self.shortlist.by,) if self.shortlist is not None else ()
        return tuple(dict.fromkeys((*self.weights, *chooses)))

    def unit(self, promised: Mapping[str, bool]) -> bool:
        """Return whether the ranking's distances lie in [0, 1], given whether each matcher's do."""
        if sum(self.weights.values()) > 1 + 1e-6:
            return False
        if self.scale == "none":
            return all(promised[name] for name in self.weights)
        return self.scale != "constant"


CORE_TABLES: dict[str, type] = {"data": Data, "train": Train, "optim": Optim, "eval": Eval}
BY_ROLE = {"optim": "scale", "train": "start_share"}
"""The setting of each table that holds numbers by role path."""
