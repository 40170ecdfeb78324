"""Loads the components of a run file and checks their settings. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.settings import CHECKPOINTS, NAMED_WEIGHTS
from reidcore.contracts.trained_run import TrainedRun
from reidcore.contracts.wiring_methods import call_wiring, check_as_written
from reidcore.data.manifest import find_data
from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.plugin_status import LoadedPlugin
from reidcore.plugins.registration import LoadedComponent
from reidcore.plugins.weights import LoadedWeights
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, RunFile
from reidcore.runfiles.strict import structure
from reidcore.support.author_code import with_place
from reidcore.support.wording import few
from reidcore.wiring.blame import cause
from reidcore.wiring.plan import Wired
from reidcore.wiring.references import reachable_heads
from reidcore.wiring.trials import has_trials, with_trial

Purpose = Literal["train", "eval", "rank"]


class PartLoader:
    """Loads a run's parts and calls their wiring methods; collects every problem on the way.

    problems: mistakes in the run file. broken: mistakes of plugins, each with the parts that it
    stops. failed: roles of parts that have either. distributions: version by distribution.
    weights: (part, path) of each file of weights that a part asks for. published: by path, those
    of them that a plugin names. named: the paths of these by the names that run files use.
    teachers: the trained run, None if there is none, by (part, folder as the run file names it).
    find: looks up a trained run.
    """

    def __init__(
        self,
        run: RunFile,
        plugins: Plugins,
        find: Callable[[str], TrainedRun | None] | None = None,
    ):
        self.run = run
        self.plugins = plugins
        self.problems = Problems(run.path, run.lines)
        self.broken: dict[str, list[str]] = {}
        self.failed: set[str] = set()
        self.distributions: dict[str, str] = {}
        self.weights: dict[tuple[str, str], None] = {}
        self.teachers: dict[tuple[str, str], TrainedRun | None] = {}
        self._find = find
        self._runs: dict[str, TrainedRun | None] = {}
        self.published: dict[str, LoadedWeights] = {}
        self.named: dict[str, str] = {}

    def load(self, part: Part) -> Wired | None:
        """Return the part with its settings, or None after noting the problem."""
        component = self._component(part)
        if component is None:
            return None
        try:
            config, faults = structure(component.component.config, part.table, part.core_keys)
            if config is not None:
                check_as_written(config, part.table)
        except (Exception, SystemExit) as error:
            self.blame_plugin(Wired(part, component, None), "its settings class", error)
            return None
        self.problems.add_faults(part.path, str(part), faults)
        if config is None:
            self.failed.add(part.role)
            return None
        return Wired(part, component, config)

    def load_all(self, parts: Sequence[Part]) -> list[Wired]:
        """Return those of the parts that can be loaded."""
        return [wired for part in parts if (wired := self.load(part)) is not None]

    def load_reader(self, part: Part) -> Wired | None:
        """Return a reader with its settings, among them the trial that [data] names."""
        wired, trial = self.load(part), self.run.data.trial
        if wired is None or trial is None or not has_trials(type(wired.config)):
            return wired
        return self.load(with_trial(self.problems, part, type(wired.config), trial))

    def load_observers(self) -> dict[str, Any]:
        """Import the plugins that the run file's key `plugins` names; return the settings of each,
        None of one that takes none."""
        settings: dict[str, Any] = {}
        for name in self.run.plugins:
            try:
                self.plugins.observers([name])
                plugin = self.plugins.load(name)
                self.distributions[plugin.found.distribution] = plugin.found.version
                settings[name] = self._settings_of(plugin)
            except PluginError as error:
                self.broken.setdefault(str(error), [])
            except UsageError as error:
                self.problems.add(("plugins",), "key 'plugins'", str(error))
        return settings

    def _settings_of(self, plugin: LoadedPlugin) -> Any:
        """Return the settings of an observer, None if it takes none or after noting a problem."""
        name = plugin.found.name
        table = self.run.watching.get(name)
        if plugin.settings is None:
            if table is not None:
                self.problems.add((name,), f"[{name}]", f"plugin {name!r} takes no settings")
            return None
        try:
            made, faults = structure(plugin.settings, table or {})
            if made is not None:
                check_as_written(made, table or {})
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {plugin.found}: its settings class {with_place(error)}"
            ) from error
        self.problems.add_faults((name,), f"[{name}]", faults)
        return made

    def trained_run(self, value: str) -> TrainedRun | None:
        """Return the trained run in a folder, the same one for all parts; None if it is not there.

        Raises ReidError if it cannot teach.
        """
        if value not in self._runs:
            self._runs[value] = self._find(value) if self._find is not None else None
        return self._runs[value]

    def _component(self, part: Part) -> LoadedComponent | None:
        try:
            component = self.plugins.component(part.kind, part.use)
            self.distributions[component.distribution] = component.version
            return component
        except PluginError as error:
            self._break(str(part), str(error))
        except UsageError as error:
            key = "read" if part.kind == "reader" else "use"
            self.problems.add((*part.path, key), str(part), str(error))
        self.failed.add(part.role)
        return None

    def call(self, wired: Wired, method: str, *given: Any) -> Any:
        """Call a wiring method; None, after noting the problem, if it raises.

        What is the user's mistake and what the plugin's is told apart by the exception.
        """

        def find_weights(value: str) -> str:
            if not value.endswith(CHECKPOINTS) and NAMED_WEIGHTS.fullmatch(value):
                found = self.plugins.published_weights(value)
                self.published[str(found.path)] = found
                self.named[value] = str(found.path)
            path = weights_path(self.named, value)
            self.weights[str(wired.part), path] = None
            return path

        def find_run(value: str) -> TrainedRun | None:
            self.teachers[str(wired.part), value] = None
            self.teachers[str(wired.part), value] = found = self.trained_run(value)
            return found

        given = tuple(
            attrs.evolve(
                one,
                find_weights=find_weights if one.find_weights else None,
                find_run=find_run if one.find_run else None,
            )
            if isinstance(one, Given)
            else one
            for one in given
        )
        try:
            return call_wiring(wired.part.kind, wired.config, method, *given)
        except WiringError as error:
            self.refuse(wired.part, error.field, error.text)
        except ReidError as error:
            self.refuse(wired.part, "", str(error))
        except (Exception, SystemExit) as error:
            self.blame_plugin(wired, f"{method}()", error)
        return None

    def licences(self) -> list[str]:
        """Return a remark on every file of weights that a plugin names."""
        named = [
            (part, self.published[path]) for part, path in self.weights if path in self.published
        ]
        return [
            f"{part} starts from {one.name}, whose licence is {one.weights.licence}"
            for part, one in named
        ]

    def refuse(self, part: Part, field: str, text: str) -> None:
        """Note a mistake in the part's table; `field` is its key, "" if it is no single one."""
        self.failed.add(part.role)
        path = (*part.path, field) if field else part.path
        self.problems.add(path, str(part), f"{field} {text}" if field else text)

    def blame_plugin(self, wired: Wired, what: str, error: BaseException) -> None:
        """Note a mistake of the plugin that the part comes from, as in "outputs() failed"."""
        self.failed.add(wired.part.role)
        self._break(str(wired.part), f"{what} of {wired.owner} failed: {cause(error)}")

    def _break(self, part: str, text: str) -> None:
        """Note a mistake of a plugin that stops this part, and perhaps others."""
        parts = self.broken.setdefault(text, [])
        parts += [part] * (part not in parts)

    def raise_problems(self) -> None:
        """Raise `RunFileError` with every problem; `PluginError` if only plugins are at fault."""
        broken = [f"{few(parts)}: {text}" if parts else text for text, parts in self.broken.items()]
        if broken and not self.problems.texts:
            raise PluginError("\n".join(broken))
        self.problems.texts += broken
        self.problems.raise_any()


@attrs.frozen
class LoadedParts:
    """The parts of a run that could be loaded, in the run file's order."""

    backbone: Wired | None
    heads: Sequence[Wired]
    matchers: Sequence[Wired]
    losses: Sequence[Wired]
    posts: Sequence[Wired]
    batch: Wired | None
    augment: Sequence[Wired]
    procedure: Wired | None


def load_parts(loader: PartLoader, purpose: Purpose) -> LoadedParts:
    """Load what `purpose` needs: all for training, else what the rankings reach."""
    run = loader.run
    train = purpose == "train"
    used = {name for ranking in run.rankings for name in ranking.matchers}
    matchers = [part for part in run.of("matcher") if train or not used or part.name in used]
    heads = loader.load_all(run.of("head") if train else reachable_heads(run, matchers))
    backbone = next((loader.load(part) for part in run.of("backbone")), None)
    return LoadedParts(
        heads=heads,
        backbone=backbone,
        matchers=loader.load_all(matchers),
        losses=loader.load_all(run.of("loss") if train else []),
        posts=loader.load_all(run.of("post")),
        augment=loader.load_all(run.augment if train else []),
        batch=loader.load(run.batch) if train and run.batch is not None else None,
        procedure=loader.load(run.procedure) if train and run.train.epochs > 0 else None,
    )


def weights_path(named: Mapping[str, str], value: str) -> str:
    """Return the absolute path of a file of weights: one that is `named`, or is looked up under
    REID_WEIGHTS."""
    return named.get(value) or str(find_data(value, "REID_WEIGHTS"))


def find_weights(value: str) -> tuple[bool, str]:
    """Return whether a file under REID_WEIGHTS exists, and its absolute path."""
    path = find_data(value, "REID_WEIGHTS")
    return os.path.isfile(path), str(path)
