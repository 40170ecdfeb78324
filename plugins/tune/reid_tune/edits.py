"""Run files with other settings, as text. Neither torch nor optuna is imported."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from reid_tune.hold_out import Part
from reidcore.errors import UsageError
from reidcore.tools import set_value


def edited(text: str, settings: Mapping[str, str], name: str = "") -> str:
    """Return a run file's text with other settings; its comments and its layout stay.

    settings: values as TOML, or as the words of `--set`, by dotted key. name: takes the place of
    the run's name, where the file has one. Raises UsageError for a key that has no place.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise UsageError(f"the run file cannot be rewritten: {error}") from None
    plain: dict[str, Any] = copy.deepcopy(document.unwrap())
    for table in (document, plain):
        for key, value in settings.items():
            set_value(table, _numbered(table, key), _parsed(value))
        if name and "name" in table:
            table["name"] = name
    written = tomlkit.dumps(document)
    try:
        if tomllib.loads(written) == plain:
            return written
    except tomllib.TOMLDecodeError:
        pass
    return tomlkit.dumps(plain)  # a layout that could not be kept


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text.strip()


def _numbered(table: Mapping[str, Any], key: str) -> str:
    """Return the key with the number of a [[post]] without a name in place of `post0`."""
    found = re.match(r"post\.post(\d+)\.", key)
    if not found or f"post{found[1]}" in [one.get("name") for one in table.get("post", [])]:
        return key
    return f"post.{found[1]}.{key[found.end() :]}"


def trial_text(
    table: Mapping[str, Any], settings: Mapping[str, str], held_out: Sequence[Part], every: int
) -> str:
    """Return the run file of a trial, with the ranking that decides alone.

    table: of the run file that is tuned. settings: the trial's own, values as TOML by dotted key.
    held_out: what takes the place of all data. every: epochs between two evaluations.
    """
    made = copy.deepcopy(dict(table))
    for key, value in settings.items():
        set_value(made, key, _parsed(value))
    data = made["data"]
    data.pop("trial", None)
    data["train"] = [_entry(part.name, part.train) for part in held_out]
    data["test"] = [
        {**_entry(part.name, part.test), "protocol": part.protocol} for part in held_out
    ]
    made.pop("repeat", None)
    if made.get("ranking"):
        _keep_first_ranking(made)
    made.setdefault("eval", {})["every"] = every
    made["train"].pop("best", None)
    return tomlkit.dumps(made)


def _keep_first_ranking(table: dict[str, Any]) -> None:
    """Leave out the other rankings, and the postprocessors that they alone name."""
    first = table["ranking"][0]
    table["ranking"] = [first]
    posts = table.get("post", [])
    table["post"] = [post for post in posts if post["name"] in first.get("post", [])]


def _entry(name: str, manifest: Path) -> dict[str, str]:
    return {"manifest": str(manifest), "name": name}
