"""Settings and wiring of the plugin's heads."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reid_ipad.sizes import fitting_channels, fitting_grid
from reidcore.api import Feature, Given, MapName, setting


def _channels(default: int) -> Any:
    return setting("channels after compression", default=default, at_least=1)


@attrs.frozen
class Compression:
    """Base class of the settings of heads, which begin with convolutions to fewer channels."""

    source: MapName = setting("the backbone's map")
    channels: int = _channels(512)
    compress_widths: list[int] | None = setting(
        "channels of the convolutions before the last one; not set: two, as wide as the last",
        default=None,
        at_least=1,
    )
    compress_kernel: Literal[1, 3] = setting(
        "height and width of the convolutions' kernels", default=1
    )
    compress_last: Literal["bn_relu", "bn", "none"] = setting(
        "what follows the last convolution; batch normalisation and ReLU follow the others",
        default="bn_relu",
    )


@attrs.frozen
class _Guided(Compression):
    """A compression and, beside it, the controller that makes a picture's dynamic kernel."""

    squeeze: int = setting(
        "the controller's hidden layers have this many times fewer channels than its input, d in "
        "the paper",
        default=16,
        at_least=1,
    )
    controller_input: Literal["backbone", "compressed"] = setting(
        "the map that the controller reads: the source or the compressed one", default="backbone"
    )
    controller_grid: tuple[int, int] | None = setting(
        "rows and columns that the controller's input is averaged to, for maps from which no "
        "kernel can be cut; [1, 1]: the controller reads the pooled vector and its last layer "
        "makes the whole kernel",
        default=None,
        at_least=1,
    )
    controller_bn: bool = setting(
        "whether batch normalisation stands before each ReLU of the controller", default=False
    )
    controller_final_relu: bool = setting(
        "whether kernels are cut off below 0, as equation 2 has it", default=True
    )
    kernel_layout: Literal["out_in", "in_out"] = setting(
        "whether the controller's output, read row by row, holds one filter after another (out_in) "
        "or one input channel after another",
        default="out_in",
    )
    kernel_norm: Literal["frobenius", "filter", "column", "none"] = setting(
        "what of a kernel is scaled to unit length: all of it, each filter, or each input channel "
        "over the filters",
        default="frobenius",
    )

    def grid(self, given: Given) -> tuple[int, int]:
        """Rows and columns of the map that the kernel is cut from."""
        return self.controller_grid or given.map(self.source)[1:]

    def check_kernel(self, given: Given, channels: int) -> None:
        """Refuses maps from which no kernel of channels x channels can be cut."""
        inputs, height, width = given.map(self.source)
        rows, columns = self.grid(given)
        given.need(
            rows <= height and columns <= width,
            "controller_grid",
            f"is {rows} x {columns}, but {self.source!r} has only {height} x {width} locations",
        )
        places, entries = rows * columns, channels**2
        less, more = fitting_channels(channels, places)
        best = fitting_grid(channels, height, width)
        given.need(
            entries % places == 0,
            "channels",
            f"is {channels}, but the {entries} entries of a {channels} x {channels} kernel do not "
            f"divide among {rows} x {columns} = {places} locations"
            f"{'' if self.controller_grid else f' of {self.source!r}'}. Use channels = "
            f"{f'{less} or {more}' if less else more}, or controller_grid = "
            f"[{best[0]}, {best[1]}].",
        )
        read = inputs if self.controller_input == "backbone" else channels
        given.need(
            self.squeeze <= read,
            "squeeze",
            f"is {self.squeeze}, but the controller reads only {read} channels",
        )


@attrs.frozen
class Compressed(Compression):
    """Settings of `ipad.compressed`."""

    channels: int = _channels(128)

    def outputs(self, given: Given) -> dict[str, Feature]:
        _, height, width = given.map(self.source)
        return {"map": Feature.map(self.channels, height, width)}


@attrs.frozen
class SelfGuided(_Guided):
    """Settings of `ipad.self_guided`."""

    dynamic_form: Literal["pooled", "map"] = setting(
        "whether the kernel meets the pooled vector or every location before pooling; equal but "
        "for rounding, and the first needs as many times less work as there are locations, unless "
        "something reads the map",
        default="pooled",
    )
    post_conv: Literal["none", "relu", "bn"] = setting(
        "what follows the dynamic convolution before pooling", default="none"
    )
    heat: Literal["l2", "mean"] = setting(
        "what `reid explain` draws of the channels of the branches' maps, figure 4: norm or mean",
        default="l2",
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        self.check_kernel(given, self.channels)
        given.need(
            self.post_conv == "none" or self.dynamic_form == "map",
            "post_conv",
            f"is {self.post_conv!r}, which works on maps; use dynamic_form = 'map' with it",
        )
        _, height, width = given.map(self.source)
        return {
            "vector": Feature.vector(self.channels),
            "map": Feature.map(self.channels, height, width),
        }


@attrs.frozen
class MutualGuided(_Guided):
    """Settings of `ipad.mutual_guided`."""

    channels: int = _channels(128)

    def outputs(self, given: Given) -> dict[str, Feature]:
        self.check_kernel(given, self.channels)
        return {
            "vector": Feature.vector(self.channels),
            "kernel": Feature.tensor(self.channels, self.channels),
        }


@attrs.frozen
class SelfAttention(Compression):
    """Settings of `ipad.self_attention`."""

    keys: int | None = setting(
        "channels in which locations are compared; not set: half of `channels`",
        default=None,
        at_least=1,
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        _, height, width = given.map(self.source)
        return {
            "vector": Feature.vector(self.channels),
            "map": Feature.map(self.channels, height, width),
        }
