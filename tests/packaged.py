"""Run files that plugins bring in their wheels, as tests read them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan


def packaged_table(plugin: str, name: str) -> dict[str, Any]:
    """Return the tables of a run file."""
    return tomllib.loads(find_packaged(f"{plugin}:{name}", Plugins()).text)


def packaged_plan(plugin: str, name: str, *sets: str) -> Plan:
    """Return the plan of a run file after `--set`, with or without its data."""
    text = find_packaged(f"{plugin}:{name}", Plugins()).text
    return make_plan(parse_runfile(text, Path(f"{name}.toml"), sets), Plugins(), allow_missing=True)


def few_pictures(*more: str) -> list[str]:
    """Return arguments of `reid run` by which a demo has few pictures, and `more` settings."""
    few = ("train_identities=8", "test_identities=6", "pictures=8")
    sets = [f"data.{role}.{one}" for role in ("train", "test.0") for one in few]
    return [word for one in (*sets, *more) for word in ("--set", one)]
