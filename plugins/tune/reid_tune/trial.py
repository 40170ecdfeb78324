"""One trial: it is trained, scored by epoch, pruned where it is hopeless, and told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from reid_tune.study import RUN, RUN_FILE, Study
from reidcore.errors import PluginError, ReidError, RunFileError
from reidcore.tools import Silent, metric_of, number_of, read_json, read_means, train

SCORED_EPOCHS = "scores-by-epoch.json"
"""File of a run folder: the scores of every epoch that was scored."""
MEANS = "means.csv"
WEIGHTS = "*.safetensors"
"""Files of a run folder that no finished trial needs."""


class Pruned(Exception):
    """The trial that is running is worse than half of the others were."""


class Watch(Silent):
    """Looks at the scores of a trial's run before every epoch.

    run: the run folder. known: epochs whose scores the study has already. say: shows how far the
    trial is. Raises Pruned out of the training.
    """

    def __init__(
        self,
        trial: Trial,
        run: Path,
        score: str,
        known: Iterable[int],
        say: Callable[[str], None],
    ) -> None:
        self._trial, self._run, self._score, self._say = trial, run, score, say
        self._known = set(known)

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        found = scored_epochs(self._run, self._score)
        for scored, value in found:
            if scored not in self._known and math.isfinite(value):
                self._trial.report(value, scored)
                self._known.add(scored)
        if found:
            self._say(f"epoch {epoch}/{epochs}  {self._score} {100 * found[-1][1]:.1f}")
        if self._known and self._trial.should_prune():
            raise Pruned


def scored_epochs(run: Path, score: str) -> list[tuple[int, float]]:
    """Return (epoch, score) of the epochs that were scored so far."""
    path = run / SCORED_EPOCHS
    found = read_json(path) if path.exists() else []
    return [(int(one["epoch"]), deciding(one["scores"], score)) for one in found]


def deciding(scores: Mapping[str, Any], score: str) -> float:
    """Return the score that decides: at the end of the first ranking, the mean over test sets."""
    found = []
    for rankings in scores.values():
        stages = next(iter(rankings.values()))
        last = list(stages.values())[-1]
        name = next(one for one in last if metric_of(one) == score)
        found.append(number_of(last[name]))
    return statistics.fmean(found)


def run_trial(study: Study, label: str, number: int, say: Callable[[str], None]) -> None:
    """Train a trial, from where a killed command has left it, and note in the study how it ended.

    A trial that diverges, or whose settings do not fit together, has failed. Raises `ReidError`, or
    what else stands in the way of every trial; the trial is then still to be ended.
    """
    place = study.place(label, number)
    run = place / RUN
    trial = study.trial(label, number)
    known = study.trials(label)[number].intermediate_values
    watch = Watch(trial, run, study.score, known, say)
    try:
        scores = train(
            place / RUN_FILE, run, resume=run.is_dir(), check=number == 0, reporter=watch
        )
        value = deciding(scores or {}, study.score)
    except Pruned:
        _end(study, label, trial, run, TrialState.PRUNED)
    except (RunFileError, PluginError) as error:
        _failed(study, label, trial, run, str(error))
    except ReidError as error:
        if error.exit_code != ReidError.exit_code:
            raise
        _failed(study, label, trial, run, str(error))
    except OSError:
        raise  # a full disk and its like
    except Exception as error:
        _failed(study, label, trial, run, f"{type(error).__name__}: {error}")
    else:
        if math.isfinite(value):
            _end(study, label, trial, run, TrialState.COMPLETE, value)
        else:
            _failed(study, label, trial, run, f"{study.score} is {value}")


def _failed(study: Study, label: str, trial: Trial, run: Path, reason: str) -> None:
    words = " ".join(reason.split())
    trial.set_user_attr("reason", words if len(words) <= 500 else f"{words[:500]} ...")
    _end(study, label, trial, run, TrialState.FAIL)


def _end(
    study: Study,
    label: str,
    trial: Trial,
    run: Path,
    state: TrialState,
    value: float | None = None,
) -> None:
    means = run / MEANS
    epochs = read_means(means) if means.exists() else []
    trial.set_user_attr("epochs", len(epochs))
    trial.set_user_attr("seconds", sum(row["seconds"] for row in epochs))
    for path in run.glob(WEIGHTS):
        path.unlink(missing_ok=True)
    study.of(label).tell(trial, value, state)
