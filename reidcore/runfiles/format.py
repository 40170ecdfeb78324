"""Checks and names that every file with tables of a run needs before it is read. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidcore.runfiles.keys import FORMAT
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.value_words import shown


def check_format(table: Mapping[str, Any], problems: Problems) -> None:
    """Note a wrong `format`; raise the problems if it is a later one than this core reads."""
    version = table.get("format")
    if type(version) is not int or version < 1:
        found = "is missing" if version is None else f"is {shown(version)}"
        problems.add(("format",), "", f"key 'format' {found}; this core reads format = {FORMAT}")
    elif version > FORMAT:
        found = shown(version).removeprefix("int ")
        text = f"key 'format' is {found}, but this core reads format = {FORMAT}"
        problems.add(("format",), "", f"{text}; upgrade reidcore")
        problems.raise_any()


def name_posts(table: Mapping[str, Any]) -> None:
    """Give each `[[post]]` without a name its own, post0, post1, ..."""
    posts = table.get("post", [])
    for index, post in enumerate(posts if is_list_of_tables(posts) else []):
        post.setdefault("name", f"post{index}")


def is_list_of_tables(value: Any) -> bool:
    """Return whether a value is what `[[name]]` makes."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
