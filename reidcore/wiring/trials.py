"""Checks `data.trial`, for data sets that divide their people in several ways. Torch-free.

RegDB has ten such trials, and a model is trained for each: the test people of one are partly the
training people of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.runfiles.problems import Problems
from reidcore.runfiles.runfile import Part, RunFile, Source
from reidcore.runfiles.strict import structure

KEY = "trial"
Entry = tuple[Source, Any]
"""A data set with its reader's config, None for a manifest."""


def has_trials(config: type) -> bool:
    """Return whether a reader's settings class has the setting `trial`."""
    return any(field.name == KEY for field in attrs.fields(config))


def with_trial(problems: Problems, part: Part, config: type, trial: int) -> Part:
    """Return a reader with the trial of [data] in its table, or as it is if that does not fit."""
    stated = part.table.get(KEY, trial)
    if stated != trial:
        text = f"trial is {stated!r}, but data.trial is {trial}; leave one of them away"
        problems.add((*part.path, KEY), str(part), text)
        return part
    table = {**part.table, KEY: trial}
    _, faults = structure(config, table, part.core_keys)
    mine = [fault for fault in faults if fault.path == (KEY,)]
    problems.add_faults(("data",), f"[data], which {part.use} takes", mine)
    return part if mine else attrs.evolve(part, table=table)


def _trials_by_reader(entries: Iterable[Entry]) -> dict[str, list[int]]:
    """Return the trials of entries whose readers have some."""
    found: dict[str, list[int]] = {}
    for source, config in entries:
        if source.reader is not None and has_trials(type(config)):
            trials = found.setdefault(source.reader.use, [])
            trials += [config.trial] * (config.trial not in trials)
    return found


def trained_trials(
    problems: Problems, run: RunFile, entries: Sequence[Entry]
) -> dict[str, list[int]]:
    """Return the trials that a run trains on, by reader; note a data.trial that no reader takes."""
    complete = len(entries) == len(run.sources)  # a failed entry's own problem is reported
    if run.data.trial is not None and complete and not _trials_by_reader(entries):
        readers = [source.reader.use for source, _ in entries if source.reader is not None]
        named = ", ".join(dict.fromkeys(readers)) or "there is none"
        text = f"trial is for readers that have a setting trial, and none has: {named}"
        problems.add(("data", KEY), "[data]", text)
    return _trials_by_reader(entry for entry in entries if entry[0].role == "train")


def check_trials(
    problems: Problems, trained: Mapping[str, Sequence[int]], entries: Iterable[Entry]
) -> None:
    """Note test sets of another trial than those, by reader, that the model is trained on."""
    for source, config in entries:
        if source.role == "train" or source.reader is None:
            continue
        use = source.reader.use
        others = [trial for trial in trained.get(use, ()) if trial != config.trial]
        if others:
            problems.add(
                source.path,
                f"[data] test {source.name!r}",
                f"is trial {config.trial} of {use}, but the model is trained on trial "
                f"{' and '.join(map(str, others))}, among whose people are some of those to test "
                f"with. Test it on its own trial, or train one with data.trial = {config.trial}",
            )
