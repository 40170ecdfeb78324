"""The runs of a run file with [repeat]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from reidcore.support.wording import few

if TYPE_CHECKING:
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.runfile import RunFile
    from reidcore.wiring.plan import Plan


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
    repeats, named = [], []
    found: dict[tuple[str, str], list[int]] = {}
    for index in range(count):
        own = [f"{key}={toml_value(values[index])}" for key, values in run.repeat.items()]
        try:
            repeat = parse_runfile(run.text, run.path, [*sets, *own])
            plan = make_plan(repeat, plugins, allow_missing=True, find_run=find_run)
            repeats.append((own, repeat))
            named.append(_names_of_scores(plan))
        except RunFileError as error:
            for problem in error.problems:
                mine = [item for item in own if problem.startswith(f"--set {item}:")]
                key = mine[0].partition("=")[0] if mine else ""
                text = problem[len(f"--set {mine[0]}") :] if mine else problem
                found.setdefault((key, text), []).append(index)
    if found:
        raise RunFileError(_told_once(run, *one, count) for one in found.items())
    for index, names in enumerate(named):
        for key, value in names.items():
            if value != named[0][key]:
                raise RunFileError([_without_mean(run, key, named[0][key], value, index)])
    return repeats


def _names_of_scores(plan: Plan) -> dict[str, Any]:
    """Return what of a run names its scores, by key."""
    settings, best = plan.runfile.eval, plan.runfile.train.best
    protocols = [one.protocol for one in plan.data.test if one.protocol is not None]
    return {
        "data.test": [one.source.name for one in plan.data.test],
        "eval.protocol": [{"use": one.name, **attrs.asdict(one)} for one in protocols],
        "ranking": [[one.name, *one.post] for one in plan.rankings],
        **{f"eval.{key}": getattr(settings, key) for key in ("ap", "ties", "queries")},
        "eval.ranks": sorted(settings.ranks),
        "eval.tar_at": sorted(settings.tar_at),
        "train.best": best if best.startswith("rank-") else "",
    }


def _without_mean(run: RunFile, key: str, first: Any, other: Any, repeat: int) -> str:
    """Return what is wrong with repeats whose scores have different names."""
    advice = "; give each test set the same `name`" if key == "data.test" else ""
    return (
        f"{run.path.name}: [repeat]: there is no mean of scores that have different names: of "
        f"{key} repeat 1 has {first!r} and repeat {repeat + 1} {other!r}{advice}"
    )


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


def check_folder_of_repeats(folder: Path, count: int, resume: bool) -> None:
    """Raise UsageError if the folder holds files and is not to be resumed, or something else than
    this number of repeats."""
    from reidcore.errors import UsageError
    from reidcore.runfolder.folder import RESUME, WEIGHTS
    from reidcore.runfolder.record import RECORD

    if folder.is_file():
        raise UsageError(f"{folder.absolute()} is a file; name another folder with --out")
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return
    if not resume:
        raise UsageError(
            f"{folder.absolute()} already holds files. Nothing was changed. Continue with "
            "--resume, or choose another folder with --out."
        )
    numbers = [int(name) for name in names if name.isdecimal()]
    if not numbers or any(name in names for name in (RECORD, RESUME, WEIGHTS)):
        found = "a run without [repeat]" if RECORD in names else "no repeats to resume"
        raise UsageError(
            f"{folder.absolute()} holds {found}. Nothing was changed. Choose another folder with "
            "--out."
        )
    if further := [str(number) for number in sorted(numbers) if number >= count]:
        raise UsageError(
            f"{folder.absolute()} holds more repeats than the {count} that [repeat] lists now: "
            f"{few(further, 8)}. Nothing was changed. List their values again, remove their "
            "folders, or choose another folder with --out."
        )
