"""The runs of a run file with [repeat]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidcore.support.wording import few

if TYPE_CHECKING:
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.runfile import RunFile


def check_repeats(
    plugins: Plugins, run: RunFile, sets: Sequence[str]
) -> list[tuple[list[str], RunFile]]:
    """Return each repeat's own `--set` items and its run file, all of them checked.

    Raises RunFileError with the problems of all repeats, each problem once.
    """
    from reidcore.errors import RunFileError
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.support.toml_values import toml_value
    from reidcore.training.teachers import find_run
    from reidcore.wiring.make_plan import make_plan

    count = len(next(iter(run.repeat.values()), ()))
    repeats = []
    found: dict[tuple[str, str], list[int]] = {}
    for index in range(count):
        own = [f"{key}={toml_value(values[index])}" for key, values in run.repeat.items()]
        try:
            repeat = parse_runfile(run.text, run.path, [*sets, *own])
            make_plan(repeat, plugins, allow_missing=True, find_run=find_run)
            repeats.append((own, repeat))
        except RunFileError as error:
            for problem in error.problems:
                mine = [item for item in own if problem.startswith(f"--set {item}:")]
                key = mine[0].partition("=")[0] if mine else ""
                text = problem[len(f"--set {mine[0]}") :] if mine else problem
                found.setdefault((key, text), []).append(index)
    if found:
        raise RunFileError(_told_once(run, *one, count) for one in found.items())
    return repeats


def _told_once(run: RunFile, problem: tuple[str, str], repeats: Sequence[int], count: int) -> str:
    """Return a problem with the repeats that have it.

    problem: key of [repeat] and what is wrong with its value, or no key and a whole message.
    """
    from reidcore.support.toml_values import toml_value

    key, text = problem
    own = [f"{name}={toml_value(values[repeats[0]])}" for name, values in run.repeat.items()]
    single = len(repeats) == 1
    if key:
        [item] = [item for item in own if item.startswith(f"{key}=")]
        place = f"{run.path.name}:{run.lines.of(('repeat', key))}"
        text = f"{place}: [repeat] {item if single else key}{text}"
    if single:
        return f"{text} (in repeat {repeats[0] + 1} of {count}: {', '.join(own)})"
    if len(repeats) == count:
        return f"{text} (in every repeat)"
    return f"{text} (in repeats {few([str(one + 1) for one in repeats], 8)} of {count})"


def check_folder_of_repeats(folder: Path, resume: bool) -> None:
    """Raise UsageError if the folder holds files and is not to be resumed."""
    from reidcore.errors import UsageError

    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise UsageError(
            f"{folder.absolute()} already holds files. Nothing was changed. Continue with "
            "--resume, or choose another folder with --out."
        )
