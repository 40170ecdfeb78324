"""The command `reid tune`: its options and steps. Torch-free at import."""

from __future__ import annotations

import argparse
import math
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from reidcore.api import how_to_install
from reidcore.errors import RunFileError, UsageError
from reidcore.tools import __version__, check_output, reporter, write_atomically

if TYPE_CHECKING:
    from reid_tune.candidates import Candidate
    from reid_tune.hold_out import HoldOut


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add the command's options; return what runs it."""
    parser.description = (
        "Choose settings of one or two run files by training them again and again. A part of the "
        "training identities is held out and scored on; no test set is read. Writes a run file "
        "with the best settings (FOUND.toml), a table of all trials (FOUND.csv) and the trials "
        "themselves (FOUND.study). A killed search goes on with --resume."
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a run file, or the name of a packaged one; two have the same trials each",
    )
    parser.add_argument("--trials", type=int, required=True, metavar="N", help="of each run file")
    parser.add_argument(
        "--set-range",
        dest="ranges",
        action="append",
        required=True,
        metavar="KEY=RANGE",
        help="a setting and its values: LOW..HIGH, LOW..HIGH:log or a,b,c; repeat it for more",
    )
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the run files in all trials, and in what is found",
    )
    parser.add_argument(
        "--hold-out",
        type=_fraction,
        default=0.25,
        metavar="FRACTION",
        help="of the training identities, to score on (default 0.25)",
    )
    parser.add_argument(
        "--score", default="mAP", help="what is to be largest after the last epoch (default mAP)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trials at once (default 1)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of what is held out and of the drawn settings (default 0)",
    )
    parser.add_argument(
        "--no-prune", action="store_true", help="train hopeless trials to their end, too"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the study of a command")
    parser.add_argument(
        "-o",
        "--output",
        dest="outputs",
        action="append",
        type=Path,
        metavar="FOUND.toml",
        help="the run file to write, once for each FILE (default NAME-tuned.toml)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON in place of the tables, scores as fractions; progress goes to stderr",
    )
    return tune


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, got {text!r}")
    return value


def tune(options: Namespace) -> int:
    """Run the search and write what it found; returns 0 or raises `ReidError`."""
    _check(options)
    from reid_tune.ranges import parse_ranges

    ranges = parse_ranges(options.ranges)
    _require_optuna()
    from reid_tune.candidates import candidates, check_score
    from reid_tune.study import check_folder

    found = candidates(options.files, options.sets, ranges, options.outputs or ())
    check_score(options.score, found)
    for one in found:
        check_output(one.output)
    folder = found[0].output.with_suffix(".study").absolute()
    written = [one.output for one in found]
    check_folder(folder, [*written, written[0].with_suffix(".csv")], options.resume)
    _search(options, found, folder)
    return 0


def _check(options: Namespace) -> None:
    """Refuses what cannot be done before any work."""
    for name in ("trials", "jobs"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {options.seed}")
    if len(options.files) > 2:
        raise UsageError(f"one run file or two can be tuned, got {len(options.files)}")
    if len({_place(file) for file in options.files}) < len(options.files):
        raise UsageError(f"{options.files[0]} is named twice")
    outputs = options.outputs or []
    if outputs and len(outputs) != len(options.files):
        raise UsageError(
            f"-o names {len(outputs)} files to write for {len(options.files)} run files; give it "
            "once for each, in their order"
        )
    for output in outputs:
        if output.suffix != ".toml":
            raise UsageError(f"-o {output}: a run file's name ends with .toml")
    if len({_place(output) for output in outputs}) < len(outputs):
        raise UsageError(f"-o names {outputs[0]} twice")


def _place(file: str | Path) -> str:
    """Return one text for all ways to write a path; a packaged run file's name stays as it is."""
    return os.path.realpath(file) if Path(file).suffix == ".toml" else str(file)


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(
            "`reid tune` needs Optuna, which is not installed. To install it: "
            + how_to_install("reid-plugin-tune")
        ) from None


def _search(options: Namespace, found: Sequence[Candidate], folder: Path) -> None:
    from reid_tune.found import write_found
    from reid_tune.hold_out import hold_out
    from reid_tune.search import Search
    from reid_tune.study import held, make_study, open_study
    from reid_tune.tables import Table

    held_out = hold_out(found[0].plan, options.hold_out, options.seed, folder)
    _require_same_pictures(found)
    _check_trials(found, held_out)
    make_study(folder, _settings(options, found))
    shown = reporter(sys.stderr if options.json else sys.stdout)
    try:
        with held(folder) as locks:
            held_out.write()
            for note in _notes(found):
                shown.say(f"note: {note}")
            shown.say(f"{held_out}; no test set is read")
            study = open_study(folder)
            search = Search(study, found, held_out, options.trials, options.jobs, locks, shown)
            search.run()
            trials = {one.label: study.trials(one.label) for one in found}
            table = Table(found, trials, options.score)
            write_atomically(found[0].output.with_suffix(".csv"), table.csv())
            print(table.as_json() if options.json else table.text())
            write_found(options, table, held_out, shown.say)
    except KeyboardInterrupt:
        shown.say(f"what was tried is in {folder}; --resume goes on")
        raise
    finally:
        shown.close()


def _require_same_pictures(found: Sequence[Candidate]) -> None:
    """Refuse two files that do not train on the same pictures."""
    hashes = [list(one.plan.data.hashes.values()) for one in found]
    if any(one != hashes[0] for one in hashes):
        raise UsageError(
            f"{found[0].file} and {found[1].file} train on different pictures; a comparison needs "
            "the same data.train in both"
        )


def _check_trials(found: Sequence[Candidate], held_out: HoldOut) -> None:
    """Plan a trial of each file on the identities that are left to train."""
    import attrs

    from reid_tune.edits import trial_text
    from reidcore.tools import plan_run

    with TemporaryDirectory() as name:
        parts = [attrs.evolve(part, folder=Path(name)) for part in held_out.parts]
        for part in parts:
            part.write()
        for one in found:
            path = Path(name) / f"{one.label}.toml"
            text = trial_text(one.plan.runfile.table, {}, parts, one.every)
            path.write_text(text, encoding="utf-8")
            try:
                plan_run(path)
            except RunFileError as error:
                raise UsageError(
                    f"{one.file} does not fit what is left to train and to score ({held_out}):\n"
                    f"{error}"
                ) from None


def _settings(options: Namespace, found: Sequence[Candidate]) -> dict[str, Any]:
    """What must stay the same in all commands that work in a study."""
    versions = {name: v for one in found for name, v in one.plan.distributions.items()}
    return {
        "layout": 1,
        "hold_out": options.hold_out,
        "seed": options.seed,
        "score": options.score,
        "prune": not options.no_prune,
        "pictures": list(found[0].plan.data.hashes.values()),
        "versions": {"reidcore": __version__, **versions},
        "files": {
            one.label: {
                "epochs": one.epochs,
                "ranges": {each.key: each.text for each in one.ranges},
                "settings": dict(one.settings),
            }
            for one in found
        },
    }


def _notes(found: Sequence[Candidate]) -> list[str]:
    """What a comparison of two files should be read with."""
    notes = []
    for number, one in enumerate(found):
        other = found[1 - number] if len(found) > 1 else one
        missing = {each.key for each in other.ranges} - {each.key for each in one.ranges}
        if missing:
            notes.append(f"{', '.join(sorted(missing))} has no place in {one.file}")
    if len({one.epochs for one in found}) > 1:
        each = " and ".join(f"{one.file} {one.epochs}" for one in found)
        notes.append(f"the files train for different numbers of epochs: {each}")
    counted = ("ap", "ties", "queries", "same_camera")
    ways = [[getattr(one.plan.runfile.eval, key) for key in counted] for one in found]
    if any(way != ways[0] for way in ways):
        notes.append("the files count scores in different ways ([eval])")
    return notes
