"""What a plugin's torch-free `plugin.py` needs: components, settings, features and wiring.

Importing this module imports neither torch nor numpy. The torch half of the contracts is in
`reidcore.modules`; the hooks that return components are in `reidcore.hookspecs`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NewType

import attrs
import pluggy

from reidcore.explanations import Heat, Lines, Table

__all__ = [
    "BatchShape",
    "Component",
    "Facts",
    "Feature",
    "FeatureName",
    "Given",
    "Heat",
    "Lines",
    "LossName",
    "MapName",
    "MatcherName",
    "Matching",
    "Row",
    "Table",
    "TensorName",
    "TensorSpec",
    "VectorName",
    "WiringError",
    "hookimpl",
    "setting",
]

hookimpl = pluggy.HookimplMarker("reid")
"""Marks a plugin's hook functions (see `reidcore.hookspecs`)."""

MapName = NewType("MapName", str)
"""A setting that names a feature map, `instance.output`, of shape (C, H, W)."""
VectorName = NewType("VectorName", str)
"""A setting that names a vector feature of shape (D,)."""
TensorName = NewType("TensorName", str)
"""A setting that names a feature of kind tensor, of any shape."""
FeatureName = NewType("FeatureName", str)
"""A setting that names a feature of any kind."""
MatcherName = NewType("MatcherName", str)
"""A setting that names a `[[matcher]]`."""
LossName = NewType("LossName", str)
"""A setting that names another `[[loss]]`."""

Kind = Literal["map", "vector", "tensor"]
IMAGENET = "imagenet"
"""What a setting `weights` says for torchvision's published weights instead of a file."""
CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors")
INSTANCE = re.compile(r"[a-z][a-z0-9_]*")


def setting(
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """One key of a component's table: an attrs field with a documented range.

    `doc` is shown by `reid plugins NAME` and in the documentation. The bounds hold for numbers and
    for every number in a list or table. `check` returns a complaint such as "expected an odd
    number", or None. Mutable defaults (list, dict) are copied for every instance.
    """

    def refuse(attribute: Any, text: str) -> None:
        error = ValueError(text)
        error.reid_field = attribute.name  # type: ignore[attr-defined]
        raise error

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if isinstance(value, Mapping):
            items: list[Any] = list(value.values())
        else:
            items = list(value) if isinstance(value, list | tuple) else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int | float):
                continue
            for bound, fails, words in (
                (at_least, lambda x, b: not x >= b, "at least"),
                (above, lambda x, b: not x > b, "above"),
                (at_most, lambda x, b: not x <= b, "at most"),
                (below, lambda x, b: not x < b, "below"),
            ):
                if bound is not None and fails(item, bound):
                    refuse(attribute, f"expected a number {words} {bound:g}, got {item!r}")
        complaint = check(value) if check is not None else None
        if complaint:
            refuse(attribute, f"{complaint}, got {value!r}")

    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"doc": doc, "bounds": {k: v for k, v in bounds.items() if v is not None}}
    if isinstance(default, list | dict):
        factory = default
        return attrs.field(
            factory=factory.copy, validator=validate, metadata=metadata, kw_only=True
        )
    return attrs.field(default=default, validator=validate, metadata=metadata, kw_only=True)


@attrs.frozen
class Feature:
    """What one image's feature looks like: its kind and exact shape, without the batch axis."""

    kind: Kind
    shape: tuple[int, ...]

    @classmethod
    def map(cls, channels: int, height: int, width: int) -> Feature:
        return cls("map", (channels, height, width))

    @classmethod
    def vector(cls, size: int) -> Feature:
        return cls("vector", (size,))

    @classmethod
    def tensor(cls, *shape: int) -> Feature:
        return cls("tensor", tuple(shape))

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.shape))}"


@attrs.frozen
class TensorSpec:
    """Shape (without the images' axis) and dtype of one stored tensor of a template."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        size = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2}
        total = size.get(self.dtype, 1)
        for extent in self.shape:
            total *= extent
        return total


@attrs.frozen
class Matching:
    """What a matcher promises, per image and per pair.

    template: name -> shape and dtype of what is stored for one image.
    unit: distances are in [0, 1]. symmetric: d(a, b) = d(b, a). logits: `logits(a, b)` exists.
    pair_bytes: working memory of one pair; pair_flops: arithmetic of one pair.
    """

    template: Mapping[str, TensorSpec]
    unit: bool = False
    symmetric: bool = False
    logits: bool = False
    pair_bytes: int = 4
    pair_flops: int = 0


@attrs.frozen
class BatchShape:
    """A training batch as a sampler makes it; None where batches differ or nothing is promised."""

    size: int | None
    ids: int | None = None
    per_id: int | None = None


@attrs.frozen
class Row:
    """One picture of a data set.

    path: absolute path of the picture. pid: identity, any text. camera: number or name, "" if
    unknown. split: train, val, query, gallery or test. time: seconds on one clock, or None.
    modality: such as "visible" or "infrared", "" if not stated. listed: where the row stands, for
    messages, such as "own.csv row 12".
    """

    path: str
    pid: str
    camera: str = ""
    split: str = "train"
    time: float | None = None
    modality: str = ""
    listed: str = ""


@attrs.frozen
class Facts:
    """What a reader knows of its data set without the folder (published figures).

    identities: of the split train. cameras: names as in the rows. columns: the optional manifest
    columns it fills, of camera, time, modality. counts: pictures by split. protocol: the evaluation
    protocol of its test pictures. groups: identities by group of splits, such as
    {("train", "val"): 1041, ("query", "gallery"): 3060}; the splits of a group show the same
    people, those of two groups nobody in common. Without groups, `identities` stands for whatever
    splits a run trains on.
    """

    identities: int
    cameras: Sequence[str] = ()
    modalities: Sequence[str] = ()
    columns: frozenset[str] = frozenset({"camera"})
    counts: Mapping[str, int] = attrs.field(factory=dict)
    protocol: str = "cross_camera"
    groups: Mapping[tuple[str, ...], int] = attrs.field(factory=dict)

    def identities_in(self, splits: Iterable[str]) -> int:
        """Identities in all of these splits together."""
        if not self.groups:
            return self.identities
        chosen = set(splits)
        return sum(count for group, count in self.groups.items() if chosen & set(group))


@attrs.frozen
class Component:
    """One entry of a plugin: a descriptor, no object, so that it can be listed without torch.

    name: without the plugin's prefix, which the core adds. config: the attrs class of its settings
    and wiring method. build: "package.module:attribute", called as build(config, context); may be
    empty for readers, whose config is the reader itself. summary: one line. paper: citation.
    sample: TOML text, the smallest run in which the component stands. heavy: the wiring method
    imports torch. deprecated: why, and what to use instead.
    """

    name: str
    config: type
    build: str = ""
    summary: str = ""
    paper: str = ""
    sample: str | None = None
    heavy: bool = False
    deprecated: str = ""


class WiringError(Exception):
    """Settings that cannot be combined; `field` is the user's key, "" if it is no single one."""

    def __init__(self, field: str, text: str):
        self.field = field
        self.text = text
        super().__init__(f"{field} {text}" if field else text)


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


@attrs.define
class Given:
    """What a wiring method sees: the run without its pictures.

    image: (height, width) in pixels. identities: training identities. cameras: training cameras.
    modalities: names, in the order of their numbers in `Images.modality`; train_modalities: those
    of training pictures. train_columns and test_columns: the optional manifest columns that the
    training set, or every test set, fills.
    batch: the sampler's shape. views: test views. features: every feature so far by full name.
    matchers: every matcher so far by name. losses: names of all losses.
    """

    image: tuple[int, int]
    identities: int = 0
    cameras: int = 0
    modalities: tuple[str, ...] = ()
    train_modalities: tuple[str, ...] = ()
    train_columns: frozenset[str] = frozenset()
    test_columns: frozenset[str] = frozenset()
    batch: BatchShape = BatchShape(None)
    views: tuple[str, ...] = ("plain",)
    features: Mapping[str, Feature] = attrs.field(factory=dict)
    matchers: Mapping[str, Matching] = attrs.field(factory=dict)
    losses: tuple[str, ...] = ()
    find_file: Callable[[str], tuple[bool, str]] | None = None
    find_weights: Callable[[str], str] | None = None
    # The state of a post chain, set by the core for each postprocessor in turn.
    unit: bool = False
    first: bool = True
    by_row: bool = False
    shortlisted: bool = False

    def feature(self, name: str) -> Feature:
        """The feature of this full name; its existence and kind were checked from the type."""
        return self.features[name]

    def map(self, name: str) -> tuple[int, int, int]:
        """(channels, height, width) of a map."""
        return self._of_kind(name, "map", 3)  # type: ignore[return-value]

    def vector(self, name: str) -> int:
        """Length of a vector."""
        return self._of_kind(name, "vector", 1)[0]

    def _of_kind(self, name: str, kind: Kind, axes: int) -> tuple[int, ...]:
        found = self.features[name]
        if found.kind != kind or len(found.shape) != axes:
            raise WiringError("", f"needs a {kind}, but {name!r} is a {found}")
        return found.shape

    def need(self, condition: bool, field: str, text: str) -> None:
        """Refuse the value of `field` unless `condition`; `text` says what was found and what
        would fit."""
        if not condition:
            raise WiringError(field, text)

    def need_column(self, column: str, where: Literal["train", "test"] = "test") -> None:
        """Refuse data sets whose manifest has no such optional column."""
        columns = self.test_columns if where == "test" else self.train_columns
        if column not in columns:
            raise WiringError(
                "",
                f"needs the manifest column {column}; this data set has "
                f"{_listing(sorted(columns))}.",
            )

    def need_unit(self) -> None:
        """For postprocessors: refuse distances that are not promised to lie in [0, 1]."""
        if not self.unit:
            raise WiringError(
                "",
                "needs distances in [0, 1], but what comes before it is unbounded. Put a "
                "re-ranker first, or use a matcher whose distances lie in [0, 1].",
            )

    def need_matcher_distances(self) -> None:
        """For postprocessors that use `Ranking.between`, `pairs` or `expanded`: must be first in
        the chain, of distances that compare between all pictures and are all there."""
        if self.by_row:
            raise WiringError(
                "",
                "asks the matcher for further distances, which do not compare with those that "
                "scale = 'row_minmax' stretches row by row; use another scale in its ranking.",
            )
        if self.shortlisted:
            raise WiringError(
                "",
                "asks the matcher for further distances, among them those that its ranking's "
                "shortlist leaves out; use it in a ranking without a shortlist.",
            )
        if not self.first:
            raise WiringError(
                "",
                "asks the matcher for further distances, so it must be the first postprocessor "
                "of its ranking; move it before the others.",
            )

    def need_logits(self, field: str, matcher: str) -> None:
        """For losses on logits: refuse a matcher that has none."""
        if not self.matchers[matcher].logits:
            able = [name for name, found in self.matchers.items() if found.logits]
            raise WiringError(
                field,
                f"needs a matcher with logits, but {matcher!r} has none. "
                f"Matchers with logits: {_listing(able)}.",
            )

    def file(self, field: str, value: str) -> str:
        """The absolute path of a file that setting `field` names, looked up under REID_WEIGHTS,
        else under the current folder."""
        if self.find_file is None:
            return value
        found, path = self.find_file(value)
        if not found:
            raise WiringError(field, f"names the file {value!r}, which is not at {path}")
        return path

    def weights(self, field: str, value: str, published: str = IMAGENET) -> str:
        """What a part starts from, as its setting `field` says: the absolute path of a checkpoint,
        looked up under REID_WEIGHTS, else under the current folder, or `published` as it is, the
        part's word for weights that somebody publishes and it finds itself.

        "" if `value` is empty, or where the weights of a trained run are loaded afterwards. The
        wiring method calls this, so that the core knows the file and stops a run without it; the
        build function asks `Context.weights` again.
        """
        if value not in ("", published):
            self.need(
                value.endswith(CHECKPOINTS),
                field,
                f"is {value!r}, which is neither {published!r} nor a file that ends in "
                f"{', '.join(CHECKPOINTS)}",
            )
        if not value or self.find_weights is None:
            return ""
        return value if value == published else self.find_weights(value)
