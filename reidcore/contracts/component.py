"""What components are and what they declare. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

Kind = Literal["map", "vector", "tensor"]


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
