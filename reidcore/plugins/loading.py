"""Installed plugins: found from metadata, loaded one by one, classified into components.

Finding reads metadata only. Loading imports one plugin, and only when somebody asks for it; what
goes wrong is kept as the plugin's `Status`, so that a broken plugin is a row in `reid plugins` and
an error only for the run that names it. Neither torch nor numpy is imported here.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import pluggy

from reidcore import hookspecs
from reidcore.errors import PluginError, UsageError, nearest
from reidcore.plugins.commands import LoadedCommand, registered_commands
from reidcore.plugins.finding import CORE, find_plugins, is_nearly_ours, normalized
from reidcore.plugins.observers import observer_settings
from reidcore.plugins.plugin_status import LoadedPlugin, Status, broken, unfit
from reidcore.plugins.registration import (
    KINDS,
    NAME,
    OBSERVERS,
    Found,
    LoadedComponent,
    Refused,
    classify,
    hook_manager,
)
from reidcore.plugins.weights import LoadedWeights, registered_weights
from reidcore.support.author_code import with_place
from reidcore.support.installing import how_to_install
from reidcore.support.wording import a_or_an, few, one_line_of


class Observers(NamedTuple):
    """The three observer hooks, each called with keyword arguments."""

    run_started: pluggy.HookCaller
    epoch_ended: pluggy.HookCaller
    run_ended: pluggy.HookCaller


class Plugins:
    """The plugins of this process: an object that is passed down, never a global.

    Without `found` the installed plugins are looked up. Nothing is imported before a plugin is
    asked for by name, and each is imported once. The built-in plugin `core` is always there.
    """

    def __init__(self, found: Iterable[Found] | None = None):
        self._claims: dict[str, list[Found]] = {CORE.name: [CORE]}
        self._refused: list[Status] = []
        self._added: dict[str, Any] = {}
        self._statuses: dict[str, Status] = {}
        every = sorted({*(find_plugins() if found is None else found)} - {CORE})
        proper = {one.name for one in every if one.value and not is_nearly_ours(one.group)}
        for one in every:
            if not one.value or (is_nearly_ours(one.group) and one.name in {*proper, CORE.name}):
                # Whatever it may be, it does not take a name from a plugin that is sound.
                self._refused.append(unfit((one,), one))
            elif one.name != CORE.name:
                self._claims.setdefault(one.name, []).append(one)
            elif normalized(one.distribution) != CORE.distribution:
                message = (
                    f"plugin name 'core' belongs to reidcore itself, but {one.distribution} "
                    f"{one.version} claims it; uninstall that."
                )
                self._refused.append(Status(one.name, "twin", (one,), message))

    def add(self, name: str, module: Any, distribution: str = "", version: str = "0") -> None:
        """Add a plugin that is not installed, as tests do. `module` is any object with hook
        functions; it takes the place of an installed plugin of that name."""
        if name in self._statuses:
            raise ValueError(f"plugin {name!r} is loaded already")
        distribution = distribution or f"reid-plugin-{name.replace('_', '-')}"
        value = getattr(module, "__name__", type(module).__name__)
        self._claims[name] = [Found(name, value, distribution, version)]
        self._added[name] = module

    def names(self) -> list[str]:
        """All plugin names, usable or not, sorted."""
        return sorted(self._claims)

    def status(self, name: str) -> Status:
        """Return the status of the plugin, which is imported unless its metadata decide it."""
        if name not in self._claims:
            for refused in self._refused:
                if refused.name == name:
                    return refused
            cure = how_to_install(f"reid-plugin-{name.replace('_', '-')}")
            raise UsageError(
                f"plugin {name!r} is not installed{nearest(name, self.names()) or '.'} "
                f"Installed plugins: {', '.join(self.names())}. "
                f"To install it: {cure}{self._hidden()}"
            )
        if name not in self._statuses:
            self._statuses[name] = self._examine(name)
        return self._statuses[name]

    def _hidden(self) -> str:
        """The end of a message about a plugin that was not found: where it may be all the same."""
        unreadable = [one.name for one in self._refused if not one.found[0].value]
        if not unreadable:
            return ""
        return (
            f". It may be in a package that cannot be read, see `reid plugins`: {few(unreadable)}"
        )

    def rows(self) -> list[Status]:
        """The status of every plugin, sorted by name; imports all of them."""
        rows = [*map(self.status, self.names()), *self._refused]
        return sorted(rows, key=lambda row: row.name)

    def load(self, name: str) -> LoadedPlugin:
        """The plugin, imported and checked.

        Raises UsageError if there is none of that name, PluginError if it cannot be used.
        """
        status = self.status(name)
        if status.plugin is None:
            raise PluginError(status.message) from status.cause
        return status.plugin

    def component(self, kind: str, full_name: str) -> LoadedComponent:
        """The component of this kind and full name; a deprecated one warns."""
        rule = KINDS[kind]
        plugin, _, short = full_name.partition(".")
        if not plugin or not short or "." in short:
            self._refuse_form(kind, full_name)
        loaded = self.load(plugin)
        of_kind = [one.name for one in loaded.components if one.kind == kind]
        listing = f"{rule.plural.capitalize()} of {plugin}: {', '.join(of_kind) or 'none'}."
        for one in loaded.components:
            if one.name != full_name:
                continue
            if one.kind != kind:
                raise UsageError(
                    f"{full_name!r} is {a_or_an(one.kind)}, not {a_or_an(kind)}. {listing}"
                )
            if one.component.deprecated:
                text = f"{kind} {full_name} is deprecated: {one.component.deprecated}"
                warnings.warn(text, FutureWarning, stacklevel=2)
            return one
        near = nearest(short, (name.partition(".")[2] for name in of_kind)) or "."
        raise UsageError(f"plugin {plugin!r} has no {kind} {short!r}{near} {listing}")

    def _refuse_form(self, kind: str, full_name: str) -> NoReturn:
        """Complain about a name without its plugin, as `cosine`, with the full name if one of the
        plugins at hand has it."""
        self.status(CORE.name)
        usable = [status.plugin for status in self._statuses.values() if status.plugin]
        meant = sorted(
            one.name
            for plugin in usable
            for one in plugin.components
            if one.kind == kind and one.component.name == full_name
        )
        suggestion = f", did you mean {' or '.join(map(repr, meant))}?" if meant else "."
        key, found = "read" if kind == "reader" else "use", one_line_of(repr(full_name))
        raise UsageError(f"{key} = {found} is not of the form plugin.component{suggestion}")

    def components(
        self, kind: str | None = None, plugin: str | None = None
    ) -> list[LoadedComponent]:
        """The components of one kind, of one plugin, of both, or all, sorted by plugin, kind and
        name. Without `plugin`, plugins that cannot be used are left out."""
        if plugin is not None:
            usable: list[LoadedPlugin | None] = [self.load(plugin)]
        else:
            usable = [self.status(name).plugin for name in self.names()]
        every = [one for loaded in usable if loaded for one in loaded.components]
        return [one for one in every if kind in (None, one.kind)]

    def published_weights(self, full_name: str) -> LoadedWeights:
        """The weights "plugin:name". Raises UsageError where the plugin names none of that name."""
        plugin, _, name = full_name.partition(":")
        known = {one.weights.name: one for one in self.load(plugin).weights}
        if name not in known:
            near = nearest(name, known) or "."
            text = f"plugin {plugin!r} names no weights {name!r}{near}"
            raise UsageError(f"{text} It names {', '.join(known) or 'none'}.")
        return known[name]

    def commands(self) -> list[LoadedCommand]:
        """The commands that plugins bring, sorted by plugin and name; several may have one name.
        Plugins that cannot be used are left out, and the core, whose commands are in its cli."""
        usable = [self.status(name).plugin for name in self.names() if name != CORE.name]
        return [command for loaded in usable if loaded for command in loaded.commands]

    def observers(self, names: Iterable[str]) -> Observers:
        """The observer hooks of these plugins only, called in this order."""
        manager = hook_manager()
        for name in reversed(list(dict.fromkeys(names))):
            plugin = self.load(name)
            if not plugin.observes:
                raise UsageError(
                    f"plugin {name!r} observes nothing (it has none of {', '.join(OBSERVERS)}); "
                    "remove it from 'plugins'. Components need no entry there."
                )
            manager.register(plugin.module, name)
        return Observers(*(getattr(manager.hook, hook) for hook in OBSERVERS))

    def _examine(self, name: str) -> Status:
        claims = tuple(self._claims[name])
        owners = {normalized(one.distribution): one.distribution for one in claims}
        if len(owners) > 1:
            claimants = " and by ".join(sorted(owners.values()))
            cure = "uninstall one" if len(owners) == 2 else "keep one of them"
            text = f"plugin name {name!r} is claimed by {claimants}; {cure}."
            return Status(name, "twin", claims, text)
        spoken = [one for one in claims if one.group == hookspecs.GROUP]
        if not spoken and any(is_nearly_ours(one.group) for one in claims):
            return unfit(claims, claims[0])
        if not spoken:
            groups = " and ".join(repr(one.group) for one in claims)
            text = (
                f"plugin {claims[0]} speaks {groups}; this core speaks {hookspecs.GROUP!r}. "
                "Upgrade one of them."
            )
            return Status(name, "other API", claims, text)
        if spoken[0].problem:
            return unfit(claims, spoken[0])
        if len(spoken) > 1:
            values = " and as ".join(one.value for one in spoken)
            return broken(claims, spoken[0], f"is declared twice, as {values}")
        if not NAME.fullmatch(name):
            return broken(claims, spoken[0], f"has a name that does not match {NAME.pattern}")
        return self._load(claims, spoken[0])

    def _load(self, claims: tuple[Found, ...], found: Found) -> Status:
        had_torch = "torch" in sys.modules
        started = time.perf_counter()
        try:
            added = found.name in self._added
            module = self._added[found.name] if added else _import(found.value)
            components, observes = classify(found, module)
            commands = registered_commands(found, module)
            settings = observer_settings(found, module)
            weights = registered_weights(found, module)
        except Refused as refused:
            problem = f"breaks the contract of its hooks: {refused}"
            return broken(claims, found, problem, refused.__cause__ or refused)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a plugin must not end the listing
            problem = f"could not be loaded from {found.value}: {with_place(error)}"
            return broken(claims, found, problem, error)
        heavy = "torch" in sys.modules and not had_torch
        seconds = time.perf_counter() - started
        loaded = LoadedPlugin(
            found, module, components, observes, heavy, seconds, commands, settings, weights
        )
        return Status(found.name, "ok", claims, plugin=loaded)


def _import(value: str) -> Any:
    # What a plugin prints while it is imported must not stand in a command's output.
    with contextlib.redirect_stdout(sys.stderr):
        return _resolved(value)


def _resolved(value: str) -> Any:
    return pkgutil.resolve_name(value) if ":" in value else importlib.import_module(value)
