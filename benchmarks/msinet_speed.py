"""Seconds of MSINet beside OSNet x1.0 and ResNet-50 with a last stride of 1: interleaved medians.

    OMP_NUM_THREADS=1 uv run python benchmarks/msinet_speed.py

A forward pass in eval mode and a training step (classifier and batch-hard triplet, backward, SGD)
of 16 random pictures of 256 x 128, 4 identities with 4 pictures each, on one thread. Seconds are of
the process, so that other jobs on the machine hardly count. The networks stop at their last map, as
for retrieval; MSINet has its neck. "plain" is the usual order of axes, and for MSINet norms as
passes of their own and branches added one by one, so that what the rearrangements give can be seen;
both give the same numbers but for rounding. The exit code is 1 where MSINet takes more than 0.74 of
ResNet-50's time for a forward pass, or the two ways differ.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from startup import processor
from torch import Tensor, nn

from reid_msinet import network as msinet
from reid_msinet.neck import build_neck
from reid_msinet.settings_neck import Neck
from reid_msinet.sizes import CHANNELS, stage_shapes
from reidcore.api import Feature, Given
from reidcore.modules import Context, Images
from reidcore.networks import OSNet, ResNet

IMAGE = (256, 128)
PICTURES = 16
IDENTITIES = 751
MOST = 0.74
MOST_APART = 1e-4


class MSINet(nn.Module):
    """The network of table 1 with its neck, at inference without what retrieval does not read."""

    def __init__(self, training: bool):
        super().__init__()
        self.network = msinet.MSINet("GGEGAGGNGAEA")
        shapes = stage_shapes(CHANNELS, IMAGE)
        features = {f"backbone.{s}": Feature.map(*shapes[s]) for s in ("cell6", "down2")}
        config = Neck(source="backbone.cell6", part_source="backbone.down2")
        wanted = ["bn", "part_bn", "pooled", "part"] if training else ["feature"]
        self.neck = build_neck(config, Context(Given(IMAGE, features=features), "neck", wanted))

    def forward(self, pixels: Tensor) -> Tensor:
        stages = self.network(pixels)
        maps = {f"backbone.{name}": stages[name].contiguous() for name in ("cell6", "down2")}
        none = torch.zeros(len(pixels), dtype=torch.int64)
        made = self.neck(maps, Images(pixels, none, none))
        return torch.cat(list(made.values()), 1)


class Pooled(nn.Module):
    """The mean of a network's last map."""

    def __init__(self, network: nn.Module, last: str):
        super().__init__()
        self.network, self.last = network, last

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)[self.last].mean((2, 3))


def networks(training: bool) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {
        "MSINet": MSINet(training),
        "OSNet x1.0": Pooled(OSNet(1.0, "layer4"), "layer4"),
        "ResNet-50": Pooled(ResNet(50, 1), "layer4"),
    }
    for network in made.values():
        network.train(training).to(memory_format=torch.channels_last)
    return made


def forwards() -> dict[str, Callable[[], Tensor]]:
    x = torch.rand(PICTURES, 3, *IMAGE)
    last = x.contiguous(memory_format=torch.channels_last)
    plain = {
        name: network.to(memory_format=torch.contiguous_format)
        for name, network in networks(False).items()
    }

    def without() -> Tensor:
        with mock.patch.object(msinet, "is_fixed", lambda norm: False):
            return plain["MSINet"](x)

    made = {name: lambda net=net: net(last) for name, net in networks(False).items()}
    made["MSINet, plain"] = without
    made["ResNet-50, plain"] = lambda: plain["ResNet-50"](x)
    return made


def steps() -> dict[str, Callable[[], Tensor]]:
    x = torch.rand(PICTURES, 3, *IMAGE).contiguous(memory_format=torch.channels_last)
    pid = torch.arange(PICTURES) // 4
    same = pid[:, None] == pid

    def step(network: nn.Module) -> Callable[[], Tensor]:
        with torch.no_grad():
            classifier = nn.Linear(network(x).shape[1], IDENTITIES)
        optimizer = torch.optim.SGD(
            [*network.parameters(), *classifier.parameters()], lr=1e-3, momentum=0.9
        )

        def once() -> Tensor:
            optimizer.zero_grad()
            features = network(x)
            apart = torch.cdist(features, features)
            positive = apart.masked_fill(~same, 0).amax(1)
            negative = apart.masked_fill(same, torch.inf).amin(1)
            loss = F.cross_entropy(classifier(features), pid)
            loss = loss + F.relu(positive - negative + 0.3).mean()
            loss.backward()
            optimizer.step()
            return loss

        return once

    return {name: step(network) for name, network in networks(True).items()}


def medians(cases: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Seconds by name; one run of each first, then all of them in turn."""
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, case in cases.items():
            started = time.process_time()
            case()
            if number:
                seen[name].append(time.process_time() - started)
    return {name: statistics.median(found) for name, found in seen.items()}


def show(title: str, seconds: dict[str, float]) -> None:
    print(f"{title:28}{'seconds':>9}{'of ResNet-50':>14}")
    for name, found in seconds.items():
        print(f"  {name:26}{found:9.3f}{found / seconds['ResNet-50']:14.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{processor()}, torch {torch.__version__}, Python {platform.python_version()}, one thread"
    )
    cases = forwards()
    with torch.no_grad():
        ways = cases["MSINet"](), cases["MSINet, plain"]()
        forward = medians(cases, options.repeats)
    apart = float((ways[0] - ways[1]).abs().max() / ways[1].abs().max())
    show(f"forward, {PICTURES} pictures", forward)
    show(f"training step, {PICTURES} pictures", medians(steps(), options.repeats))
    share = forward["MSINet"] / forward["ResNet-50"]
    print(f"MSINet's two ways differ by {apart:.1e} of the largest feature")
    return 0 if share <= MOST and apart <= MOST_APART else 1


if __name__ == "__main__":
    sys.exit(main())
