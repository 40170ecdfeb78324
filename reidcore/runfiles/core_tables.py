"""Reads the tables of a run file that belong to the core. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from reidcore.contracts.settings import INSTANCE
from reidcore.runfiles.format import is_list_of_tables
from reidcore.runfiles.keys import LARGEST
from reidcore.runfiles.overrides import flatten
from reidcore.runfiles.part_tables import NAME_FORM, not_a_list, taken
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.strict import structure
from reidcore.runfiles.tables import BY_ROLE, CORE_TABLES, Data, Eval, Optim, RankingTable, Train
from reidcore.runfiles.value_words import shown


@attrs.frozen
class CoreTables:
    """The core's tables; None where one is absent or wrong."""

    data: Data | None
    train: Train | None
    optim: Optim | None
    eval: Eval | None


def read_core_tables(table: Mapping[str, Any], problems: Problems) -> CoreTables:
    """Return the tables [data], [train], [optim] and [eval] of a run file."""
    return CoreTables(
        data=_read(table, problems, "data"),
        train=_read(table, problems, "train"),
        optim=_read(table, problems, "optim") if "optim" in table else None,
        eval=_read(table, problems, "eval") if "eval" in table else Eval(),
    )


def _read(table: Mapping[str, Any], problems: Problems, key: str) -> Any:
    if key not in table:
        problems.add((), "", f"table [{key}] is missing")
        return None
    value = table[key]
    if is_list_of_tables(value):
        text = f"[[{key}]] must be written [{key}]: one table, got a list of {len(value)}"
        problems.add((key,), "", text)
        problems.unusable.add(key)
        return None
    by_role = BY_ROLE.get(key, "")
    if not isinstance(value, dict):
        problems.unusable.add(key)
    elif isinstance(value.get(by_role), dict):
        # `head.neck = 0.1` without quotes is a table in a table to TOML.
        value[by_role] = flatten(value[by_role])
    found, faults = structure(CORE_TABLES[key], value)
    problems.add_faults((key,), f"[{key}]", faults)
    return found


def check_training(core: CoreTables, table: Mapping[str, Any], problems: Problems) -> None:
    """Note what a run that trains lacks, and learning rates that exclude each other."""
    if core.train is not None and core.train.epochs > 0:
        why = "and [train] epochs is above 0"
        if "optim" not in table:
            problems.add((), "", f"table [optim] is missing, {why}")
        if core.data is not None and core.data.train == []:
            problems.add(("data",), "[data]", f"missing key 'train', {why}")
        if core.data is not None and core.data.batch is None:
            problems.add(("data",), "[data]", f"missing key 'batch', {why}")
    optim = core.optim
    if optim is not None and optim.steps is not None and optim.cosine is not None:
        problems.add(("optim",), "[optim]", "'steps' and 'cosine' exclude each other; keep one")
    if optim is not None and (reached := _highest(optim)) > math.log10(LARGEST):
        text = (
            f"lr reaches about 1e{reached:.0f} with its scale, steps and warmup; expected at most "
            f"{LARGEST:g}"
        )
        problems.add(("optim", "lr"), "[optim]", text)


def _highest(optim: Optim) -> float:
    """Return the decimal logarithm of the highest learning rate that there may be."""
    factors = [max(1.0, *optim.scale.values())] if optim.scale else []
    if optim.steps is not None:
        factors += [max(1.0, optim.steps.by)] * len(optim.steps.at)
    if optim.warmup is not None:
        factors.append(max(1.0, optim.warmup.start))
    return math.log10(optim.lr) + sum(map(math.log10, factors))


def read_rankings(tables: Any, problems: Problems) -> list[RankingTable]:
    """Return the `[[ranking]]` tables of a run file."""
    if not isinstance(tables, list):
        problems.add(("ranking",), "", not_a_list("ranking", tables))
        return []
    rankings: list[RankingTable] = []
    for index, table in enumerate(tables):
        ranking, faults = structure(RankingTable, table)
        name = table.get("name") if isinstance(table, dict) else None
        number = f"[[ranking]] number {index + 1}"
        place = f"ranking {name!r}" if isinstance(name, str) else number
        problems.add_faults(("ranking", index), place, faults)
        if ranking is None:
            continue
        if not INSTANCE.fullmatch(ranking.name):
            text = f"{NAME_FORM}, got {shown(ranking.name)} at .name"
            problems.add(("ranking", index, "name"), place, text)
        if bool(ranking.matcher) == bool(ranking.fuse):
            found = "both are set" if ranking.fuse else "neither is set"
            text = f"needs either matcher or fuse, but {found}"
            problems.add(("ranking", index), place, text)
        if ranking.name in [other.name for other in rankings]:
            problems.add(("ranking", index, "name"), number, taken(ranking.name, "ranking"))
        rankings.append(ranking)
    return rankings
