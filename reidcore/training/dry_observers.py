"""Calls the observers of a run file with a run of made-up numbers, as `reid check` does."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.pictures import Batch, Rows
from reidcore.errors import PluginError
from reidcore.evaluation.metrics import Scores
from reidcore.evaluation.open_set_scores import OpenSetScores
from reidcore.evaluation.relevance import Judgements
from reidcore.evaluation.trial import PLAIN
from reidcore.evaluation.trial_scores import as_json, wanted_ranks
from reidcore.model.model import Model
from reidcore.plugins.loading import Plugins
from reidcore.protocols.base import Task, scored_name
from reidcore.protocols.open_set import OpenSet
from reidcore.protocols.score_names import Ways
from reidcore.support.files import write_atomically
from reidcore.support.repeats import mean_scores
from reidcore.support.seeds import seeded
from reidcore.training.dry_run import random_batch
from reidcore.training.observing import Observer, observers_of
from reidcore.training.training_run import training_rows
from reidcore.wiring.plan import Plan


class DryRun:
    """A run as observers see it in a dry run: its pictures are random where there are none, its
    folder is a temporary one, and nothing in it trains."""

    dry = True
    ranked = ()

    def __init__(self, model: Model, folder: Path):
        plan = model.plan
        self.folder = folder
        self.table: Mapping[str, Any] = plan.resolved()
        self.model = copy.deepcopy(model)
        self.model.compiles = False  # it takes minutes
        self.device = model.device
        self.seed = plan.runfile.train.seed
        self.notes: list[str] = []
        self._batch = random_batch(plan, model.device, training=True)
        there = all(one.rows is not None for one in plan.data.train)
        self.train = training_rows(plan) if there else _rows_of(self._batch)

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        yield self._batch

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        with torch.no_grad():
            yield self.model.eval()(self._batch.images), self._batch

    def means(self) -> dict[str, float]:
        """Return the means of an epoch, as `core.train` logs them."""
        self.model.before_training(self.extract)
        features = self.model.train()(self._batch.images)
        loss, terms = self.model.loss(features, self._batch)
        return {name: value.item() for name, value in {"loss": loss.detach(), **terms}.items()}

    def evaluate(self) -> dict[str, Any] | None:
        return made_up_scores(self.model.plan)

    def say(self, text: str) -> None:
        self.notes.append(text)

    def write(self, name: str, data: str | bytes) -> Path:
        write_atomically(self.folder / name, data)
        return self.folder / name


def check_observers(plugins: Plugins, model: Model) -> list[str]:
    """Call every observer as in a run of one epoch; return what they say.

    Raises PluginError with the plugin, the hook and the place, where one raises.
    """
    observers = observers_of(plugins, model.plan.observers)
    if not observers:
        return []
    with seeded("dry run"), tempfile.TemporaryDirectory(prefix="reid-check-") as folder:
        run = DryRun(model, Path(folder))
        for one in observers:
            _tell(one, run)
    failed = [(one, one.failure) for one in observers if one.failure is not None]
    if failed:
        raise PluginError(
            "\n".join(f"dry run: observer {one.found}: {failure}" for one, failure in failed)
        ) from failed[0][1].error
    return run.notes


def _tell(observer: Observer, run: DryRun) -> None:
    """Tell one observer of a whole run."""
    plan = run.model.plan
    scores = run.evaluate()
    observer.call("reid_run_started", run=run, finished=0)
    # What another procedure logs is not known before it has run.
    if plan.losses and (plan.procedure is None or plan.procedure.part.use == "core.train"):
        rate = plan.runfile.optim.lr if plan.runfile.optim is not None else 0.0
        timed = {"lr": rate, "seconds": 1.0, "pictures_per_second": float(len(run.train))}
        means = {"epoch": 1, **run.means(), **timed}
        observer.call("reid_epoch_ended", run=run, epoch=0, means=means, scores=scores)
    observer.call("reid_run_ended", run=run, scores=scores)


def made_up_scores(plan: Plan) -> dict[str, Any] | None:
    """Return scores of the shape that an evaluation of this plan gives; None if it has none."""
    if not plan.data.test or not plan.rankings:
        return None
    settings = plan.runfile.eval
    ranks = wanted_ranks(settings, plan.runfile.train.best)
    found: dict[str, Any] = {}
    for one in plan.data.test:
        assert one.protocol is not None
        ways = Ways(settings.ap, settings.ties, settings.queries, one.protocol.cmc)
        curve = torch.ones(max(50, *ranks), dtype=torch.float64)
        accepts = dict.fromkeys(settings.tar_at, 0.5)
        stage = as_json(Scores(0.5, curve, 0.5, 1, 1), ranks, ways, accepts)
        if isinstance(one.protocol, OpenSet):
            stage |= _made_up_open_set(one.protocol)
        tasks = [Task("", ())] if one.rows is None else one.protocol.tasks(one.rows)
        for task in tasks:
            several = len(task.trials) > 1
            stages = mean_scores([stage] * len(task.trials)) if several else stage
            found[scored_name(one.source.name, task)] = {
                table.name: dict.fromkeys(_stages(table.post), stages) for table in plan.rankings
            }
    return found


def _made_up_open_set(protocol: OpenSet) -> dict[str, Any]:
    found = OpenSetScores(protocol, lambda distances: 1 - distances)
    match = torch.tensor([[True], [False]])
    judged = Judgements.of_masks(match, torch.zeros_like(match))
    found.add(torch.tensor([[0.2], [0.4]]), judged, torch.tensor([1, 0]), 0)
    return found.scores()


def _stages(posts: list[str]) -> list[str]:
    return [PLAIN, *("+".join(posts[: count + 1]) for count in range(len(posts)))]


def _rows_of(batch: Batch) -> Rows:
    """Return rows of the pictures of a random batch, which no file holds."""
    count = len(batch)
    names = [str(number) for number in range(int(batch.pid.max()) + 1)]
    return Rows(
        paths=[f"/dry-run/{number}.png" for number in range(count)],
        pid=batch.pid.cpu().numpy(),
        camera=batch.images.camera.cpu().numpy(),
        time=np.full(count, math.nan),
        modality=batch.images.modality.cpu().numpy(),
        names=names,
        listed=["dry run"] * count,
    )
