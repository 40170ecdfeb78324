"""Descriptors of components, and what components declare before any torch is imported.

A plugin's hooks return `Component`s. The other classes here are what the wiring methods of their
settings return, features, matchers' promises and batch shapes, and the rows of readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from reidcore.contracts.openers import Box, Opener, whole_box
from reidcore.contracts.row_labels import check_labels

Kind = Literal["map", "vector", "tensor"]
"""Kind of a feature: a map [C, H, W], a vector [D], or a tensor of any shape."""

ITEM_BYTES: Mapping[str, int] = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
}
"""Bytes of one number by dtype; every other dtype takes one byte."""


@attrs.frozen
class Component:
    """One entry of a plugin, described in text so that it can be listed without importing torch.

    Attributes:
        name: Name without the plugin's prefix, which the core adds.
        config: Class of the settings, made by attrs, with the wiring method of its kind.
        build: Function that makes the part, "package.module:attribute"; it is called as
            build(config, context). Empty for readers, whose config is the reader itself.
        summary: One line that says what the component does.
        paper: Citation of the paper it follows.
        sample: TOML text of the smallest run in which the component stands, for checks; None to
            use a usual run.
        heavy: True if the wiring method imports torch.
        deprecated: Why the component is deprecated and what to use instead; "" if it is not.

    Example:
        >>> from reidcore.api import Component, setting
        >>> import attrs
        >>> @attrs.frozen
        ... class Blur:
        ...     radius: int = setting("pixels", default=2, at_least=1)
        >>> blur = Component("blur", Blur, "reid_example.blur:build", summary="blurs pictures")
        >>> blur.name
        'blur'
    """

    name: str
    config: type
    build: str = ""
    summary: str = ""
    paper: str = ""
    sample: str | None = None
    heavy: bool = False
    deprecated: str = ""


@attrs.frozen
class Feature:
    """Kind and shape of a feature of one picture, without the batch axis.

    Attributes:
        kind: "map", "vector" or "tensor".
        shape: Extent of every axis: (channels, height, width) of a map, (length,) of a vector.

    Example:
        >>> from reidcore.api import Feature
        >>> Feature.map(2048, 24, 8)
        Feature(kind='map', shape=(2048, 24, 8))
        >>> str(Feature.vector(512))
        'vector 512'
        >>> Feature.tensor(6, 256).shape
        (6, 256)
    """

    kind: Kind
    shape: tuple[int, ...]

    @classmethod
    def map(cls, channels: int, height: int, width: int) -> Feature:
        """Return the feature of a map [channels, height, width]."""
        return cls("map", (channels, height, width))

    @classmethod
    def vector(cls, size: int) -> Feature:
        """Return the feature of a vector of `size` numbers."""
        return cls("vector", (size,))

    @classmethod
    def tensor(cls, *shape: int) -> Feature:
        """Return the feature of a tensor of any shape, which only parts that ask for it read."""
        return cls("tensor", tuple(shape))

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.shape))}"


@attrs.frozen
class TensorSpec:
    """Shape and dtype of one tensor of a picture's template.

    Attributes:
        shape: Extents without the axis of pictures.
        dtype: Name of the torch dtype, such as "float32".

    Example:
        >>> from reidcore.api import TensorSpec
        >>> TensorSpec((6, 256), "float16").bytes
        3072
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """Bytes that the tensor of one picture takes."""
        total = ITEM_BYTES.get(self.dtype, 1)
        for extent in self.shape:
            total *= extent
        return total


@attrs.frozen
class Matching:
    """Promises of a matcher about its templates and distances.

    Attributes:
        template: Shape and dtype of every tensor that is stored for one picture, by name.
        unit: True if all distances lie in [0, 1].
        symmetric: True if the distance from a to b is that from b to a.
        logits: True if the matcher has the method `logits(a, b)`.
        pair_bytes: Working memory for one pair of pictures, in bytes.
        pair_flops: Arithmetic for one pair of pictures, in floating-point operations.

    Example:
        >>> from reidcore.api import Matching, TensorSpec
        >>> cosine = Matching({"vector": TensorSpec((512,))}, unit=True, symmetric=True)
        >>> cosine.template["vector"].bytes
        2048
    """

    template: Mapping[str, TensorSpec]
    unit: bool = False
    symmetric: bool = False
    logits: bool = False
    pair_bytes: int = 4
    pair_flops: int = 0


@attrs.frozen
class BatchShape:
    """Numbers of pictures in a training batch, as a sampler promises them.

    Attributes:
        size: Pictures in a batch; None where batches differ or nothing is promised.
        ids: Different identities in a batch; None where nothing is promised.
        per_id: Pictures of each identity; None where nothing is promised.
        least: Pictures in the smallest batch of an epoch, which the core asks the sampler's
            `least(pictures)` for, if it has that; None where it is not known.

    Example:
        >>> from reidcore.api import BatchShape
        >>> BatchShape(64, ids=16, per_id=4)
        BatchShape(size=64, ids=16, per_id=4, least=None)
    """

    size: int | None
    ids: int | None = None
    per_id: int | None = None
    least: int | None = None


@attrs.frozen
class Row:
    """One picture of a data set, with its labels.

    Attributes:
        path: Absolute path of the picture. Where `opener` reads it, or where it is a member of a
            zip, such as "/data/frames.zip/0001.jpg", the path is its name and leads to no file.
        pid: Identity, any text.
        camera: Number or name of the camera, "" if unknown.
        split: "train", "val", "query", "gallery" or "test".
        time: Seconds on one clock for the whole data set; None if unknown.
        modality: Kind of light, such as "visible" or "infrared"; "" if not stated.
        listed: Place the row comes from, for messages, such as "own.csv row 12".
        opener: What reads the picture if it is no file; see `Opener`.
        box: The part of a larger picture, (left, top, right, bottom) in pixels of the picture
            turned upright; None for all of it. Fractions are rounded. What reaches out of the
            picture is cut off when the picture is opened.

    Raises:
        TypeError: A label is no text, such as a camera that a database holds as a number.
        ValueError: There is no such split, or the box is not four finite numbers.
        reidcore.errors.DataError: The box is empty.

    Example:
        >>> from reidcore.api import Row
        >>> Row("/data/own/0001.jpg", pid="7", camera="2", split="gallery").pid
        '7'
        >>> Row("/data/frames/0001.jpg", pid="7", box=(10.2, 20, 60, 119.8)).name
        '/data/frames/0001.jpg[10 20 60 120]'
    """

    path: str
    pid: str
    camera: str = ""
    split: str = "train"
    time: float | None = None
    modality: str = ""
    listed: str = ""
    opener: Opener | None = None
    box: Box | None = None

    def __attrs_post_init__(self) -> None:
        check_labels(self)
        if self.box is not None:
            object.__setattr__(self, "box", whole_box(self.box, self.listed or self.path))

    @property
    def name(self) -> str:
        """The picture's path, with its box behind it if it has one; two pictures have two names."""
        return self.path if self.box is None else f"{self.path}[{' '.join(map(str, self.box))}]"
