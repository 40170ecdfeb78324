"""Installed plugins as plain data, for `reid plugins --json`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from reidcore import hookspecs
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.plugins.plugin_status import LoadedPlugin, Status
from reidcore.plugins.registration import LoadedComponent
from reidcore.plugins.settings_help import describe_settings
from reidcore.version import __version__

FORMAT = 1
"""Version of the listing's form; within it keys are added, never changed or removed."""


def plugin_listing(plugins: Plugins, rows: Iterable[Status], notes: Sequence[str]) -> Any:
    """Return plugins as dicts and lists of texts, numbers, truth values and None.

    rows: the plugins to list, usable or not. notes: sentences on what stands between them. The form
    is described in docs/contracts.md.
    """
    return {
        "format": FORMAT,
        "reidcore": __version__,
        "group": hookspecs.GROUP,
        "plugins": [_row(plugins, row) for row in rows],
        "notes": list(notes),
    }


def _row(plugins: Plugins, row: Status) -> dict[str, Any]:
    loaded = row.plugin
    return {
        "name": row.name,
        "state": row.state,
        "message": row.message,
        "distributions": [
            {
                "name": one.distribution,
                "version": one.version,
                "group": one.group,
                "module": one.value,
                "requires": list(one.requires),
            }
            for one in row.found
        ],
        **(_content(plugins, loaded) if loaded is not None else _NOTHING),
    }


_NOTHING: dict[str, Any] = {
    "components": [],
    "commands": [],
    "weights": [],
    "observes": [],
    "observer_settings": [],
    "run_files": [],
    "seconds": None,
    "imports_torch": None,
}


def _content(plugins: Plugins, loaded: LoadedPlugin) -> dict[str, Any]:
    return {
        "components": [_component(one) for one in loaded.components],
        "commands": [{"name": one.name, "summary": one.summary} for one in loaded.commands],
        "weights": [
            {**attrs.asdict(one.weights), "name": one.name, "file": str(one.path)}
            for one in loaded.weights
        ],
        "observes": list(loaded.observes),
        "observer_settings": _settings(loaded.settings) if loaded.settings else [],
        "run_files": [
            {"name": run.full_name, "summary": run.summary, "problem": run.problem}
            for run in packaged_runs(plugins, loaded.found.name)
        ],
        "seconds": round(loaded.seconds, 3),
        "imports_torch": loaded.imports_torch,
    }


def _component(loaded: LoadedComponent) -> dict[str, Any]:
    component = loaded.component
    return {
        "kind": loaded.kind,
        "name": loaded.name,
        "summary": component.summary,
        "paper": component.paper,
        "deprecated": component.deprecated,
        "settings": _settings(component.config),
    }


def _settings(config: type) -> list[dict[str, Any]]:
    return [attrs.asdict(one) for one in describe_settings(config)]
