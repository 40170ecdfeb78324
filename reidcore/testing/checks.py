"""Which checks a plugin has to pass. Importing this imports no torch; the checks do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial

import attrs

from reidcore.errors import ReidError
from reidcore.packaged import PackagedRun, packaged_runs
from reidcore.plugins import CORE, Plugins, find_plugins
from reidcore.registration import LoadedComponent, in_words

_EVERY = ("settings are documented", "sample runs dry")
_MODULE = ("fits two picture sizes", "state survives saving")
CHECKS: dict[str, tuple[str, ...]] = {
    "backbone": (*_EVERY, *_MODULE, "outputs are as declared"),
    "head": (*_EVERY, *_MODULE, "outputs are as declared"),
    "loss": (*_EVERY, *_MODULE, "forward changes nothing"),
    "matcher": (
        *_EVERY, *_MODULE, "tiles give the whole", "distances keep their promises",
        "distances have a gradient",
    ),
    "postprocessor": (
        *_EVERY, "fits two picture sizes", "changes only the distances",
        "follows the gallery's order",
    ),
    "procedure": (*_EVERY, "resumes to the same end"),
    "reader": (*_EVERY, "facts fit the rows"),
    "sampler": (*_EVERY, "order follows from the generator"),
    "augmentation": (*_EVERY, "change follows from the generator"),
}  # fmt: skip
"""Kind of component -> its checks. Each is a function of `reidcore.testing.parts` or `.others`."""

_PACKAGE = ("packaging", "plugin module imports no torch")
_OUTSIDE = ("imports only the public modules of the core",)


class ConformanceError(AssertionError):
    """What a plugin does not keep; `failures` has one text for each failed check."""

    def __init__(self, *failures: str):
        self.failures = failures
        super().__init__("\n".join(failures))


@attrs.frozen
class Check:
    """One promise of one plugin or component. Calling it raises `ConformanceError` if it fails."""

    name: str
    function: Callable[[], None]

    def __call__(self) -> None:
        try:
            self.function()
        except ConformanceError as error:
            raise ConformanceError(f"{self.name}: {error}") from None
        except ReidError as error:
            raise ConformanceError(f"{self.name}: {error}") from error
        except Exception as error:
            raise ConformanceError(f"{self.name}: {in_words(error)}") from error

    def __str__(self) -> str:
        return self.name


def iter_checks(name: str, plugins: Plugins | None = None) -> list[Check]:
    """The checks of the plugin `name`, in the order of its kinds; nothing is run yet.

    Checks of a reader use its data where the sample finds them (under REID_DATA) and hold without
    them. Raises `ReidError` if the plugin is not installed or cannot be loaded.
    """
    plugins = plugins if plugins is not None else Plugins()
    return list(_checks(name, plugins))


def _checks(name: str, plugins: Plugins) -> Iterator[Check]:
    plugin = plugins.load(name)
    if plugin.found in find_plugins():
        for text in (*_PACKAGE, *(() if plugin.found == CORE else _OUTSIDE)):
            yield Check(f"{name}: {text}", partial(_of_package, text, name, plugins))
        for run in packaged_runs(plugins, name):
            check = partial(_of_run_file, run, plugins)
            yield Check(f"{name}: run file {run.name} runs dry", check)
    for component in plugin.components:
        for text in CHECKS[component.kind]:
            function = partial(_of_component, text, component, plugins)
            yield Check(f"{component.kind} {component.name}: {text}", function)


def check_plugin(name: str, plugins: Plugins | None = None) -> None:
    """Runs every check of the plugin. Raises one `ConformanceError` that lists all that failed."""
    failures: list[str] = []
    for check in iter_checks(name, plugins):
        try:
            check()
        except ConformanceError as error:
            failures += error.failures
    if failures:
        raise ConformanceError(*failures)


def _function(module: str, text: str) -> Callable[..., None]:
    name = text.replace("gallery's", "gallery").replace(" ", "_").lower()
    found = getattr(importlib.import_module(f"reidcore.testing.{module}"), name)
    assert callable(found)
    return found


def _of_package(text: str, name: str, plugins: Plugins) -> None:
    _function("packages", text)(plugins.load(name), plugins)


def _of_run_file(run: PackagedRun, plugins: Plugins) -> None:
    _function("packages", "run file runs dry")(run, plugins)


def _of_component(text: str, component: LoadedComponent, plugins: Plugins) -> None:
    from reidcore.testing.stands import Stand

    every = text in (*_EVERY, _MODULE[0])
    alone = component.kind in ("backbone", "head", "loss", "matcher")
    module = "every" if every else "parts" if alone else "others"
    _function(module, text)(Stand(component, plugins))
