"""The run file with the best settings, and the comment above them."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable

from optuna.trial import FrozenTrial

from reid_tune.candidates import Candidate
from reid_tune.hold_out import HoldOut
from reid_tune.search import best_of, ended
from reid_tune.tables import Table
from reidcore.errors import ReidError
from reidcore.tools import toml_value, write_atomically


def write_found(
    options: Namespace, table: Table, held_out: HoldOut, say: Callable[[str], None]
) -> None:
    """Write the run file of the best trial, for each file that was tuned, and say so.

    Raises ReidError for those of which no trial came to its end.
    """
    failed = []
    for one in table.candidates:
        trials = table.trials[one.label]
        best = best_of(trials)
        if best is None:
            reasons = dict.fromkeys(ended(trial, table.score) for trial in trials)
            failed.append(f"{one.file}: no trial came to its end; {'; '.join(reasons)}")
            continue
        settings = one.drawn(best.params)
        text = one.text(settings, one.output.stem)
        header = _header(options, table, one, best, held_out)
        write_atomically(one.output, f"{header}\n{text}")
        words = ", ".join(f"{key} = {value}" for key, value in settings.items())
        if best.params == one.own:
            words += ", the file's own"
        say(f"wrote {one.output}: {table.score} {100 * (best.value or 0):.1f} by {words}")
    say(f"wrote {table.candidates[0].output.with_suffix('.csv')}")
    if failed:
        raise ReidError("\n".join(failed))


def _header(
    options: Namespace, table: Table, one: Candidate, best: FrozenTrial, held_out: HoldOut
) -> str:
    """The comment above what was found."""
    trials = table.trials[one.label]
    known = one.settings
    lines = [
        f"Trial {best.number} of {len(trials)} by reid tune: {table.score} "
        f"{100 * (best.value or 0):.2f} after the last epoch, the largest.",
        f"{held_out}.",
        "No test set was read. The score chose these settings, so it flatters them.",
        _command(options),
    ]
    for each in one.ranges:
        before = f"was {toml_value(known[each.key])}, " if each.key in known else ""
        value = each.shown(best.params[each.key])
        lines.append(f"{each.key} = {value} ({before}tried {each.text})")
    shown = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
    return "\n".join(f"# {line}" for line in shown)


def _command(options: Namespace) -> str:
    words = ["reid", "tune", *options.files, "--trials", str(options.trials)]
    words += [word for item in options.ranges for word in ("--set-range", item)]
    words += [word for item in options.sets for word in ("--set", item)]
    words += ["--hold-out", f"{options.hold_out:g}", "--score", options.score]
    words += ["--seed", str(options.seed), "--jobs", str(options.jobs)]
    words += ["--no-prune"] * options.no_prune
    words += [word for path in options.outputs or () for word in ("-o", str(path))]
    return shlex.join(words)
