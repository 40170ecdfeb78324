"""Draws the settings of trials, by Optuna's TPE."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

STARTUP = 5
"""Finished trials before TPE begins to draw, and before a trial may be pruned."""


class SeededTpe(BaseSampler):
    """TPE whose draw of a setting follows from the seed, the trial's number, the key and the
    finished trials alone, so that a search that was killed goes on as if it had not been.

    own: the run file's own values, which trial 0 has. together: other trials run meanwhile, from
    whose settings a draw keeps away.
    """

    def __init__(self, seed: int, own: Mapping[str, Any], together: bool) -> None:
        self._seed, self._own, self._together = seed, own, together

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if trial.number == 0 and param_name in self._own:
            return self._own[param_name]
        text = f"{self._seed}/{trial.number}/{param_name}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        tpe = TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=self._together)
        return tpe.sample_independent(study, trial, param_name, param_distribution)
