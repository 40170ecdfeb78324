"""MSINet, with a chosen interaction in every slot or with all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_msinet.genotypes import OPERATIONS, SLOTS, chosen_genotype
from reid_msinet.operations import MixedOperation, make_operation
from reid_msinet.settings_networks import Net, SuperNet
from reid_msinet.sizes import CHANNELS, STAGES, cell_channels
from reidcore.errors import DataError
from reidcore.modules import Context
from reidcore.networks import Staged, StagedBackbone, init_convolutions, initial_weights

LETTERS = "".join(OPERATIONS)
_AUTHORS = ("cell1", "cell2", "down1", "cell3", "cell4", "down2", "cell5", "cell6")
"""Our names of the authors' cells, by number."""


def is_fixed(norm: nn.BatchNorm2d) -> bool:
    """Return True if a norm only scales and shifts, so that its convolution may do that: one pass
    over the map less, and the same numbers but for rounding. Not under autocast, which would
    round weights that the norm has scaled."""
    return not norm.training and not torch.is_autocast_enabled(norm.weight.device.type)


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and shift of a convolution that is both, for a convolution without shift."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def normed(x: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """norm(convolution(x)), for a convolution without shift."""
    if not is_fixed(norm):
        return norm(convolution(x))
    return F.conv2d(
        x,
        *folded(convolution, norm),
        convolution.stride,
        convolution.padding,
        groups=convolution.groups,
    )


class ConvNorm(nn.Module):
    """Convolution and batch norm, then ReLU if `relu`. [B, inputs, H, W] -> [B, outputs, h, w]."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = normed(x, self.conv, self.norm)
        return F.relu_(x) if self.relu else x


def summed(*terms: tuple[nn.Module, Tensor]) -> Tensor:
    """The sum of layer(x) over (layer, x): layers are 1x1 `ConvNorm` without ReLU, the first one at
    least, or `nn.Identity`. With fixed norms it is one convolution of all channels together."""
    convolved = [(layer, x) for layer, x in terms if isinstance(layer, ConvNorm)]
    if all(is_fixed(layer.norm) for layer, _ in convolved):
        weights, shifts = zip(
            *(folded(layer.conv, layer.norm) for layer, _ in convolved), strict=True
        )
        out = F.conv2d(torch.cat([x for _, x in convolved], 1), torch.cat(weights, 1), sum(shifts))
        others = [x for layer, x in terms if isinstance(layer, nn.Identity)]
    else:
        (first, x), *rest = terms
        out, others = first(x), [layer(x) for layer, x in rest]
    for one in others:
        out.add_(one)
    return out


class LightConv(nn.Module):
    """A linear 1x1 and a depthwise 3x3 convolution, batch norm and ReLU. [B, C, H, W] -> the
    same."""

    def __init__(self, channels: int):
        super().__init__()
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(normed(self.pointwise(x), self.depthwise, self.norm))


class Branch(nn.Module):
    """One scale of a cell: `reduce`, `pre` before the first slot, `post` before the
    second, and `expand`."""

    def __init__(self, inputs: int, inner: int, outputs: int, layers: int, expand: bool):
        super().__init__()
        self.reduce = ConvNorm(inputs, inner)
        self.pre = nn.Sequential(*(LightConv(inner) for _ in range(layers)))
        self.post = nn.Sequential(*(LightConv(inner) for _ in range(layers)))
        if expand:
            self.expand = ConvNorm(inner, outputs, relu=False)


class Cell(nn.Module):
    """Two branches of unlike receptive field that interact twice, joined, with a shortcut (Gu et
    al. 2023, figure 2). [B, inputs, H, W] -> [B, outputs, H, W].

    slots: the interactions, each called as slot(short, long).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        inner: int,
        slots: tuple[nn.Module, nn.Module],
        scale_ratio: int = 3,
        fusion: str = "sum",
        shared_expand: bool = False,
    ):
        super().__init__()
        self.short = Branch(inputs, inner, outputs, 1, not shared_expand)
        self.long = Branch(inputs, inner, outputs, scale_ratio, not shared_expand)
        self.slot1, self.slot2 = slots
        self.fusion = fusion
        self.expand = ConvNorm(inner, outputs, relu=False) if shared_expand else None
        self.shortcut = (
            ConvNorm(inputs, outputs, relu=False) if inputs != outputs else nn.Identity()
        )

    def joined(self, short: Tensor, long: Tensor) -> Tensor:
        """Both branches' maps as one."""
        if self.fusion == "multiply":
            return short * long
        return short + long if self.fusion == "sum" else short - long

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """weights: of a mixed cell's operations, [2, operations]."""
        mixed = ((), ()) if weights is None else ((weights[0],), (weights[1],))
        short, long = self.short.reduce(x), self.long.reduce(x)
        short, long = self.slot1(self.short.pre(short), self.long.pre(long), *mixed[0])
        short, long = self.slot2(self.short.post(short), self.long.post(long), *mixed[1])
        shortcut = (self.shortcut, x)
        if self.expand is not None:
            out = summed((self.expand, self.joined(short, long)), shortcut)
        elif self.fusion == "sum":
            out = summed((self.short.expand, short), (self.long.expand, long), shortcut)
        else:
            out = self.joined(self.short.expand(short), self.long.expand(long))
            out = out + self.shortcut(x)
        return F.relu_(out)


class Down(ConvNorm):
    """A 1x1 convolution with norm and ReLU, and 2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class Stem(ConvNorm):
    """A 7x7 convolution of stride 2 with norm and ReLU, and 3x3 max pooling of stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(super().forward(x), 3, stride=2, padding=1)


class _Skeleton(Staged):
    """Stem, six cells and two transitions. make_slot(number, channels) gives the interaction of a
    slot, counted from 0. width: "in" or "out", see the setting `search_width`."""

    renamed = (
        (r"^conv1\.", "stem."),
        *((rf"^cells\.{number}\.", f"{cell}.") for number, cell in enumerate(_AUTHORS)),
        (r"^(down\d\.)0\.", r"\1"),
        (r"\.conv1a\.", ".short.reduce."),
        (r"\.conv1b\.", ".long.reduce."),
        (r"\.conv2a\.", ".short.pre.0."),
        (r"\.conv2b\.", ".long.pre."),
        (r"\.conv3a\.", ".short.post.0."),
        (r"\.conv3b\.", ".long.post."),
        (r"\.conv4a\.", ".short.expand."),
        (r"\.conv4b\.", ".long.expand."),
        (r"\._op2\.", ".slot1."),
        (r"\._op3\.", ".slot2."),
        (r"((?:pre|post)\.\d\.)conv1\.", r"\1pointwise."),
        (r"((?:pre|post)\.\d\.)conv2\.", r"\1depthwise."),
        (r"\.downsample\.", ".shortcut."),
        (r"\.bn\.", ".norm."),
    )
    # What the authors' network has behind its cells is `msinet.neck`, classifiers and `msinet.sam`.
    classifier = (
        "fc",
        "head",
        "classifier",
        "f_conv",
        "f_fc",
        "f_head",
        "f_classifier",
        "align_module",
    )

    def __init__(
        self,
        make_slot: Callable[[int, int], nn.Module],
        channels: tuple[int, int, int, int] = CHANNELS,
        until: str = STAGES[-1],
        width: str = "out",
        **options: Any,
    ):
        super().__init__(STAGES, until)
        wide = channels[0]
        for stage in self.stages:
            if stage == "stem":
                made: nn.Module = Stem(3, wide, 7, 2)
            elif stage.startswith("down"):
                made = Down(wide, wide)
            else:
                inputs, wide = cell_channels(channels)[stage]
                inner = (inputs if width == "in" else wide) // 4
                number = 2 * int(stage.removeprefix("cell")) - 2
                slots = make_slot(number, inner), make_slot(number + 1, inner)
                made = Cell(inputs, wide, inner, slots, **options)
            self.add_module(stage, made)
        init_convolutions(self)


class MSINet(_Skeleton):
    """MSINet without its neck (Gu et al. 2023). The stages are attributes: `stem`, `cell1`,
    `cell2`, `down1`, `cell3`, `cell4`, `down2`, `cell5`, `cell6`.

    genotype: twelve letters, see `reid_msinet.genotypes`. invert, hidden: of its interactions.
    options: of `Cell`.

    Weights remember the genotype, because two that differ in operations without weights could be
    taken for each other: loading those of another one raises DataError.
    """

    genotype: Tensor

    def __init__(self, genotype: str, invert: bool = True, hidden: int = 1, **options: Any):
        super().__init__(
            lambda slot, channels: make_operation(genotype[slot], channels, invert, hidden),
            **options,
        )
        self.register_buffer("genotype", genotype_numbers(genotype))
        self.letters = genotype
        self.register_load_state_dict_pre_hook(_refuse_another)

    def require_genotype(self, found: Tensor) -> None:
        """Raises DataError if weights say that they are of another genotype."""
        if found.tolist() != genotype_numbers(self.letters).tolist():
            other = "".join(LETTERS[int(number) % len(LETTERS)] for number in found.flatten())
            raise DataError(
                f"these weights are of the genotype {other}, but the network has {self.letters}; "
                f'set its genotype to "{other}"'
            )


def genotype_numbers(genotype: str) -> Tensor:
    return torch.tensor([LETTERS.index(letter) for letter in genotype], dtype=torch.uint8)


def _refuse_another(
    network: MSINet, state: Mapping[str, Tensor], prefix: str, *others: Any
) -> None:
    found = state.get(f"{prefix}genotype")
    if found is not None:
        network.require_genotype(found)


class MSISuperNet(_Skeleton):
    """MSINet with every operation in every slot, weighted by softmax(alpha) (eq. 1).

    `alpha` [slots, operations] starts at 0.001 N(0, 1). It is a buffer: saved with the network, and
    trained by `msinet.search` alone.
    """

    alpha: Tensor

    def __init__(self, invert: bool = True, hidden: int = 1, width: str = "in", **options: Any):
        super().__init__(
            lambda slot, channels: MixedOperation(channels, invert, hidden), width=width, **options
        )
        self.register_buffer("alpha", 1e-3 * torch.randn(SLOTS, len(OPERATIONS)))

    def forward(self, pixels: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """Return the outputs of all stages up to `until`, as `Staged` does."""
        weights = self.alpha.softmax(1)
        outputs = {}
        for stage in self.stages:
            module = getattr(self, stage)
            if stage.startswith("cell"):
                last = 2 * int(stage.removeprefix("cell"))
                pixels = module(pixels, weights[last - 2 : last])
            else:
                pixels = module(pixels)
            outputs[stage] = pixels
            if stage == until:
                break
        return outputs

    def genotype(self) -> str:
        """The operation with the largest alpha in each slot."""
        return "".join(LETTERS[number] for number in self.alpha.argmax(1).tolist())


def _options(config: Net | SuperNet, wanted: frozenset[str]) -> dict[str, Any]:
    return {
        "channels": config.channels,
        "until": next((stage for stage in reversed(STAGES) if stage in wanted), STAGES[0]),
        "invert": config.attention_invert,
        "hidden": config.gate_hidden,
        "scale_ratio": config.scale_ratio,
        "fusion": config.fusion,
        "shared_expand": config.shared_expand,
    }


def build_net(config: Net, context: Context) -> StagedBackbone:
    genotype = chosen_genotype(config.genotype, context.given)
    network = MSINet(genotype, **_options(config, context.wanted))
    # Published weights say nothing of their genotype; ours do.
    initial_weights(network, context, config.weights, [*config.allow, "genotype"])
    network.require_genotype(network.genotype)
    return StagedBackbone(network, context.wanted)


def build_supernet(config: SuperNet, context: Context) -> StagedBackbone:
    options = _options(config, context.wanted)
    return StagedBackbone(MSISuperNet(width=config.search_width, **options), context.wanted)
