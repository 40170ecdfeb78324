"""What several test files of the plugin build: maps, and branches with an oracle's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_ipad.branches import Controller, compression
from reidcore.api import Feature, Given
from reidcore.modules import Images
from tests.oracles import Vectors


def given_map(*shape: int) -> Given:
    return Given((8, 8), features={"x.map": Feature.map(*shape)})


def images_of(batch: int) -> Images:
    none = torch.zeros(batch, dtype=torch.int64)
    return Images(torch.zeros(batch, 3, 1, 1), none, none)


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def load(module: torch.nn.Module, values: dict[str, Tensor]) -> None:
    """Every parameter and statistic of the module, from an oracle."""
    missing, unexpected = module.load_state_dict(values, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)


def compression_of(vectors: Vectors, prefix: str, last: str = "bn_relu") -> torch.nn.Sequential:
    """An oracle's compression, evaluating."""
    values, widths = {}, []
    for number in (1, 2, 3):
        weight = vectors.input(f"{prefix}_Wc{number}")
        widths.append(len(weight))
        place = 3 * (number - 1)
        values[f"{place}.weight"] = weight[:, :, None, None]
        for name, array in (
            ("weight", "g"),
            ("bias", "be"),
            ("running_mean", "mu"),
            ("running_var", "var"),
        ):
            values[f"{place + 1}.{name}"] = vectors.input(f"{prefix}_{array}{number}")
    inputs = values["0.weight"].shape[1]
    module = compression(inputs, widths[-1], widths[:-1], last=last).double().eval()
    load(module, values)
    return module


def controller_of(
    vectors: Vectors, prefix: str, channels: int, grid: tuple[int, int], relu: bool, norm: str
) -> Controller:
    """An oracle's controller."""
    weights = [vectors.input(f"{prefix}_W{number}")[:, :, None, None] for number in (1, 2, 3)]
    inputs, hidden = weights[0].shape[1], len(weights[0])
    module = Controller(
        inputs, channels, grid, inputs // hidden, final_relu=relu, norm=norm
    ).double()
    values = {f"layers.{2 * n}.weight": weight for n, weight in enumerate(weights)}
    values |= {f"layers.{2 * n}.bias": vectors.input(f"{prefix}_b{n + 1}") for n in range(3)}
    load(module, values)
    return module
