"""Files that give a trained run another evaluation, as in `reid eval RUN FILE`. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reidcore.runfiles.format import check_format, name_posts
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.problems import Problems
from reidcore.runfiles.toml_files import parse_toml, read_text
from reidcore.runfiles.value_words import shown

ONLY = "; it has format, test in [data], [[ranking]], [[post]] and [eval], which replace the run's"


def replace_evaluation(table: dict[str, Any], path: Path, problems: Problems) -> None:
    """Put the evaluation tables of the file at `path` in the place of the table's own.

    Rankings and postprocessors name each other, so either replaces both. Raises `RunFileError`
    with the problems of that file.
    """
    text = read_text(path)
    other = parse_toml(text, path)
    lines = KeyLines(text)
    faults = Problems(path, lines)
    check_format(other, faults)
    _check_keys(other, faults)
    faults.raise_any()
    name_posts(other)
    if "test" in other.get("data", {}):
        table["data"]["test"] = other["data"]["test"]
        problems.lines.replace(("data", "test"), path, lines)
    group = ("ranking", "post") if "ranking" in other or "post" in other else ()
    for key in (*group, *(["eval"] if "eval" in other else [])):
        table[key] = other.get(key, [])
        problems.lines.replace((key,), path, lines)


def _check_keys(table: dict[str, Any], problems: Problems) -> None:
    for key, value in table.items():
        if key == "data" and not isinstance(value, dict):
            problems.add((key,), "[data]", f"expected table, got {shown(value)}")
            continue
        if key not in ("format", "data", "ranking", "post", "eval"):
            problems.add((key,), "", f"unknown table or key {key!r} in an evaluation file{ONLY}")
        for name in value if key == "data" else ():
            if name != "test":
                text = f"unknown key {name!r} in an evaluation file{ONLY}"
                problems.add((key, name), "[data]", text)
