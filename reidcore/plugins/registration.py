"""The kinds of components that plugins register, the checks of one, and where it came from.

Neither torch nor numpy is imported before `build_function` resolves what a component names.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import attrs
import pluggy

from reidcore import hookspecs
from reidcore.contracts.component import Component
from reidcore.errors import PluginError, nearest
from reidcore.support.author_code import with_place
from reidcore.support.wording import a_or_an, one_line

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9_]*")
_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
REFERENCE = re.compile(f"{_DOTTED}:{_DOTTED}")
"""Text such as "package.module:function"."""


@attrs.frozen
class KindRule:
    """The core's demands on one kind of component.

    hook: registers it. methods: wiring methods its config must have. reserved: keys of its table
    that belong to the core, so that no setting may be called so.
    """

    hook: str
    methods: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ("use", "name")

    @property
    def plural(self) -> str:
        return self.hook.removeprefix("reid_")


KINDS: Mapping[str, KindRule] = {
    "backbone": KindRule("reid_backbones", ("outputs",)),
    "head": KindRule("reid_heads", ("outputs",)),
    "loss": KindRule("reid_losses", ("check",), ("use", "name", "weight")),
    "matcher": KindRule("reid_matchers", ("describe",)),
    "postprocessor": KindRule("reid_postprocessors", ("check",)),
    "procedure": KindRule("reid_procedures", ("check",)),
    "reader": KindRule("reid_readers", ("facts", "rows"), ("read", "root", "splits", "protocol")),
    "sampler": KindRule("reid_samplers", ("check", "batch")),
    "augmentation": KindRule("reid_augmentations"),
}
OBSERVERS = ("reid_run_started", "reid_epoch_ended", "reid_run_ended")
SETTINGS_HOOK = "reid_observer_settings"
COMMANDS_HOOK = "reid_commands"
WEIGHTS_HOOK = "reid_weights"
HOOKS = (
    *(rule.hook for rule in KINDS.values()),
    *(COMMANDS_HOOK, WEIGHTS_HOOK, SETTINGS_HOOK),
    *OBSERVERS,
)


@attrs.frozen(order=True)
class Found:
    """One entry point of a plugin, known from metadata alone.

    value: the module that the entry point names, empty where entry points cannot be read. requires:
    the distribution's requirements of reidcore, as written. problem: what is wrong with the
    metadata.
    """

    name: str
    value: str
    distribution: str
    version: str
    group: str = hookspecs.GROUP
    requires: tuple[str, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@attrs.frozen
class LoadedComponent:
    """A component with where it comes from; `name` is the full name, `plugin.component`."""

    kind: str
    name: str
    found: Found
    component: Component

    @property
    def plugin(self) -> str:
        return self.found.name

    @property
    def distribution(self) -> str:
        return self.found.distribution

    @property
    def version(self) -> str:
        return self.found.version


def build_function(component: LoadedComponent) -> Callable[[Any, Any], Any]:
    """The function `build(config, context)` that the component names, imported now.

    A reader without one is its own config.
    """
    reference = component.component.build
    if not reference:
        return lambda config, context: config
    what = (
        f"{component.kind} {component.component.name!r} ({component.name}) of plugin "
        f"{component.found} names the function {reference!r}, which"
    )
    try:
        function = pkgutil.resolve_name(reference)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        near = _nearest_function(reference) or "."
        raise PluginError(f"{what} could not be imported: {with_place(error)}{near}") from error
    if not callable(function):
        raise PluginError(f"{what} cannot be called: it is {a_or_an(type(function).__name__)}.")
    return function


def _nearest_function(reference: str) -> str:
    """Return the end of a message that suggests a name in the module of "package.module:name"."""
    module, _, name = reference.partition(":")
    return nearest(name, vars(sys.modules[module])) if module in sys.modules else ""


class Refused(Exception):
    """A plugin was imported, but what it registers is not well formed."""

    def __init__(self, problems: Iterable[str]):
        super().__init__("; ".join(problems))


def hook_manager() -> pluggy.PluginManager:
    """An empty plugin manager that knows the hooks."""
    manager = pluggy.PluginManager("reid")
    manager.add_hookspecs(hookspecs)
    return manager


def returned_by_hook(
    manager: pluggy.PluginManager, hook: str, wanted: type[T], plural: str
) -> Iterator[T]:
    """Yield what the one plugin of a manager returns from a hook.

    Raises Refused if the hook raises, or returns anything else than a list of `wanted`, which a
    message calls by `plural`.
    """
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        try:
            returned = implementation.function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Refused([f"hook {hook} raised {with_place(error)}"]) from error
        if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
            text = f"hook {hook} returned {a_or_an(type(returned).__name__)}"
            raise Refused([f"{text}, not a list of {plural}"])
        for one in returned:
            if not isinstance(one, wanted):
                text = f"hook {hook} returned a list with {a_or_an(type(one).__name__)}"
                raise Refused([f"{text}, not with {plural} only"])
            yield one


class Named(Protocol):
    """What a hook lists by a name."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def named_by_hook(
    found: Found,
    module: Any,
    hook: str,
    wanted: type[N],
    plural: str,
    problems_of: Callable[[N], Iterable[str]],
) -> list[N]:
    """Return what an imported plugin, whose hooks are known to be sound, lists by a hook, sorted by
    name. Raises Refused with everything that is wrong, `problems_of` each included."""
    manager = hook_manager()
    manager.register(module, found.name)
    every: dict[str, N] = {}
    problems: list[str] = []
    for one in returned_by_hook(manager, hook, wanted, plural):
        problems += problems_of(one)
        if one.name in every:
            problems.append(f"{one.name!r} is registered twice among its {plural}")
        every[one.name] = one
    if problems:
        raise Refused(problems)
    return [every[name] for name in sorted(every)]


def classify(found: Found, module: Any) -> tuple[tuple[LoadedComponent, ...], tuple[str, ...]]:
    """All components of an imported plugin and the observer hooks it has.

    Each plugin gets a manager of its own: one that fails half-way leaves nothing behind.
    """
    manager = hook_manager()
    problems = list(_hook_problems(manager, module))
    if problems:
        raise Refused(problems)
    try:
        manager.register(module, found.name)
    except pluggy.PluginValidationError as error:
        raise Refused([one_line(error)]) from error
    components: dict[str, LoadedComponent] = {}
    for kind, rule in KINDS.items():
        for one in returned_by_hook(manager, rule.hook, Component, "components"):
            full_name = f"{found.name}.{one.name}"
            problems += _component_problems(kind, full_name, one)
            if full_name in components:
                kinds = f"as {a_or_an(components[full_name].kind)} and as {a_or_an(kind)}"
                problems.append(f"{full_name!r} is registered twice, {kinds}")
            components[full_name] = LoadedComponent(kind, full_name, found, one)
    if problems:
        raise Refused(problems)
    order = list(KINDS)
    ordered = sorted(components.values(), key=lambda one: (order.index(one.kind), one.name))
    observes = tuple(hook for hook in OBSERVERS if getattr(manager.hook, hook).get_hookimpls())
    return tuple(ordered), observes


def _hook_problems(manager: pluggy.PluginManager, module: Any) -> Iterable[str]:
    marked = False
    for attribute in dir(module):
        options = manager.parse_hookimpl_opts(module, attribute)
        if options is None:
            if attribute in HOOKS:
                yield f"{attribute} is not marked with reidcore.api.hookimpl"
            continue
        marked = True
        hook = options.get("specname") or attribute
        if hook not in HOOKS and not options.get("optionalhook"):
            yield f"unknown hook {hook!r}{nearest(hook, HOOKS)}"
        if hook in HOOKS:
            yield from _argument_problems(hook, getattr(module, attribute))
        if options.get("wrapper") or options.get("hookwrapper"):
            yield f"hook {hook} is a wrapper, which no hook of reidcore may be"
    if not marked:
        yield "it has no function marked with reidcore.api.hookimpl"


def _argument_problems(hook: str, function: Callable[..., Any]) -> Iterable[str]:
    """Yield what a hook's function asks for and is not given; pluggy leaves out what it lacks."""
    given = inspect.signature(getattr(hookspecs, hook)).parameters
    try:
        asked = inspect.signature(function).parameters.values()
    except ValueError:  # Of some functions in C.
        return
    for one in asked:
        needed = one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        if needed and one.name not in given:
            has = f"Its arguments are {', '.join(given)}." if given else "It has none."
            near = nearest(one.name, given) or "."
            yield f"hook {hook} has no argument {one.name!r}{near} {has}"


def _component_problems(kind: str, full_name: str, component: Component) -> Iterable[str]:
    rule = KINDS[kind]
    what = f"{kind} {full_name!r}"
    if not isinstance(component.name, str) or not NAME.fullmatch(component.name):
        yield f"{what} has a name that does not match {NAME.pattern}"
    build = component.build
    if not isinstance(build, str) or not (
        REFERENCE.fullmatch(build) or (build == "" and kind == "reader")
    ):
        yield f"{what} has build={build!r}, not 'package.module:function'"
    config = component.config
    if not isinstance(config, type) or not attrs.has(config):
        yield f"{what} has a config that is no attrs class: {config!r}; write @attrs.frozen"
        return
    for method in rule.methods:
        if not callable(getattr(config, method, None)):
            yield f"{what} has a config {config.__name__} without the method {method}"
    for field in attrs.fields(config):
        if field.name in rule.reserved:
            yield f"{what} has a setting {field.name!r}, a key that belongs to the core"
