"""Does a search know which MSINets are good? What it thinks of genotypes beside networks of them
that were trained alone.

    OMP_NUM_THREADS=1 uv run python benchmarks/msinet_genotypes.py market_dev.csv \\
        --alone alone/* --search search/*

The first is a manifest, looked up under REID_DATA, whose test pictures are ranked. --alone: run
folders of `msinet.net`, one for each genotype or several seeds of one, scored on that manifest.
--search: run folders of `msinet.search` with a matcher, such as `msinet:search-market-small`.

A search says two things of a genotype: how probable it is, the sum over slots of the logarithm of
its operation's weight; and, asked by --inherited, how well it ranks with the search's own weights,
every slot's one operation in place of the weighted sum. For that, means and variances of the batch
norms, which were of the sum, are taken anew from 32 batches of training pictures. Prints scores in
percent, and the rank correlation (Spearman) of each of these with the mAP of networks trained
alone, with p by 10,000 permutations, two-sided.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reid_msinet.network import MSINet, MSISuperNet, genotype_numbers
from reidcore.data.manifest import find_data
from reidcore.errors import ReidError, UsageError
from reidcore.evaluation.open_evaluation import Evaluation, open_evaluation
from reidcore.model.building import make_loader
from reidcore.model.model import Model
from reidcore.modules import Images
from reidcore.runfolder.opening import read_plan
from reidcore.runfolder.results import read_results
from reidcore.support.progress import Silent
from reidcore.training.training_run import training_rows

BATCHES, BATCH = 32, 64
SURE = 1e4
"""The alpha of an operation whose softmax weight is to be 1 exactly."""


def trained_alone(folders: list[Path], test: str) -> dict[str, list[float]]:
    """{genotype: mAP of each of its runs, in percent}."""
    found: dict[str, list[float]] = {}
    for folder in folders:
        network: Any = getattr(open_evaluation(folder).load_model().backbone, "network", None)
        if not isinstance(network, MSINet):
            raise UsageError(f"{folder} is no run of msinet.net")
        scores = [
            score["mAP"].mean
            for (name, _, stage), score in read_results(folder).scores.items()
            if name == test and stage == "plain"
        ]
        if len(scores) != 1:
            raise UsageError(f"{folder} has {len(scores)} plain scores of {test!r}, not one")
        found.setdefault(network.letters, []).append(100 * scores[0])
    return found


def open_search(folder: Path, manifest: Path, scratch: Path) -> Evaluation:
    """Return a search's run with the manifest as its only test set."""
    path = scratch / "evaluation.toml"
    test = f'{{ name = "{manifest.stem}", manifest = "{manifest}" }}'
    path.write_text(
        f'format = 1\n[data]\ntest = [{test}]\n[[ranking]]\nname = "main"\nmatcher = "look"\n',
        encoding="utf-8",
    )
    return open_evaluation(folder, path)


def supernet(model: Model) -> MSISuperNet:
    network: Any = getattr(model.backbone, "network", None)
    if not isinstance(network, MSISuperNet):
        raise UsageError("a folder of --search is no run of msinet.supernet")
    return network


def training_batches(folder: Path, model: Model) -> list[Images]:
    """Return augmented training pictures of a run, drawn by its seed."""
    plan = read_plan(folder, "train")
    rows = training_rows(plan)
    draw = torch.Generator().manual_seed(plan.runfile.train.seed)
    order = torch.randperm(len(rows), generator=draw)[: BATCHES * BATCH].tolist()
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [batch.images for batch in make_loader(plan, model.device).training(rows, batches, 0, 0)]


def choose(model: Model, genotype: str, pictures: list[Images]) -> None:
    """Give every slot of a supernet one operation, and the batch norms its network's statistics."""
    network = supernet(model)
    network.alpha.zero_().scatter_(1, genotype_numbers(genotype).long()[:, None], SURE)
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    momenta = [one.momentum for one in norms]
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    with torch.no_grad():
        for batch in pictures:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def inherited(folder: Path, manifest: Path, genotypes: list[str], scratch: Path) -> list[float]:
    """mAP in percent of each genotype's network with the weights of a search."""
    evaluation = open_search(folder, manifest, scratch)
    found = []
    pictures: list[Images] = []
    for genotype in genotypes:
        model = evaluation.load_model()
        pictures = pictures or training_batches(folder, model)
        choose(model, genotype, pictures)
        scores = evaluation.scores(model, Silent())
        found.append(100 * scores[manifest.stem]["main"]["plain"]["mAP"])
    return found


def log_probability(alpha: Tensor, genotype: str) -> float:
    """The sum over slots of the logarithm of the weight of a genotype's operation."""
    chosen = alpha.log_softmax(1).gather(1, genotype_numbers(genotype).long()[:, None])
    return chosen.sum().item()


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 along the last axis; equal values share the mean of theirs."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return below + (equal - 1) / 2


def spearman(first: list[float], second: list[float]) -> tuple[float, float]:
    """The rank correlation and its two-sided p by permutations; of values that are all equal there
    is none, (nan, 1)."""
    if min(len(set(first)), len(set(second))) < 2:
        return math.nan, 1.0
    one, other = (ranks(np.array(values)) for values in (first, second))
    draw = np.random.default_rng(0)
    shuffled = np.stack([other, *(draw.permutation(other) for _ in range(10_000))])
    one, shuffled = one - one.mean(), shuffled - other.mean()
    scale = np.sqrt((one**2).sum() * (shuffled[0] ** 2).sum())
    found = shuffled @ one / scale
    return float(found[0]), float((np.abs(found) >= abs(found[0]) - 1e-12).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest")
    parser.add_argument("--alone", type=Path, nargs="+", required=True)
    parser.add_argument("--search", type=Path, nargs="+", default=[])
    parser.add_argument("--inherited", action="store_true", help="rank with the searches' weights")
    options = parser.parse_args()
    manifest = find_data(options.manifest)
    alone = trained_alone(options.alone, manifest.stem)
    genotypes = sorted(alone, key=lambda one: -statistics.fmean(alone[one]))
    maps = [statistics.fmean(alone[one]) for one in genotypes]
    columns: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in options.search:
            evaluation = open_search(folder, manifest, Path(scratch))
            network = supernet(evaluation.load_model())
            print(f"{folder.name} found {network.genotype()}", flush=True)
            columns[f"{folder.name}: log p"] = [
                log_probability(network.alpha, one) for one in genotypes
            ]
            if options.inherited:
                mine = inherited(folder, manifest, genotypes, Path(scratch))
                columns[f"{folder.name}: mAP"] = mine
    print(f"| {' | '.join(['genotype', 'trained alone', *columns])} |")
    print(f"| {' | '.join(['---'] * (2 + len(columns)))} |")
    for place, genotype in enumerate(genotypes):
        own = ", ".join(f"{value:.1f}" for value in alone[genotype])
        cells = [f"{values[place]:.1f}" for values in columns.values()]
        print(f"| {' | '.join([genotype, own, *cells])} |")
    for name, values in columns.items():
        correlation, p = spearman(maps, values)
        print(f"{name}: rank correlation {correlation:.2f}, p {p:.2g}, {len(maps)} genotypes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReidError as error:
        sys.exit(f"error: {error}")
