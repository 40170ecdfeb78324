"""Loads the components of a run file and checks their settings. Torch-free."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reidcore.contracts.given import Given, WiringError
from reidcore.data.manifest import find_data
from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, RunFile
from reidcore.runfiles.strict import structure
from reidcore.support.wording import in_words
from reidcore.wiring.plan import Wired
from reidcore.wiring.trials import has_trials, with_trial

Purpose = Literal["train", "eval", "rank"]


class _Resolver:
    """Loads components and settings, collecting problems by the exit code they deserve."""

    def __init__(self, run: RunFile, plugins: Plugins):
        self.run = run
        self.plugins = plugins
        self.problems = Problems(run.path, run.lines)
        self.broken: list[str] = []
        self.failed: set[str] = set()
        self.distributions: dict[str, str] = {}
        self.weights: dict[tuple[str, str], None] = {}

    def component(self, part: Part) -> LoadedComponent | None:
        try:
            component = self.plugins.component(part.kind, part.use)
            self.distributions[component.distribution] = component.version
            return component
        except PluginError as error:
            self.broken.append(f"{part}: {error}")
        except UsageError as error:
            key = "read" if part.kind == "reader" else "use"
            self.problems.add((*part.path, key), str(part), str(error))
        self.failed.add(part.role)
        return None

    def wired(self, part: Part) -> Wired | None:
        component = self.component(part)
        if component is None:
            return None
        try:
            config, faults = structure(component.component.config, part.table, part.core_keys)
        except Exception as error:
            self.own_fault(Wired(part, component, None), "its settings class", error)
            return None
        self.problems.faults(part.path, str(part), faults)
        if config is None:
            self.failed.add(part.role)
            return None
        return Wired(part, component, config)

    def reader(self, part: Part) -> Wired | None:
        """As `wired`, with the trial of [data]."""
        wired, trial = self.wired(part), self.run.data.trial
        if wired is None or trial is None or not has_trials(type(wired.config)):
            return wired
        return self.wired(with_trial(self.problems, part, type(wired.config), trial))

    def add(self, part: Part, field: str, text: str) -> None:
        self.failed.add(part.role)
        path = (*part.path, field) if field else part.path
        self.problems.add(path, str(part), f"{field} {text}" if field else text)

    def call(self, wired: Wired, method: str, *given: Given) -> Any:
        """A wiring method, with the user's mistakes and the plugin's own told apart. Notes which
        weights it asks for."""

        def find_weights(value: str) -> str:
            path = _weights_path(value)
            self.weights[str(wired.part), path] = None
            return path

        given = tuple(
            attrs.evolve(one, find_weights=find_weights if one.find_weights else None)
            for one in given
        )
        try:
            return getattr(wired.config, method)(*given)
        except WiringError as error:
            self.add(wired.part, error.field, error.text)
        except ReidError as error:
            self.add(wired.part, "", str(error))
        except Exception as error:
            self.own_fault(wired, f"{method}()", error)
        return None

    def own_fault(self, wired: Wired, what: str, error: Exception | str) -> None:
        """A mistake of the plugin, not of the user."""
        self.failed.add(wired.part.role)
        owner = f"{wired.component.distribution} {wired.component.version}"
        text = error if isinstance(error, str) else in_words(error)
        self.broken.append(f"{wired.part}: {what} of {owner} failed: {text}")

    def done(self) -> None:
        if self.broken and not self.problems.texts:
            raise PluginError("\n".join(self.broken))
        self.problems.texts += self.broken
        self.problems.done()


def _weights_path(value: str) -> str:
    return str(find_data(value, "REID_WEIGHTS"))


def _find_weights(value: str) -> tuple[bool, str]:
    path = find_data(value, "REID_WEIGHTS")
    return path.is_file(), str(path)
