"""The runs of a run file with [repeat]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.runfile import RunFile


def check_repeats(
    plugins: Plugins, run: RunFile, sets: Sequence[str]
) -> list[tuple[list[str], RunFile]]:
    """Return each repeat's own `--set` items and its run file, all of them checked.

    Raises RunFileError with the problems of all repeats.
    """
    from reidcore.errors import RunFileError
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.support.toml_values import toml_value
    from reidcore.wiring.make_plan import make_plan

    count = len(next(iter(run.repeat.values()), ()))
    repeats = []
    problems: list[str] = []
    for index in range(count):
        own = [f"{key}={toml_value(values[index])}" for key, values in run.repeat.items()]
        try:
            repeat = parse_runfile(run.text, run.path, [*sets, *own])
            make_plan(repeat, plugins, allow_missing=True)
            repeats.append((own, repeat))
        except RunFileError as error:
            which = f"in repeat {index + 1} of {count}: {', '.join(own)}"
            for problem in error.problems:
                if problem.startswith("--set ") and problem[6:].startswith(tuple(own)):
                    line = run.lines.of(("repeat", problem[6:].partition("=")[0]))
                    problem = f"{run.path.name}:{line}: [repeat] {problem[6:]}"
                problems.append(f"{problem} ({which})")
    if problems:
        raise RunFileError(problems)
    return repeats


def check_folder_of_repeats(folder: Path, resume: bool) -> None:
    """Raise UsageError if the folder holds files and is not to be resumed."""
    from reidcore.errors import UsageError

    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise UsageError(
            f"{folder.absolute()} already holds files. Nothing was changed. Continue with "
            "--resume, or choose another folder with --out."
        )
