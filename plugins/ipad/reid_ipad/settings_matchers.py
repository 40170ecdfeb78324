"""Settings and wiring of the plugin's matchers."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import (
    FusedChoice,
    Given,
    MapName,
    Matching,
    TensorName,
    TensorSpec,
    VectorName,
    fused_setting,
    setting,
)


@attrs.frozen
class Mutual:
    """Settings of `ipad.mutual`."""

    feature: VectorName = setting("the vector that the other picture's kernel meets")
    kernel: TensorName = setting("the picture's own kernel, filters x channels")
    feature_norm: Literal["none", "pre", "post"] = setting(
        "what is scaled to unit length: nothing, as in equation 3, vectors before they meet the "
        "other's kernel (pre), or what comes out (post); the same in training and test",
        default="none",
    )
    flip_mode: Literal["parts", "matched"] = setting(
        "with several test views, whether distances are those of the mean kernel and the mean "
        "vector, which is the mean over all pairs of views, or the mean over equal views, which "
        "keeps every view's and takes as many times longer",
        default="parts",
    )
    store: Literal["float32", "float16", "bfloat16"] = setting(
        "type that kernels and vectors of test pictures are kept in; distances are computed in "
        "float32 at any rate",
        default="float32",
    )
    fused: FusedChoice = fused_setting()

    def describe(self, given: Given) -> Matching:
        length, shape = given.vector(self.feature), given.feature(self.kernel).shape
        given.need(
            len(shape) == 2 and shape[1] == length,
            "kernel",
            f"is {'x'.join(map(str, shape))}, but {self.feature!r} of length {length} needs "
            f"filters x {length}; name both of one head, such as `ipad.mutual_guided`",
        )
        filters = shape[0]
        inputs = length * (len(given.views) if self.flip_mode == "matched" else 1)
        return Matching(
            {
                "kernel": TensorSpec((filters, inputs), self.store),
                "vector": TensorSpec((inputs,), self.store),
            },
            symmetric=True,
            # The distance and one filter's difference.
            pair_bytes=2 * 4,
            pair_flops=4 * filters * inputs + 3 * filters,
        )


@attrs.frozen
class CoAttention:
    """Settings of `ipad.co_attention`."""

    feature: MapName = setting("the map whose locations are weighed by the other picture")
    form: Literal["pooled_query", "dense"] = setting(
        "whether a picture's mean, or each of its locations, looks at the other's locations; the "
        "first is symmetric",
        default="pooled_query",
    )
    keys: int | None = setting(
        "channels in which locations are compared; not set: half of the map's",
        default=None,
        at_least=1,
    )

    def describe(self, given: Given) -> Matching:
        channels, height, width = given.map(self.feature)
        keys = self.keys or max(1, channels // 2)
        # Locations of all test views stand below each other.
        places = len(given.views) * height * width
        dense = self.form == "dense"
        weights = places**2 if dense else places
        return Matching(
            {"map": TensorSpec((channels, len(given.views) * height, width))},
            symmetric=not dense,
            pair_bytes=4 * ((3 if dense else 4) * weights + 3 * channels),
            pair_flops=2 * ((1 if dense else 2) * keys * weights + 2 * channels * places),
        )
