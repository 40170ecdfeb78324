"""Which checks a plugin has to pass. Importing this imports no torch; the checks do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import attrs

from reidcore.errors import ReidError
from reidcore.plugins.commands import LoadedCommand
from reidcore.plugins.loading import CORE, Plugins, find_plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.plugins.run_files import PackagedRun, packaged_runs
from reidcore.support.wording import in_words
from reidcore.testing.failures import ConformanceError

_EVERY = ("settings are documented", "sample runs dry")
_MODULE = ("fits two picture sizes", "state survives saving")
_NETWORK = (
    "pictures do not mix",
    "computes in float64",
    "every parameter gets a gradient",
    "moves with the model",
)
CHECKS: dict[str, tuple[str, ...]] = {
    "backbone": (*_EVERY, *_MODULE, "outputs are as declared", *_NETWORK),
    "head": (*_EVERY, *_MODULE, "outputs are as declared", *_NETWORK),
    "loss": (*_EVERY, *_MODULE, "forward changes nothing", *_NETWORK[2:]),
    "matcher": (
        *_EVERY,
        *_MODULE,
        "tiles give the whole",
        "distances keep their promises",
        "distances have a gradient",
        "takes an empty gallery",
        *_NETWORK[:2],
        _NETWORK[3],
    ),
    "postprocessor": (
        *_EVERY,
        "fits two picture sizes",
        "changes only the distances",
        "follows the gallery's order",
        "names a missing column",
    ),
    "procedure": (*_EVERY, "resumes to the same end"),
    "reader": (*_EVERY, "facts fit the rows"),
    "sampler": (*_EVERY, "order follows from the generator"),
    "augmentation": (*_EVERY, "change follows from the generator"),
}
"""Kind of component -> its checks, each a function of a module of `reidcore.testing`."""

_PACKAGE = ("packaging", "plugin module imports no torch")
_OUTSIDE = ("imports only the public modules of the core",)
_COMMAND = ("has a summary and help",)
_INSTALLED = ("help is its own and imports no torch",)


@attrs.frozen
class Check:
    """One promise of one plugin or component. Calling it raises `ConformanceError` if it fails.

    known: why it is known to fail, "" if it is not. Then calling it raises only if it does not
    fail, because what is known is wrong.
    """

    name: str
    function: Callable[[], None]
    known: str = ""

    def __call__(self) -> None:
        if not self.known:
            return self._run()
        try:
            self._run()
        except ConformanceError:
            return None
        raise ConformanceError(
            f"{self.name}: it holds, though it is known to fail ({self.known}); take it off the "
            "list"
        )

    def _run(self) -> None:
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


def iter_checks(
    name: str, plugins: Plugins | None = None, known: Mapping[str, str] | None = None
) -> list[Check]:
    """The checks of the plugin `name`, in the order of its kinds; nothing is run yet.

    known: {name of a check: why it is known to fail}. Such a check must fail, and a name that there
    is not raises ValueError, so that the list holds nothing that is mended. Checks of a reader use
    its data where the sample finds them (under REID_DATA) and hold without them. Raises `ReidError`
    if the plugin is not installed or cannot be loaded.
    """
    plugins = plugins if plugins is not None else Plugins()
    reasons = dict(known or {})
    checks = [
        attrs.evolve(check, known=reasons.pop(check.name, "")) for check in _checks(name, plugins)
    ]
    if reasons:
        raise ValueError(f"{name} has no check {next(iter(reasons))!r}")
    return checks


def _checks(name: str, plugins: Plugins) -> Iterator[Check]:
    plugin = plugins.load(name)
    installed = plugin.found in find_plugins()
    if installed:
        for text in (*_PACKAGE, *(() if plugin.found == CORE else _OUTSIDE)):
            yield Check(f"{name}: {text}", partial(_of_package, text, name, plugins))
        for run in packaged_runs(plugins, name):
            check = partial(_of_run_file, run, plugins)
            yield Check(f"{name}: run file {run.name} runs dry", check)
    for command in plugin.commands:
        for text in (*_COMMAND, *(_INSTALLED if installed else ())):
            function = partial(_of_command, text, command)
            yield Check(f"command {command.name}: {text}", function)
    for component in plugin.components:
        for text in CHECKS[component.kind]:
            function = partial(_of_component, text, component, plugins)
            yield Check(f"{component.kind} {component.name}: {text}", function)


def check_plugin(
    name: str, plugins: Plugins | None = None, known: Mapping[str, str] | None = None
) -> None:
    """Runs every check of the plugin. Raises one `ConformanceError` that lists all that failed."""
    failures: list[str] = []
    for check in iter_checks(name, plugins, known):
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


def _of_command(text: str, command: LoadedCommand) -> None:
    _function("commands", text)(command)


def _of_component(text: str, component: LoadedComponent, plugins: Plugins) -> None:
    from reidcore.testing.stands import Stand

    every = text in (*_EVERY, _MODULE[0])
    alone = component.kind in ("backbone", "head", "loss", "matcher")
    module = "every" if every else "parts" if alone else "others"
    if text in (*_NETWORK, "takes an empty gallery"):
        module = "modules"
    _function(module, text)(Stand(component, plugins))
