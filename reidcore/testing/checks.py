"""List of the checks that a plugin has to pass. Importing this imports no torch; the checks do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import attrs

from reidcore.plugins.commands import LoadedCommand
from reidcore.plugins.finding import CORE, find_plugins
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import PackagedRun, packaged_runs
from reidcore.plugins.registration import LoadedComponent
from reidcore.testing.check import Check
from reidcore.testing.failures import ConformanceError, NotChecked

_DRY = "sample runs dry"
_EVERY = ("settings are documented", "settings are frozen", _DRY)
_SIZES = "fits two picture sizes"
_SAVING = "state survives saving"
_ALONE = ("pictures do not mix", "computes in float64")
_GRADIENT = "every parameter gets a gradient"
_MOVES = "moves with the model"
_OUTPUTS = "outputs are as declared"
_LOSS = "forward changes nothing"
_MATCHER = (
    "tiles give the whole",
    "distances keep their promises",
    "distances have a gradient",
    "takes an empty gallery",
)
_POSTPROCESSOR = (
    "changes only the distances",
    "follows the gallery's order",
    "takes scored pairs alone into account",
    "names a missing column",
)
_PROCEDURE = "resumes to the same end"
_READER = "facts fit the rows"
_SAMPLER = "order follows from the generator"
_AUGMENTATION = "change follows from the generator"

CHECKS: dict[str, tuple[str, ...]] = {
    "backbone": (*_EVERY, _SIZES, _SAVING, _OUTPUTS, *_ALONE, _GRADIENT, _MOVES),
    "head": (*_EVERY, _SIZES, _SAVING, _OUTPUTS, *_ALONE, _GRADIENT, _MOVES),
    "loss": (*_EVERY, _SIZES, _SAVING, _LOSS, _GRADIENT, _MOVES),
    "matcher": (*_EVERY, _SIZES, _SAVING, *_MATCHER, *_ALONE, _MOVES),
    "postprocessor": (*_EVERY, _SIZES, *_POSTPROCESSOR),
    "procedure": (*_EVERY, _PROCEDURE),
    "reader": (*_EVERY, _READER),
    "sampler": (*_EVERY, _SAMPLER),
    "augmentation": (*_EVERY, _AUGMENTATION),
}
"""Kind of component -> the names of its checks."""

_FIRST: dict[str, tuple[str, ...]] = {
    "settings are documented": (),
    "settings are frozen": (),
    _DRY: ("settings are frozen",),
    _OUTPUTS: (_DRY, _SIZES),
    _SAVING: (_DRY, _MOVES, _LOSS),
    "takes an empty gallery": (_DRY, "tiles give the whole"),
}
"""Check -> those whose failure explains its own; of the others it is the dry run."""

_PACKAGE = ("packaging", "plugin module imports no torch", "plugin module imports quickly")
_OUTSIDE = "imports only the public modules of the core"
_RUN_FILE = "run file runs dry"
_COMMAND = ("has a summary and help",)
_INSTALLED = ("help is its own and imports no torch",)

_MODULES: dict[str, tuple[str, ...]] = {
    "packages": (*_PACKAGE, _OUTSIDE, _RUN_FILE),
    "every_kind": (*_EVERY, _SIZES),
    "modules": (_SAVING, *_ALONE, _GRADIENT, _MOVES),
    "features": (_OUTPUTS,),
    "losses": (_LOSS,),
    "matchers": _MATCHER,
    "postprocessors": _POSTPROCESSOR,
    "procedures": (_PROCEDURE,),
    "readers": (_READER,),
    "samplers": (_SAMPLER,),
    "augmentations": (_AUGMENTATION,),
    "commands": (*_COMMAND, *_INSTALLED),
}
"""Module of `reidcore.testing` -> the checks whose functions, named alike, are in it."""


def iter_checks(
    name: str, plugins: Plugins | None = None, known: Mapping[str, str] | None = None
) -> list[Check]:
    """Return the checks of the plugin `name`, in the order of its kinds; nothing is run yet.

    Checks of a reader use its data where the sample finds them, under REID_DATA, and are skipped
    without them.

    Args:
        name: Name of the plugin.
        plugins: Plugins to look it up in; by default those that are installed.
        known: Name of a check -> why it is known to fail. Such a check must fail, so that the list
            holds nothing that is mended.

    Returns:
        Checks to call, and to name by `str`.

    Raises:
        ReidError: The plugin is not installed or cannot be loaded.
        ValueError: `known` names a check that there is not.

    Example:
        >>> from reidcore.testing import iter_checks
        >>> checks = [check for check in iter_checks("core") if "core.flip" in str(check)]
        >>> print(checks[0])
        augmentation core.flip: settings are documented
        >>> checks[0]()
    """
    plugins = plugins if plugins is not None else Plugins()
    reasons = dict(known or {})
    checks = [
        attrs.evolve(check, known=reasons.pop(check.name)) if check.name in reasons else check
        for check in _checks(name, plugins)
    ]
    if reasons:
        raise ValueError(f"{name} has no check {next(iter(reasons))!r}")
    return checks


def _checks(name: str, plugins: Plugins) -> Iterator[Check]:
    plugin = plugins.load(name)
    installed = plugin.found in find_plugins()
    samples: dict[str, Check] = {}
    by_component = [
        _of_component_in_order(component, plugins, samples) for component in plugin.components
    ]
    if installed:
        for text in _PACKAGE if plugin.found == CORE else (*_PACKAGE, _OUTSIDE):
            yield Check(f"{name}: {text}", partial(_of_package, text, name, plugins))
        for run in packaged_runs(plugins, name):
            check = partial(_of_run_file, run, plugins)
            yield Check(f"{name}: run file {run.name} runs dry", check, samples=samples)
    for command in plugin.commands:
        for text in (*_COMMAND, *(_INSTALLED if installed else ())):
            function = partial(_of_command, text, command)
            yield Check(f"command {command.name}: {text}", function)
    for checks in by_component:
        yield from checks


def _of_component_in_order(
    component: LoadedComponent, plugins: Plugins, samples: dict[str, Check]
) -> list[Check]:
    """Return the checks of a component, and enter that of its sample in `samples`."""
    made: dict[str, Check] = {}

    def make(text: str) -> Check:
        if text not in made:
            earlier = [other for other in _FIRST.get(text, (_DRY,)) if other in texts]
            made[text] = Check(
                f"{component.kind} {component.name}: {text}",
                partial(_of_component, text, component, plugins),
                first=tuple(map(make, earlier)),
                samples=samples,
            )
        return made[text]

    texts = CHECKS[component.kind]
    checks = list(map(make, texts))
    samples[component.name] = made[_DRY]
    return checks


def check_plugin(
    name: str, plugins: Plugins | None = None, known: Mapping[str, str] | None = None
) -> None:
    """Run every check of a plugin.

    Args:
        name: Name of the plugin.
        plugins: Plugins to look it up in; by default those that are installed.
        known: Name of a check -> why it is known to fail, as for `iter_checks`.

    Raises:
        ConformanceError: Checks failed; the error lists all of them, but none that only follows
            from another.
        ReidError: The plugin is not installed or cannot be loaded.
        ValueError: `known` names a check that there is not.

    Example:
        >>> from reidcore.testing import check_plugin
        >>> check_plugin("spots")  # doctest: +SKIP
    """
    failures: list[str] = []
    for check in iter_checks(name, plugins, known):
        try:
            check()
        except NotChecked:
            continue
        except ConformanceError as error:
            failures += error.failures
    if failures:
        raise ConformanceError(*failures)


def _function(text: str) -> Callable[..., None]:
    """Return the function of a check, whose module imports torch."""
    (module,) = [module for module, texts in _MODULES.items() if text in texts]
    name = text.replace("'s", "").replace(" ", "_")
    return getattr(importlib.import_module(f"reidcore.testing.{module}"), name)


def _of_package(text: str, name: str, plugins: Plugins) -> None:
    _function(text)(plugins.load(name), plugins)


def _of_run_file(run: PackagedRun, plugins: Plugins) -> None:
    _function(_RUN_FILE)(run, plugins)


def _of_command(text: str, command: LoadedCommand) -> None:
    _function(text)(command)


def _of_component(text: str, component: LoadedComponent, plugins: Plugins) -> None:
    from reidcore.testing.samples import Sample

    _function(text)(Sample(component, plugins))
