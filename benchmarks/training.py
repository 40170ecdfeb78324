"""Cost of the framework in training: `reid run` beside a bare torch loop, in one process.

    OMP_NUM_THREADS=1 uv run python benchmarks/training.py [--data MANIFEST] [--epochs N]

Both sides train the demo run's network (ResNet-18 of half width on 96 x 48 pixels, channels-last)
with its losses and optimizer on the same batches of the same pictures, which are in memory as
uint8 at their final size; neither augments. Their epochs alternate. The framework's time is the
wall time between two epochs' ends with all that it does there, such as sampling, logging and
saving the state; the bare loop's is that of its steps. The first epoch of each is not counted.

Without --data the pictures are those of `core.demo`. The exit code is 1 if the framework costs more
than 5 %.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from startup import processor
from torch import Tensor, nn

from reidcore.data.decoding import IMAGENET_PIXELS
from reidcore.data.pictures import make_rows
from reidcore.model.building import build_part, make_loader
from reidcore.networks import ResNet
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Plain
from reidcore.support.seeds import generator
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan

MOST = 0.05
"""Share of the training time that the framework may cost."""


class BareNetwork(nn.Module):
    """The demo run's network: pooled features and the identities' logits."""

    def __init__(self, identities: int):
        super().__init__()
        self.backbone = ResNet(18, width=0.5)
        self.norm = nn.BatchNorm1d(256)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(256, identities, bias=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.backbone(pixels)["layer4"].mean((2, 3))
        return pooled, self.classifier(self.norm(pooled))


def triplet(x: Tensor, pid: Tensor, margin: float = 0.3) -> Tensor:
    """Batch-hard triplet loss on Euclidean distances."""
    norms = x.square().sum(1)
    squared = torch.addmm(norms[:, None] + norms, x, x.T, alpha=-2)
    distances = squared.clamp(min=1e-12).sqrt()
    same = pid[:, None] == pid
    positive = distances.masked_fill(~same, -torch.inf).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    return F.relu(positive - negative + margin).mean()


class BareLoop:
    """The loop that one would write without a framework, over pictures in memory."""

    def __init__(self, plan: Plan, device: torch.device):
        rows = make_rows(plan.data.training_rows(), plan.data.camera_numbers, ())
        loader = make_loader(plan, torch.device("cpu"))
        self.pictures = torch.stack([loader.picture(rows, i) for i in range(len(rows))])
        self.pid = torch.from_numpy(rows.pid)
        self.device = device
        self.mean = torch.tensor(IMAGENET_PIXELS.mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(IMAGENET_PIXELS.deviation).view(1, 3, 1, 1)
        sampler, seed = build_part(plan, plan.batch), plan.runfile.train.seed
        self.orders = [
            list(sampler.epoch(rows, generator(seed, "order", epoch, 0), None))
            for epoch in range(plan.runfile.train.epochs)
        ]
        self.network = BareNetwork(rows.identities).to(device, memory_format=torch.channels_last)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, 1e-3, weight_decay=5e-4)

    def epoch(self, order: Sequence[Sequence[int]]) -> None:
        for indices in order:
            index = torch.as_tensor(indices)
            pixels = self.pictures[index].float().div_(255).sub_(self.mean).div_(self.deviation)
            pixels = pixels.to(self.device, memory_format=torch.channels_last)
            pid = self.pid[index].to(self.device)
            pooled, logits = self.network(pixels)
            loss = F.cross_entropy(logits, pid, label_smoothing=0.1) + triplet(pooled, pid)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()


class Alternating(Plain):
    """A reporter that runs an epoch of the bare loop after each one of the framework's."""

    def __init__(self, bare: BareLoop):
        super().__init__(io.StringIO())
        self.bare = bare
        self.seconds: dict[str, list[float]] = {"reid": [], "bare": []}
        self.since = time.perf_counter()

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        super().epoch_ended(means)
        self._note("reid")
        self.bare.epoch(self.bare.orders[self._epoch])
        self._note("bare")

    def _note(self, side: str) -> None:
        now = time.perf_counter()
        self.seconds[side].append(now - self.since)
        self.since = now


def make(options: argparse.Namespace, plugins: Plugins) -> tuple[Plan, list[str]]:
    """The demo run's plan over the chosen pictures, without augmentation and test set."""
    sets = ["data.augment=[]", "data.test=[]", "eval.every=0", f"train.epochs={options.epochs + 1}"]
    if options.data is not None:
        sets.append(f'data.train={{ manifest = "{options.data.absolute()}" }}')
    demo = find_packaged("demo", plugins)
    run = parse_runfile(demo.text, Path("demo.toml"), sets)
    return make_plan(run, plugins, make_data=True), sets


def main() -> int:
    parser = argparse.ArgumentParser(description="The framework's cost in training.")
    parser.add_argument("--data", type=Path, help="a manifest with training pictures")
    parser.add_argument("--epochs", type=int, default=7, help="counted epochs of each side")
    options = parser.parse_args()
    plugins = Plugins([])
    plan, sets = make(options, plugins)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bare = BareLoop(plan, device)
    reporter = Alternating(bare)
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingOptions(Path(folder), sets, check=False)
        run_training(plan, plugins, training, reporter)

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{platform.platform()}; {processor()}; torch {torch.__version__} on {name}")
    print(
        f"{torch.get_num_threads()} threads compute, {plan.runfile.data.workers} read; "
        f"{len(bare.pictures)} pictures, {len(bare.orders[0])} batches an epoch"
    )
    rates = {}
    for side, seconds in reporter.seconds.items():
        done = [sum(map(len, order)) for order in bare.orders]
        per_epoch = [count / taken for count, taken in zip(done, seconds, strict=True)][1:]
        rates[side] = statistics.median(per_epoch)
        print(
            f"{side}: {rates[side]:8.1f} pictures/s, median of {len(per_epoch)} epochs "
            f"({min(per_epoch):.1f} to {max(per_epoch):.1f})"
        )
    ratios = [b / r for r, b in zip(*reporter.seconds.values(), strict=True)][1:]
    ratio = statistics.median(ratios)
    print(f"reid / bare: {ratio:.3f}, median over pairs of epochs; target at least {1 - MOST}")
    return int(ratio < 1 - MOST)


if __name__ == "__main__":
    sys.exit(main())
