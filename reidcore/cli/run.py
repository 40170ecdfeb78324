"""The command `reid run`, in one process or in the several that torchrun has started."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from reidcore.cli.as_json import add_json, print_json
from reidcore.cli.options import add_file
from reidcore.cli.repeats import check_folder_of_repeats, check_repeats
from reidcore.contracts.commands import RunCommand
from reidcore.errors import OutputError

if TYPE_CHECKING:
    from reidcore.distributed.processes import Processes
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.runfile import RunFile


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Train and evaluate what a run file describes. The results go into a run folder, "
        "runs/NAME unless --out says otherwise."
    )
    add_file(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/NAME)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, if there is one"
    )
    parser.add_argument("--no-dry", action="store_true", help="skip the dry run on a random batch")
    add_json(parser, ", scores as fractions; progress goes to stderr")
    return run_command


def run_command(options: Namespace) -> int:
    """`reid run`; returns 0 or raises `ReidError`."""
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.packaged_runs import run_source
    from reidcore.runfiles.parse import parse_runfile

    plugins = Plugins()
    run = parse_runfile(*run_source(options.file, plugins), options.sets)
    folder = options.out if options.out is not None else Path("runs") / run.name
    with _together() as processes:
        training = _Training(options, plugins, processes)
        if run.repeat:
            scores = training.run_repeats(run, folder)
        else:
            scores = training.run_one(run, folder, options.sets) or {}
        if options.json and training.first:
            print_json(scores)
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


class _LateReporter:
    """The reporter of a run, made when torch and rich are needed anyway."""

    def __init__(self, silent: bool, stream: TextIO) -> None:
        self._silent = silent
        self._stream = stream
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            from reidcore.support.progress import Silent, reporter

            self._made = Silent() if self._silent else reporter(self._stream)
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


@attrs.frozen
class _Training:
    """The options, plugins and processes of one command, for all of its runs."""

    options: Namespace
    plugins: Plugins
    processes: Processes | None

    @property
    def first(self) -> bool:
        """True in the process that prints and writes."""
        return self.processes is None or self.processes.first

    @property
    def _stream(self) -> TextIO:
        """Where progress and tables go; with --json all of standard output is the JSON."""
        return sys.stderr if self.options.json else sys.stdout

    def run_one(self, run: RunFile, folder: Path, sets: Sequence[str]) -> dict[str, Any] | None:
        """Trains a run file, which the changes `sets` have made, and prints its scores."""
        from reidcore.training.options import TrainingOptions
        from reidcore.training.train import plan_training, train_plan

        resume = self.options.resume
        plan = plan_training(run, self.plugins, resume)
        check, traceback = not self.options.no_dry, self.options.traceback
        options = TrainingOptions(folder, sets, resume, check, traceback)
        with closing(_LateReporter(not self.first, self._stream)) as reporter:
            scores = train_plan(plan, self.plugins, options, reporter, self.processes)
        if scores and self.first:
            from reidcore.evaluation.score_table import score_table

            print(score_table(scores), file=self._stream)
        return scores

    def run_repeats(self, run: RunFile, folder: Path) -> dict[str, Any]:
        """Trains every repeat in a folder of its own, and prints and returns means and
        deviations."""
        from reidcore.runfolder.record import is_finished
        from reidcore.support.files import remove_file, write_json

        repeats = check_repeats(self.plugins, run, self.options.sets)
        if self.first:
            check_folder_of_repeats(folder, len(repeats), self.options.resume)
        finished = [is_finished(folder / str(index)) for index in range(len(repeats))]
        if self.first and not all(finished):
            remove_file(folder / "scores.json")  # of fewer repeats
        results = []
        for index, (own, repeat) in enumerate(repeats):
            if self.first:
                text = f"repeat {index + 1} of {len(repeats)}: {', '.join(own)}"
                print(text, file=self._stream, flush=True)
            scores = self.run_one(repeat, folder / str(index), [*self.options.sets, *own])
            results.append(scores or {})
        if not self.first:
            return {}
        from reidcore.evaluation.score_table import score_table
        from reidcore.support.repeats import mean_scores

        summary = mean_scores(results)
        try:
            write_json(folder / "scores.json", summary)
        except OutputError as error:
            error.args = (f"{error}. The repeats are finished: with --resume it is written anew.",)
            raise
        print(f"mean and deviation of {len(repeats)} repeats", file=self._stream)
        print(score_table(summary), file=self._stream)
        return summary
