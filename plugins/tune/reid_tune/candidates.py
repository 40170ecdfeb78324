"""The run files that are tuned, each with the ranges that apply to it. Torch-free."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reid_tune.edits import edited
from reid_tune.ranges import Range
from reidcore.errors import UsageError, nearest
from reidcore.tools import Plan, metric_of, plan_run, settings_of

NO_TEST = ("data.test=[]", "repeat={}")
"""Changes after which no test set is looked at, and one run is described."""


@attrs.frozen(eq=False)
class Candidate:
    """A run file that is tuned.

    file: as typed. label: its run's name, no other file's. sets: the `--set` items. plan: without
    test sets. ranges: those that apply to it. output: where what is found is written.
    """

    file: str
    label: str
    sets: Sequence[str]
    plan: Plan
    ranges: Sequence[Range]
    output: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every setting by dotted key, with every default filled in."""
        return settings_of(self.plan.resolved())

    @property
    def epochs(self) -> int:
        """Epochs of a trial, where no range changes them."""
        return self.plan.runfile.train.epochs

    @property
    def every(self) -> int:
        """Epochs between two evaluations of a trial."""
        return self.plan.runfile.eval.every or 1

    @property
    def own(self) -> dict[str, Any]:
        """The file's own values that are in their ranges, by key."""
        known = self.settings
        found = {one.key: one.own(known[one.key]) for one in self.ranges if one.key in known}
        return {key: value for key, value in found.items() if value is not None}

    def drawn(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings of a trial's drawn values, as TOML by dotted key."""
        return {one.key: one.shown(params[one.key]) for one in self.ranges}

    def text(self, settings: Mapping[str, str], name: str) -> str:
        """Return the run file's text with the changes of `--set`, these settings and this name."""
        changes = dict(_split(item) for item in self.sets)
        return edited(self.plan.runfile.text, {**changes, **settings}, name)


def _split(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key.strip(), value


def candidates(
    files: Sequence[str], sets: Sequence[str], ranges: Sequence[Range], outputs: Sequence[Path]
) -> list[Candidate]:
    """Return the run files as candidates, after checking that every range applies to one of them
    and that its ends are valid. outputs: where what is found is written, [] for the usual names.

    Raises `ReidError` with what is wrong. No test set is looked at.
    """
    plans = [plan_run(file, [*sets, *NO_TEST]) for file in files]
    labels = [plan.runfile.name for plan in plans]
    if len(set(labels)) < len(labels):
        labels = [f"{label}-{number + 1}" for number, label in enumerate(labels)]
    found = [
        Candidate(file, label, sets, plan, (), Path(f"{label}-tuned.toml"))
        for file, label, plan in zip(files, labels, plans, strict=True)
    ]
    for one in found:
        _check(one)
    if outputs:
        pairs = zip(found, outputs, strict=True)
        found = [attrs.evolve(one, output=output) for one, output in pairs]
    return _with_ranges(found, ranges)


def _check(one: Candidate) -> None:
    """Refuse a file that trains nothing, ranks nothing or cannot be rewritten."""
    if one.epochs < 1:
        raise UsageError(f"{one.file}: train.epochs is 0, so there is nothing to tune")
    if not one.plan.rankings:
        raise UsageError(f"{one.file}: there is no [[matcher]], which scoring needs")
    one.text({}, "")


def _with_ranges(found: Sequence[Candidate], ranges: Sequence[Range]) -> list[Candidate]:
    """The candidates with the ranges that apply to each."""
    applied: dict[str, list[Range]] = {one.label: [] for one in found}
    for wanted in ranges:
        refused = []
        for one in found:
            known = one.settings
            mine = _of_type(one, wanted, known.get(wanted.key))
            stated = wanted.key in known
            try:
                _check_range(one, mine)
            except UsageError as error:
                if stated:
                    raise
                refused.append((one, error))
                continue
            applied[one.label].append(mine)
        if len(refused) == len(found):
            raise UsageError(_unknown(wanted, *refused[0]))
    for one in found:
        if not applied[one.label]:
            raise UsageError(f"none of the ranges applies to {one.file}")
    return [attrs.evolve(one, ranges=tuple(applied[one.label])) for one in found]


def _check_range(one: Candidate, wanted: Range) -> None:
    """Plan the run with the ends of a range, and one value inside a range of integers. Raises
    UsageError for one that does not fit."""
    if wanted.key in settings_of(tomllib.loads(one.plan.runfile.text).get("repeat", {})):
        raise UsageError(f"--set-range {wanted.key}: [repeat] of {one.file} lists its values")
    for text in wanted.ends:
        _check_value(one, wanted, text)
    if wanted.between is not None:
        try:
            _check_value(one, wanted, wanted.between)
        except UsageError as error:
            raise UsageError(f"{error}; list the values that fit, with commas between") from None


def _check_value(one: Candidate, wanted: Range, text: str) -> None:
    item = f"{wanted.key}={text}"
    try:
        plan = plan_run(one.file, [*one.sets, item, *NO_TEST])
    except UsageError as error:
        said = str(error).replace(f"--set {item}", f"--set-range {wanted.key}={wanted.text}")
        raise UsageError(said) from None
    if plan.runfile.train.epochs < 1:
        raise UsageError(f"--set-range {wanted.key}={wanted.text}: 0 epochs train nothing")


def _of_type(one: Candidate, wanted: Range, current: Any) -> Range:
    """The range as its setting's type has it: with fractions where that takes them. An unset one
    has no value to tell by, so it is asked."""
    if current is not None or not wanted.whole:
        return wanted.of_type(current)
    fractions = wanted.of_type(0.5)
    try:
        _check_range(one, fractions)
    except UsageError:
        return wanted
    return fractions


def _unknown(wanted: Range, one: Candidate, error: UsageError) -> str:
    """The message for a key that no file has."""
    near = nearest(wanted.key, one.settings)
    # What lies inside a setting, such as a role in train.start_share, the error tells better.
    if near and not any(wanted.key.startswith(f"{key}.") for key in one.settings):
        return f"--set-range {wanted.key}: {one.file} has no such setting{near}"
    return str(error)


def check_score(name: str, found: Sequence[Candidate]) -> None:
    """Raise UsageError, with the names that there are, for a score that some run does not have."""
    for one in found:
        settings = one.plan.runfile.eval
        known = ["mAP", "mINP", *(f"rank-{rank}" for rank in settings.ranks)]
        known += [f"TAR@FAR={rate:g}" for rate in settings.tar_at]
        if metric_of(name) not in known or metric_of(name) != name:
            raise UsageError(
                f"--score: {one.file} has no score {name!r}{nearest(name, known)}; there are "
                f"{', '.join(known)}"
            )
