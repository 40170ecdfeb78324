"""The settings of plugins that observe runs. Torch-free."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import attrs

from reidcore.plugins.registration import (
    OBSERVERS,
    SETTINGS_HOOK,
    Found,
    Refused,
    hook_manager,
)
from reidcore.runfiles.keys import TOP_KEYS
from reidcore.support.author_code import with_place
from reidcore.support.wording import a_or_an


def observer_settings(found: Found, module: Any) -> type | None:
    """Return the class of the settings that a plugin's table in a run file holds, None where it
    takes none. The plugin's hooks are known to be sound.

    Raises Refused with everything that is wrong with it.
    """
    manager = hook_manager()
    manager.register(module, found.name)
    implementations = getattr(manager.hook, SETTINGS_HOOK).get_hookimpls()
    problems = list(_problems(found, manager, bool(implementations)))
    if problems:
        raise Refused(problems)
    if not implementations:
        return None
    try:
        config = implementations[0].function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Refused([f"hook {SETTINGS_HOOK} raised {with_place(error)}"]) from error
    if not isinstance(config, type):
        text = f"hook {SETTINGS_HOOK} returned {a_or_an(type(config).__name__)}"
        raise Refused([f"{text}, not a class; write @attrs.frozen above one"])
    if not attrs.has(config):
        text = f"hook {SETTINGS_HOOK} returned {config.__name__}, which is no attrs class"
        raise Refused([f"{text}; write @attrs.frozen above it"])
    return config


def _problems(found: Found, manager: Any, has: bool) -> Iterable[str]:
    observing = {
        hook: one.function
        for hook in OBSERVERS
        for one in getattr(manager.hook, hook).get_hookimpls()
    }
    if has and not observing:
        yield f"it has {SETTINGS_HOOK} and observes nothing: it has none of {', '.join(OBSERVERS)}"
    if has and found.name in TOP_KEYS:
        yield f"it has {SETTINGS_HOOK}, but the table [{found.name}] of run files is the core's"
    for hook, function in observing.items():
        if not has and "settings" in inspect.signature(function).parameters:
            yield f"hook {hook} asks for settings, but there is no {SETTINGS_HOOK}"
