"""The run that every procedure is written against."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from reidcore.contracts.pictures import Batch, Rows
from reidcore.contracts.run_interfaces import RankedList
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.distributed.shared_batches import average_gradients
from reidcore.errors import ReidError, UsageError
from reidcore.evaluation.evaluate import evaluate
from reidcore.evaluation.evaluation_job import evaluation_job
from reidcore.evaluation.query_scores import QueryScores
from reidcore.evaluation.ranked_lists import RankedLists
from reidcore.model.building import build_part
from reidcore.model.model import Model
from reidcore.protocols.open_set import OpenSet
from reidcore.ranking.comparer import make_comparer
from reidcore.runfiles.tables import FITTED
from reidcore.runfolder.folder import QUERIES
from reidcore.runfolder.peak_memory import peak_memory
from reidcore.support.files import write_atomically
from reidcore.support.progress import Reporter, Silent
from reidcore.support.seeds import generator, seed_all
from reidcore.training.epoch_log import EpochLog, diverged
from reidcore.training.observing import Observing
from reidcore.training.optimizers import make_optimizer, owned, set_rates
from reidcore.training.sampler_answers import SamplerAnswers
from reidcore.training.saves import Saves
from reidcore.training.start_share import require_start, share_start
from reidcore.wiring.plan import Plan


def training_rows(plan: Plan, held_out: bool = False) -> Rows:
    """Return the training pictures of a plan whose data are at hand, or those held out of them."""
    rows = plan.data.held_out_rows() if held_out else plan.data.training_rows()
    return make_rows(rows, plan.data.camera_numbers, plan.given.modalities)


class TrainingRun:
    """A run in its folder: what a procedure trains with, as `reidcore.modules.Run` promises, and
    the saves by which a killed run goes on as if nothing had happened.

    All randomness follows from (seed, epoch), so nothing of a generator's state is saved: a resumed
    run starts with the epoch after the last save. Of several processes each has one, and the first
    writes, speaks and calls observers.
    """

    dry = False

    def __init__(
        self,
        model: Model,
        loader: PictureLoader,
        train_rows: Rows,
        folder: Path,
        observing: Observing,
        reporter: Reporter,
    ):
        plan, processes = model.plan, loader.processes
        settings = plan.runfile
        self.plan = plan
        self.folder = folder
        self.table: Mapping[str, Any] = plan.resolved()
        self.model = model
        self.device = model.device
        self.seed = settings.train.seed
        self.train = train_rows
        self._held_out = training_rows(plan, held_out=True)
        self._epochs = settings.train.epochs
        self._evaluate_every = settings.eval.every
        self._optim = settings.optim
        self._loader = loader
        self._processes = processes
        self._comparer = make_comparer(model, loader, processes)
        self._reporter = reporter if processes.first else Silent()
        self._observing = observing
        self._saves = Saves(folder, model, processes, settings.train.best)
        self._log = EpochLog()
        self._optimizers: list[torch.optim.Optimizer] = []
        self._evaluation_seconds: float | None = None
        self.ranked: Sequence[RankedList] = ()
        self._failure: Exception | None = None
        """Why the evaluation at the end of training failed, while its procedure ends."""
        seed_all(self.seed, "build", "data.batch")
        self.sampler = build_part(plan, plan.batch) if plan.batch is not None else None

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        if self.sampler is None:
            raise UsageError("[data]: missing key 'batch', which training needs")
        draw = generator(self.seed, "order", epoch, stream)
        # Drawn before the first step: what a sampler asks must not depend on how far workers are.
        order = list(self.sampler.epoch(rows, draw, SamplerAnswers(self._comparer, rows)))
        if not order and self.plan.batch is not None:
            raise UsageError(
                f"{self.plan.batch.part} gives no batch of {len(rows)} pictures, so that nothing "
                "would be trained; it needs smaller batches, or more pictures"
            )
        for batch in self._loader.training(rows, order, epoch, stream):
            self._log.pictures += len(batch)
            yield batch

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        return self._comparer.features(self.train if rows is None else rows)

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        if self._optim is None:
            raise UsageError("table [optim] is missing, which training needs")
        made = make_optimizer(self._optim, self.model if parameters is None else parameters)
        self._optimizers.append(made)
        return made

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        if self.device.type == "cpu" and not loss.isfinite():
            raise diverged("the loss", loss.item(), len(self._saves.history) + 1)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.backward(loss, *optimizers)
        if self._optim is not None and self._optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(owned(optimizers), self._optim.clip_norm)
        for optimizer in optimizers:
            optimizer.step()

    def backward(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        loss.backward()
        if self._processes.count > 1:
            # A procedure may step what is no parameter, such as a supernet's weights of operations.
            stepped = owned([*self._optimizers, *optimizers])
            every = dict.fromkeys([*self.model.parameters(), *self.model.buffers(), *stepped])
            average_gradients(every, self._processes)

    def log(self, /, **numbers: float | Tensor) -> None:
        for name, number in numbers.items():
            self._log.add(name, number)
        # On a GPU the means would wait for it at every step.
        shown = self._log.pictures and self.device.type == "cpu"
        self._reporter.step(self._log.new_pictures(), self.means() if shown else None)

    def means(self) -> dict[str, float]:
        return self._log.means()

    def say(self, text: str) -> None:
        self._reporter.say(text)

    def epochs(self, **state: Any) -> Iterator[int]:
        first = self._resume(state)
        for epoch in range(first, self._epochs):
            self._begin(epoch, first)
            yield epoch
            if epoch + 1 == self._epochs:
                share_start(self.model)
            row = self._log.row(epoch + 1, self._rate())
            due = self._ends_with_evaluation(epoch)
            self._saves.add_epoch(row, due)
            self._reporter.epoch_ended(row)
            if due:
                self._score_epoch()
            self._observing.epochs_ended(self, self._saves.ended_epochs())

    def _resume(self, state: Mapping[str, Any]) -> int:
        """Go back to the last save; return the number of finished epochs."""
        if not self._saves.restore(state):
            return 0
        finished = len(self._saves.history)
        if finished < self._epochs:
            require_start(self.plan, self.folder)
        self._reporter.say(f"resumed after epoch {finished} of {self._epochs}")
        if self._saves.evaluation_due:
            self._score_epoch()
        self._observing.epochs_ended(self, self._saves.ended_epochs())
        return finished

    def _score_epoch(self) -> None:
        """Evaluate the last finished epoch and save its scores.

        Where that fails after the last epoch of all, the procedure still comes to its end, so that
        its weights are not lost.
        """
        try:
            self._saves.add_scores(self.evaluate())
        except Exception as error:
            if not self._is_trained:
                raise
            if self._processes.count > 1:
                # What they do together cannot go on where one has failed.
                self._raise_trained(error)
            self._failure = error

    def _begin(self, epoch: int, first: int) -> None:
        seed_all(self.seed, "epoch", epoch)
        if self._optim is not None:
            set_rates(self._optimizers, self._optim, epoch, self._epochs)
        self._log = EpochLog()
        self.model.train()
        self._reporter.epoch_started(epoch, self._epochs, first)

    def _rate(self) -> float:
        """The learning rate of the first optimizer, for means.csv."""
        return self._optimizers[0].param_groups[0]["lr"] if self._optimizers else 0.0

    @property
    def _is_trained(self) -> bool:
        return len(self._saves.history) >= self._epochs

    @property
    def _can_evaluate(self) -> bool:
        return bool(self.plan.data.test and self.plan.rankings)

    def _ends_with_evaluation(self, epoch: int) -> bool:
        every = self._evaluate_every
        last = epoch + 1 == self._epochs
        return self._can_evaluate and (last or (every > 0 and (epoch + 1) % every == 0))

    def evaluate(self) -> dict[str, Any] | None:
        if not self._can_evaluate:
            return None
        # Where several processes share it, one that fails ends all of them, perhaps in a write.
        early = self._processes.count > 1 and self._is_trained
        if early:
            self._saves.write_weights()
            self._processes.wait()
        opened = any(isinstance(one.protocol, OpenSet) for one in self.plan.data.test)
        if opened or any(ranking.scale in FITTED for ranking in self.plan.rankings):
            self._measure_pairs()
            if early:
                self._saves.write_weights()
        kept = self._comparer.kept_blocks(self.folder, self._reporter)
        started = time.monotonic()
        tests = {one.source.name: one.rows or () for one in self.plan.data.test}
        lists, queries = RankedLists(tests, self.plan.rankings), QueryScores()
        watcher = lists if self.plan.observers else None
        job = evaluation_job(self.plan)
        scores = evaluate(job, self._comparer, kept, self._reporter, watcher, queries)
        self.write(QUERIES, queries.text())
        self.ranked = lists.lists()
        self._evaluation_seconds = round(time.monotonic() - started, 3)
        kept.discard(others=True)  # of a state that this run has left behind
        return scores

    def _measure_pairs(self) -> None:
        """Keeps distances of training pairs under every matcher, as the model is now."""
        rows = self._held_out if len(self._held_out) else self.train
        self.model.pairs = self._comparer.training_pairs(rows, self.seed)

    def write(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        if self._processes.first:
            write_atomically(path, data)
        return path

    def run(self) -> dict[str, Any] | None:
        """Run the procedure to its end, leave weights and scores in the folder, and return the
        scores."""
        self._observing.started(self, self._saves.finished_epochs())
        if self.plan.procedure is not None:
            seed_all(self.seed, "procedure")  # for modules of its own
            try:
                self.plan.procedure.build()(self.plan.procedure.config, self)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UsageError(
                    "[data] batch: a training batch has one picture, which a batch norm cannot be "
                    f"trained on ({error}); change its size, or leave an incomplete last batch out"
                ) from error
        if self._failure is not None:
            self._raise_trained(self._failure)
        scores = self._saves.scores
        try:
            if scores is None:
                scores = self.evaluate()
            self._measure_pairs()  # whatever ranks later may have to be fitted
        except Exception as error:
            self._raise_trained(error)
        used = {"evaluation_seconds": self._evaluation_seconds, **peak_memory(self.device)}
        self._observing.save()
        self._saves.finish(scores, used)
        self._observing.ended(self, scores)
        return scores

    def catch_up(self) -> None:
        """Tell observers what they have missed of a run that is finished."""
        self._saves.read_results()
        self._observing.catch_up(self, self._saves.ended_epochs(), self._saves.scores)

    def _raise_trained(self, error: Exception) -> NoReturn:
        """Keep the weights of a run whose evaluation has failed, and raise its error, which then
        says how to go on from them."""
        if self._processes.count == 1:
            with contextlib.suppress(Exception):
                self._measure_pairs()
        self._saves.write_weights()
        words = (
            f"the training is complete, and its weights are in {self.folder}: once this is mended, "
            "--resume evaluates them, also on other test sets (--set data.test=...) or with "
            "another [eval] or [[ranking]]; reid eval, rank, explain and report work with them too"
        )
        if isinstance(error, ReidError):
            error.args = (f"{error}\n{words}",)
        else:
            self._reporter.say(words)
        raise error
