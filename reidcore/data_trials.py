"""`data.trial`: data sets that divide their people in several ways, with a model for each.

RegDB has ten such trials; the test people of one are partly the training people of another.
Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.structure import structure
from reidcore.tables import Part
from reidcore.toml_text import Problems

KEY = "trial"


def has_trials(config: type) -> bool:
    """Whether a reader's settings class has the setting `trial`."""
    return any(field.name == KEY for field in attrs.fields(config))


def with_trial(problems: Problems, part: Part, config: type, trial: int) -> Part:
    """A reader's table with the trial of [data]; what does not fit is told."""
    stated = part.table.get(KEY, trial)
    if stated != trial:
        text = f"trial is {stated!r}, but data.trial is {trial}; leave one of them away"
        problems.add((*part.path, KEY), str(part), text)
        return part
    table = {**part.table, KEY: trial}
    _, faults = structure(config, table, part.core_keys)
    mine = [fault for fault in faults if fault.path == (KEY,)]
    problems.faults(("data",), f"[data], which {part.use} takes", mine)
    return part if mine else attrs.evolve(part, table=table)


def trials_of(readers: Iterable[tuple[str, Any]]) -> dict[str, list[int]]:
    """{reader: trials} of (full name, config) of those that have trials."""
    found: dict[str, list[int]] = {}
    for use, config in readers:
        if has_trials(type(config)):
            trials = found.setdefault(use, [])
            trials += [config.trial] * (config.trial not in trials)
    return found


def mixed_up(trained: Mapping[str, Sequence[int]], use: str, config: Any) -> str:
    """Why a test set of this reader must not be scored by a model of these trials, "" if it may."""
    others = [trial for trial in trained.get(use, ()) if trial != config.trial]
    if not others:
        return ""
    return (
        f"is trial {config.trial} of {use}, but the model is trained on trial "
        f"{' and '.join(map(str, others))}, among whose people are some of those to test with. Test"
        f" it on its own trial, or train one with data.trial = {config.trial}"
    )
