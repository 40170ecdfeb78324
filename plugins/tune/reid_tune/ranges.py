"""Ranges of settings, as `--set-range` gives them. Neither torch nor optuna is imported."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from reidcore.errors import UsageError, nearest
from reidcore.tools import toml_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

DIGITS = 4
"""Significant digits of a number that is tried, so that it can be written down."""
FORMS = "LOW..HIGH, LOW..HIGH:log or values with commas between"
RESERVED = ("data.train", "data.test", "data.trial", "eval.every", "train.best")
"""Settings that the search itself needs, beside the top level's own keys."""
RESERVED_TABLES = ("format", "name", "plugins", "repeat")


@attrs.frozen
class Range:
    """The values of one setting that are tried.

    key: dotted, as for `--set`. text: as typed. low, high: ends of a range of numbers, both
    included. log: equal factors are equally likely, not equal differences. choices: in place of a
    range, values as TOML.
    """

    key: str
    text: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """True if only integers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> list[str]:
        """Values as TOML that must be valid where all are: the ends, or every choice."""
        return list(self.choices) or [self.shown(self.low), self.shown(self.high)]

    @property
    def between(self) -> str | None:
        """A value as TOML that tells whether a range of integers has gaps: the second; None where
        there is none beside the ends."""
        return self.shown(self.low + 1) if self.whole and self.low + 1 < self.high else None

    def of_type(self, current: Any) -> Range:
        """Return the range of numbers with fractions where the setting's current value is one."""
        if self.choices or not isinstance(current, float):
            return self
        return attrs.evolve(self, low=float(self.low), high=float(self.high))

    def shown(self, value: Any) -> str:
        """Return a drawn value as TOML, numbers rounded to four digits and inside the range."""
        if self.choices:
            return str(value)
        if self.whole:
            return str(int(value))
        rounded = float(f"{value:.{DIGITS}g}")
        return toml_value(min(max(rounded, float(self.low)), float(self.high)))

    def read(self, value: Any) -> Any:
        """Return a drawn value as it is read from a run file."""
        return tomllib.loads(f"value = {self.shown(value)}")["value"]

    def words(self, value: Any) -> str:
        """Return a drawn value as tables show it: texts without quotes."""
        shown = self.shown(value)
        return str(self.read(value)) if shown[:1] == '"' else shown

    def distribution(self) -> BaseDistribution:
        """Return the range as Optuna has it."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def suggest(self, trial: Trial) -> Any:
        """Return the trial's value, drawn where it has none yet."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def own(self, current: Any) -> Any:
        """Return a setting's current value as one to be drawn, None if it is not in the range."""
        if self.choices:
            text = toml_value(current)
            return text if text in self.choices else None
        if isinstance(current, bool) or not isinstance(current, int | float):
            return None
        return current if self.low <= current <= self.high else None


def parse_ranges(items: Sequence[str]) -> list[Range]:
    """Return the ranges of `--set-range` items. Raises UsageError for what is none."""
    ranges: dict[str, Range] = {}
    for item in items:
        try:
            found = _parse(item)
            if found.key in ranges:
                raise UsageError(f"{found.key} has two ranges, {ranges[found.key].text} before")
        except UsageError as error:
            raise UsageError(f"--set-range {item}: {error}") from None
        ranges[found.key] = found
    return list(ranges.values())


def _parse(item: str) -> Range:
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not key or not text:
        raise UsageError(f"expected KEY={FORMS}, such as optim.lr=1e-4..1e-2:log")
    if key.partition(".")[0] in RESERVED_TABLES or any(
        key == one or key.startswith(f"{one}.") for one in RESERVED
    ):
        raise UsageError(f"{key} is no setting to be searched for")
    if ".." in text and "," not in text:
        return _numbers(key, text)
    choices = _choices(text)
    if len(choices) < 2:
        raise UsageError(f"one value is no range; expected {FORMS}, or --set {key}={text}")
    if twice := [one for one in choices if choices.count(one) > 1]:
        raise UsageError(f"the value {twice[0]} is listed twice")
    return Range(key, text, choices=tuple(choices))


def _numbers(key: str, text: str) -> Range:
    ends, colon, form = text.partition(":")
    if colon and form != "log":
        hint = nearest(form, ["log"]) or "; only ':log' is known"
        raise UsageError(f"unknown form ':{form}'{hint}")
    if "..." in ends:  # the third dot may be the beginning of .5, or a slip
        raise UsageError(f"expected two dots between the numbers, as in 0..0.5, got {ends!r}")
    low, high = (_number(one) for one in ends.split("..", 1))
    if not low < high:
        raise UsageError(f"the range is empty: {low} is not below {high}")
    if colon and low <= 0:
        raise UsageError(f"a logarithmic range needs a low end above 0, got {low}")
    return Range(key, text, low, high, bool(colon))


def _number(text: str) -> float:
    """Return an int, or a float where the text has a point or an exponent."""
    text = text.strip()
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"expected numbers as LOW..HIGH, got {text!r}")
    return value


def _choices(text: str) -> list[str]:
    """Return values with commas between as TOML; words without quotes are texts."""
    try:
        return [toml_value(one) for one in tomllib.loads(f"values = [{text}]")["values"]]
    except (tomllib.TOMLDecodeError, RecursionError):
        return [_value(one.strip()) for one in text.split(",")]


def _value(text: str) -> str:
    try:
        return toml_value(tomllib.loads(f"value = {text}")["value"])
    except (tomllib.TOMLDecodeError, RecursionError):
        return toml_value(text)
