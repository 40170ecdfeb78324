"""The command `reid run`, in one process or in the several that torchrun has started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from reidcore.distributed.processes import Processes


def add_parser(commands: Any, add_file: Callable[[argparse.ArgumentParser], None]) -> None:
    """`add_file` adds the run file and its changes to a parser."""
    run = commands.add_parser(
        "run",
        help="train and evaluate what a run file describes",
        description="Train and evaluate what a run file describes. The results go into a run "
        "folder, runs/NAME unless --out says otherwise.",
    )
    add_file(run)
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/NAME)")
    run.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, if there is one"
    )
    run.add_argument("--no-dry", action="store_true", help="skip the dry run on a random batch")
    run.set_defaults(func=_run)


def _run(options: argparse.Namespace) -> int:
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.run_files import run_source
    from reidcore.runfiles.parse import parse_runfile

    plugins = Plugins()
    text, path = run_source(options.file, plugins)
    run = parse_runfile(text, path, options.sets)
    folder = options.out if options.out is not None else Path("runs") / run.name
    with _together() as processes:
        command = _Command(options, plugins, text, path, processes)
        if run.repeat:
            command.run_repeats(run, folder)
        else:
            command.run_one(folder, options.sets)
    return 0


@contextmanager
def _together() -> Iterator[Processes | None]:
    """The processes that share the command; None, without importing torch, for one alone."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield None
        return
    from reidcore.distributed.processes import together

    with together() as processes:
        yield processes


class _Announced:
    """The reporter of a run, made when torch and rich are needed anyway."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            from reidcore.support.progress import Silent, reporter

            self._made = Silent() if self._silent else reporter()
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None


@attrs.frozen
class _Command:
    """What all runs of a command have in common."""

    options: argparse.Namespace
    plugins: Any
    text: str
    path: Path
    processes: Processes | None

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.processes is None or self.processes.first

    def wait(self) -> None:
        """Until all processes are here."""
        if self.processes is not None:
            self.processes.wait()

    def run_one(self, folder: Path, sets: Sequence[str]) -> dict[str, Any] | None:
        """Runs the file with the changes `sets` in the folder, and prints its scores."""
        from reidcore.data.load_data import require_data
        from reidcore.runfiles.parse import parse_runfile
        from reidcore.runfolder.folder import prepared
        from reidcore.wiring.make_plan import make_plan
        from reidcore.wiring.plan import require_weights

        run = parse_runfile(self.text, self.path, sets)
        # The wiring is checked before the folder is touched and before data are made.
        plan = make_plan(run, self.plugins, allow_missing=True)
        require_data(plan.data)
        if not self.options.resume:
            require_weights(plan)
        announced = _Announced(not self.first)
        with ExitStack() as stack:
            stack.callback(announced.close)
            if self.first:
                stack.enter_context(prepared(folder, self.options.resume))
                announced().say(f"run folder {folder}")
                if _absent(plan):
                    plan = make_plan(run, self.plugins, make_data=True)
            self.wait()
            if _absent(plan):  # the first process has made them meanwhile
                plan = make_plan(run, self.plugins, make_data=True)
            for note in plan.notes:
                announced().say(f"note: {note}")
            from reidcore.distributed.processes import ALONE
            from reidcore.training.start import run_training

            scores = run_training(
                plan,
                self.plugins,
                folder,
                sets,
                announced(),
                check=not self.options.no_dry,
                processes=self.processes or ALONE,
            )
        if scores and self.first:
            from reidcore.evaluation.score_table import score_table

            print(score_table(scores))
        return scores

    def run_repeats(self, run: Any, folder: Path) -> None:
        """Runs every repeat in a folder of its own, and prints means and deviations."""
        from reidcore.errors import UsageError
        from reidcore.support.files import write_json

        repeats = check_repeats(self.plugins, run, self.text, self.path, self.options.sets)
        occupied = self.first and folder.is_dir() and any(folder.iterdir())
        if occupied and not self.options.resume:
            raise UsageError(
                f"{folder.absolute()} already holds files. Nothing was changed. Continue with "
                "--resume, or choose another folder with --out."
            )
        results = []
        for index, own in enumerate(repeats):
            if self.first:
                print(f"repeat {index + 1} of {len(repeats)}: {', '.join(own)}", flush=True)
            scores = self.run_one(folder / str(index), [*self.options.sets, *own])
            results.append(scores or {})
        if not self.first:
            return
        from reidcore.evaluation.score_table import score_table
        from reidcore.support.repeats import mean_scores

        summary = mean_scores(results)
        write_json(folder / "scores.json", summary)
        print(f"mean and deviation of {len(repeats)} repeats")
        print(score_table(summary))


def _absent(plan: Any) -> bool:
    """Whether data are still to be made."""
    return any(one.rows is None for one in plan.data.loaded)


def check_repeats(
    plugins: Any, run: Any, text: str, path: Path, sets: Sequence[str]
) -> list[list[str]]:
    """The `--set` items of each repeat, all of them checked before the first begins."""
    from reidcore.errors import RunFileError
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.support.toml_values import toml_value
    from reidcore.wiring.make_plan import make_plan

    count = len(next(iter(run.repeat.values()), ()))
    repeats = [
        [f"{key}={toml_value(values[index])}" for key, values in run.repeat.items()]
        for index in range(count)
    ]
    problems: list[str] = []
    for index, own in enumerate(repeats):
        try:
            make_plan(parse_runfile(text, path, [*sets, *own]), plugins, allow_missing=True)
        except RunFileError as error:
            which = f"in repeat {index + 1} of {count}: {', '.join(own)}"
            for problem in error.problems:
                if problem.startswith("--set ") and problem[6:].startswith(tuple(own)):
                    line = run.lines.of(("repeat", problem[6:].partition("=")[0]))
                    problem = f"{path.name}:{line}: [repeat] {problem[6:]}"
                problems.append(f"{problem} ({which})")
    if problems:
        raise RunFileError(problems)
    return repeats
