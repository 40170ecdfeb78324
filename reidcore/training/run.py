"""Plain training, and the run that every procedure is written against."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Batch, Rows
from reidcore.data.pictures import PictureLoader
from reidcore.distributed.processes import ALONE, Processes
from reidcore.distributed.shared_batches import average_gradients
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.evaluation.evaluate import evaluate
from reidcore.evaluation.job import evaluation_job
from reidcore.model.building import build_part
from reidcore.model.model import Model
from reidcore.model.state_files import load_state, save_sections, save_state
from reidcore.plugins.loading import Plugins
from reidcore.protocols.score_names import metric_of
from reidcore.ranking.scorer import Scorer, make_scorer
from reidcore.runfiles.tables import FITTED
from reidcore.runfolder.folder import SCORED_EPOCHS, write_means
from reidcore.runfolder.peak_memory import peak_memory
from reidcore.support.files import read_json, write_atomically, write_json
from reidcore.support.progress import Reporter, Silent
from reidcore.support.repeats import number_of, without_curves
from reidcore.support.seeds import generator, seed_all
from reidcore.training.optimizers import lay_out_as_parameters, make_optimizer, owned, rate_factor
from reidcore.wiring.plan import Plan


class _Ask:
    """Answers a sampler: features and distances of training pictures as the model is now."""

    def __init__(self, scorer: Scorer, rows: Rows):
        self._scorer = attrs.evolve(scorer, views=("plain",))
        self._rows = rows

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        batches = self._scorer.features(self._rows.take(indices))
        return torch.cat([features[name] for features, _ in batches])

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        first = self._templates(matcher, a)
        second = first if list(a) == list(b) else self._templates(matcher, b)
        return self._scorer.distances(matcher, first, second)

    def _templates(self, matcher: str, indices: Sequence[int]) -> Template:
        return self._scorer.templates([matcher], self._rows.take(indices))[matcher]


class TrainingRun:
    """`reidcore.modules.Run` over a run folder: everything a procedure needs, and what makes a
    killed run go on as if nothing had happened.

    All randomness follows from (seed, epoch), so nothing of a generator's state is saved: a resumed
    run starts with the epoch after the last save. Of several processes each has one, and the first
    writes, speaks and calls observers.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        model: Model,
        loader: PictureLoader,
        train_rows: Rows,
        plugins: Plugins,
        reporter: Reporter,
        processes: Processes = ALONE,
    ):
        self.plan = plan
        self.folder = folder
        self.table: Mapping[str, Any] = plan.resolved()
        self.model = model
        self.device = model.device
        self.seed = plan.runfile.train.seed
        self.train = train_rows
        self.history: list[dict[str, float]] = []
        self.scores: dict[str, Any] | None = None
        self._scored: list[dict[str, Any]] = []
        self._evaluation_seconds: float | None = None
        self._best = -math.inf
        self._loader = loader
        self._processes = processes
        self._scorer = make_scorer(model, loader, processes)
        self._reporter = reporter if processes.first else Silent()
        self._observers = plugins.observers(plan.runfile.plugins if processes.first else [])
        seed_all(self.seed, "build", "data.batch")
        self._sampler = build_part(plan, plan.batch) if plan.batch is not None else None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._pictures = 0

    @property
    def _resume_file(self) -> Path:
        return self.folder / "resume.safetensors"

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        if self._sampler is None:
            raise UsageError("[data]: missing key 'batch', which training needs")
        draw = generator(self.seed, "order", epoch, stream)
        # Drawn before the first step: what a sampler asks must not depend on how far workers are.
        order = list(self._sampler.epoch(rows, draw, _Ask(self._scorer, rows)))
        for batch in self._loader.training(rows, order, epoch, stream):
            self._pictures += len(batch)
            yield batch

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        return self._scorer.features(self.train if rows is None else rows)

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        optim = self.plan.runfile.optim
        if optim is None:
            raise UsageError("table [optim] is missing, which training needs")
        made = make_optimizer(optim, self.model if parameters is None else parameters)
        self._optimizers.append(made)
        return made

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        if self.device.type == "cpu" and not loss.isfinite():
            raise ReidError(
                f"the loss became {loss.item()} in epoch {len(self.history) + 1}; lower optim.lr, "
                "set optim.clip_norm, or look at means.csv"
            )
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.backward(loss, *optimizers)
        clip = self.plan.runfile.optim.clip_norm if self.plan.runfile.optim else 0
        if clip:
            torch.nn.utils.clip_grad_norm_(owned(optimizers), clip)
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
            value = number.detach() if isinstance(number, Tensor) else number
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        shown = self._pictures and self.device.type == "cpu"
        self._reporter.step(self._pictures - self._shown, self.means() if shown else None)
        self._shown = self._pictures

    _shown = 0

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def say(self, text: str) -> None:
        self._reporter.say(text)

    def epochs(self, **state: Any) -> Iterator[int]:
        settings = self.plan.runfile.train
        first = self._restore(state)
        for epoch in range(first, settings.epochs):
            self._begin(epoch, first)
            started = time.monotonic()
            yield epoch
            means = self.means()  # waits for the GPU, so it comes before the clock is read
            seconds = time.monotonic() - started
            wrong = [name for name, value in means.items() if not math.isfinite(value)]
            if wrong:
                raise ReidError(
                    f"{', '.join(wrong)} became {means[wrong[0]]} in epoch {epoch + 1}; lower "
                    "optim.lr, set optim.clip_norm, or look at means.csv"
                )
            rate = self._pictures / max(seconds, 1e-9)
            lr = self._optimizers[0].param_groups[0]["lr"] if self._optimizers else 0.0
            row = {"epoch": epoch + 1, **means, "lr": lr, "seconds": round(seconds, 3)}
            self.history.append({**row, "pictures_per_second": round(rate, 1)})
            due = self._due(epoch)
            self._save(state, epoch + 1, due)
            self._reporter.epoch_ended(self.history[-1])
            if due:
                self._evaluate_epoch(state, epoch)
            self._observers.epoch_ended(
                run=self, epoch=epoch, means=self.history[-1], scores=self.scores if due else None
            )

    def _begin(self, epoch: int, first: int) -> None:
        settings = self.plan.runfile
        seed_all(self.seed, "epoch", epoch)
        if settings.optim is not None:
            factor = rate_factor(settings.optim, epoch, settings.train.epochs)
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * factor
        self._sums, self._counts, self._pictures, self._shown = {}, {}, 0, 0
        self.model.train()
        self._reporter.epoch_started(epoch, settings.train.epochs, first)

    def _due(self, epoch: int) -> bool:
        """Whether this epoch ends with an evaluation."""
        every, epochs = self.plan.runfile.eval.every, self.plan.runfile.train.epochs
        if not self.plan.data.test or not self.plan.rankings:
            return False
        return epoch + 1 == epochs or (every > 0 and (epoch + 1) % every == 0)

    def _evaluate_epoch(self, state: Mapping[str, Any], epoch: int) -> None:
        """Evaluates and saves again, so that a kill in an evaluation costs only the evaluation."""
        self.scores = self.evaluate()
        self._scored.append({"epoch": epoch + 1, "scores": without_curves(self.scores or {})})
        self._keep_best(epoch)
        self._save(state, epoch + 1, False)

    def _keep_best(self, epoch: int) -> None:
        name = self.plan.runfile.train.best
        if not name or not self.scores:
            return
        rankings = next(iter(self.scores.values()))
        last = list(next(iter(rankings.values())).values())[-1]
        score = next(one for one in last if metric_of(one) == name)
        value = number_of(last[score])
        if value > self._best:
            self._best = value
            if self._processes.first:
                save_sections(self.folder / "weights-best.safetensors", self.model.sections())
                write_json(self.folder / "best.json", {"epoch": epoch + 1, score: value})

    def _save(self, state: Mapping[str, Any], epoch: int, evaluation_due: bool) -> None:
        if not self._processes.first:
            return
        save_state(
            self._resume_file,
            {
                "epoch": epoch,
                "evaluation_due": evaluation_due,
                "model": {role: section for role, section in self.model.sections().items()},
                "state": {name: part.state_dict() for name, part in state.items()},
                "history": self.history,
                "scores": self.scores,
                "scored": self._scored,
                "best": self._best,
            },
        )
        write_means(self.folder / "means.csv", self.history)
        if self._scored:
            write_json(self.folder / SCORED_EPOCHS, self._scored)

    def _restore(self, state: Mapping[str, Any]) -> int:
        saved = load_state(self._resume_file) if self._resume_file.exists() else None
        self._processes.wait()  # before the first one saves anew
        if saved is None:
            return 0
        if set(saved["state"]) != set(state):
            raise DataError(
                f"{self._resume_file} holds the state of {', '.join(saved['state']) or 'nothing'}, "
                f"but the procedure keeps {', '.join(state) or 'nothing'}"
            )
        for role, module in self.model.parts():
            module.load_state_dict(saved["model"][role])
        for name, part in state.items():
            part.load_state_dict(saved["state"][name])
            if isinstance(part, torch.optim.Optimizer):
                lay_out_as_parameters(part)
        self.history, self.scores = saved["history"], saved["scores"]
        self._scored = saved.get("scored", [])
        self._best = saved["best"]
        epoch = int(saved["epoch"])
        self._reporter.say(f"resumed after epoch {epoch} of {self.plan.runfile.train.epochs}")
        if saved["evaluation_due"]:
            self._evaluate_epoch(state, epoch - 1)
        return epoch

    def evaluate(self) -> dict[str, Any] | None:
        if not self.plan.data.test or not self.plan.rankings:
            return None
        if any(ranking.scale in FITTED for ranking in self.plan.rankings):
            self._measure_pairs()
        kept = self._scorer.kept_blocks(self.folder, self._reporter)
        started = time.monotonic()
        scores = evaluate(evaluation_job(self.plan), self._scorer, kept, self._reporter)
        self._evaluation_seconds = round(time.monotonic() - started, 3)
        kept.discard(others=True)  # of a state that this run has left behind
        return scores

    def _measure_pairs(self) -> None:
        """Keeps distances of training pairs under every matcher, as the model is now."""
        self.model.pairs = self._scorer.training_pairs(self.train, self.seed)

    def write(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        if self._processes.first:
            write_atomically(path, data)
        return path

    def run(self) -> dict[str, Any] | None:
        """Runs the procedure to its end and leaves weights and scores in the folder."""
        self._observers.run_started(run=self)
        if self.plan.procedure is not None:
            seed_all(self.seed, "procedure")  # for modules of its own
            self.plan.procedure.build()(self.plan.procedure.config, self)
        if self.scores is None:
            self.scores = self.evaluate()
        self._measure_pairs()  # whatever ranks later may have to be fitted
        if self._processes.first:
            self._finish()
        return self.scores

    def _finish(self) -> None:
        save_sections(self.folder / "weights.safetensors", self.model.sections())
        if self.scores is not None:
            write_json(self.folder / "scores.json", self.scores)
        lock = read_json(self.folder / "lock.json")
        used = {"evaluation_seconds": self._evaluation_seconds, **peak_memory(self.device)}
        write_json(self.folder / "lock.json", {**lock, "finished": True, "used": used})
        self._resume_file.unlink(missing_ok=True)
        self._observers.run_ended(run=self, scores=self.scores)
