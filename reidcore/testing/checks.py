"""List of the checks that a plugin has to pass. Importing this imports no torch; the checks do."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import attrs

from reidcore.errors import ReidError
from reidcore.plugins.commands import LoadedCommand
from reidcore.plugins.finding import CORE, find_plugins
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import PackagedRun, packaged_runs
from reidcore.plugins.registration import LoadedComponent
from reidcore.support.author_code import with_place
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


_NAMED = re.compile(r"\(([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\)")
"""A component in a message, as in "head 'cut' (example.stripes)"."""


@attrs.frozen
class Check:
    """One promise of one plugin or component. Calling it raises `ConformanceError` if it fails, and
    `NotChecked`, which pytest takes for a skipped test, if it cannot be judged.

    Args:
        name: Component and promise, such as "head spots.gem: state survives saving".
        function: Function without arguments that raises if the promise is broken.
        known: Reason why the check is known to fail; "" if it is not. A check that is known to fail
            raises if it passes, because then the list of known failures is wrong.
        first: Checks whose failure explains this one's. Where one of them fails, this one raises
            `NotChecked` in place of `ConformanceError`, so that one fault is told once.
        samples: Check of the sample of each component of the plugin, by the component's full name.
            A failure that names another component, whose sample fails, is explained by that.

    Example:
        >>> from reidcore.testing import Check
        >>> def fits():
        ...     raise ValueError("8 is not 9")
        >>> Check("head spots.gem: fits", fits)()
        Traceback (most recent call last):
        ...
        reidcore.testing.failures.ConformanceError: head spots.gem: fits: ValueError: 8 is not 9
    """

    name: str
    function: Callable[[], None]
    known: str = ""
    first: tuple[Check, ...] = attrs.field(default=(), repr=False, eq=False)
    samples: Mapping[str, Check] = attrs.field(factory=dict, repr=False, eq=False)
    _found: list[ConformanceError | None] = attrs.field(
        factory=list, init=False, repr=False, eq=False
    )

    def __call__(self) -> None:
        failure = self._failure()
        if failure is None and self.known:
            raise ConformanceError(
                f"{self.name}: it holds, though it is known to fail ({self.known}); take it off "
                "the list"
            )
        if failure is None or self.known:
            return
        if root := self._explanation():
            text = f"{self.name}: not judged, because this fails: {root.name}"
            raise NotChecked(text) from failure
        raise failure

    def _failure(self) -> ConformanceError | None:
        """Make the check, and return what it raises. Raises `NotChecked` if it cannot be made."""
        failure = None
        try:
            self.function()
        except NotChecked as error:
            raise NotChecked(f"{self.name}: {error}") from None
        except ConformanceError as error:
            failure = ConformanceError(f"{self.name}: {error}")
            failure.__context__, failure.__suppress_context__ = error, True
        except ReidError as error:
            failure = ConformanceError(f"{self.name}: {error}")
            failure.__cause__ = error
        except (Exception, SystemExit) as error:
            failure = ConformanceError(f"{self.name}: {with_place(error)}")
            failure.__cause__ = error
        self._found[:] = [failure]
        return failure

    def _explanation(self) -> Check | None:
        """Return the check whose failure explains that of this one; None if it is its own, or if
        the two explain each other."""
        path = [self.name]
        last = self
        while (other := last._explained_by()) is not None:
            if other.name in path:
                return None if other.name == self.name else other
            path.append(other.name)
            last = other
        return last if last is not self else None

    def _explained_by(self) -> Check | None:
        """Return the first check that fails and explains a failure of this one.

        A failure that names a component of this plugin is explained by that one's sample.
        """
        named = _NAMED.search(str(self._outcome()).removeprefix(f"{self.name}: "))
        check = self.samples.get(named[1]) if named else None
        for other in (*self.first, *([check] if check and check.name != self.name else [])):
            if other._outcome() is not None:
                return other
        return None

    def _outcome(self) -> ConformanceError | None:
        """Return how the check fails, which is found out once; None if it holds."""
        try:
            return self._found[0] if self._found else self._failure()
        except NotChecked:
            return None

    def __str__(self) -> str:
        return self.name


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
