"""The command `reid check`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from reidcore.cli.as_json import add_json, print_json
from reidcore.cli.options import add_file
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Check a run file: its keys, how its parts fit together and, by a dry run on a random "
        "batch, that they do what they promise. Prints the plan."
    )
    add_file(parser)
    parser.add_argument(
        "--no-dry", action="store_true", help="only keys and wiring, without importing torch"
    )
    add_json(parser, " of the plan")
    return check


def check(options: Namespace) -> int:
    """`reid check`; returns 0 or raises `ReidError`."""
    from reidcore.cli.repeats import check_repeats
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.packaged_runs import run_source
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.training.teachers import find_run
    from reidcore.wiring.describe import describe_plan, plan_as_data
    from reidcore.wiring.make_plan import make_plan

    plugins = Plugins()
    run = parse_runfile(*run_source(options.file, plugins), options.sets)
    plan = make_plan(run, plugins, allow_missing=True, find_run=find_run)
    check_repeats(plugins, run, options.sets)
    if not options.json:
        print(describe_plan(plan))
    if options.no_dry:
        if options.json:
            print_json({**plan_as_data(plan), "dry_run": None})
        else:
            print("ok: keys and wiring (no dry run)")
        return 0
    from reidcore.model.building import build_model, choose_device
    from reidcore.training.dry_observers import check_observers
    from reidcore.training.dry_run import dry_run

    device = choose_device(run.train.device)
    model = build_model(plan, run.train.seed).to(device)
    model.freeze_norms(run.train.frozen_norm)
    notes = [*model.notes, *dry_run(plan, model), *check_observers(plugins, model)]
    if options.json:
        dry = {"device": str(device), "notes": notes}
        print_json({**plan_as_data(plan), "dry_run": dry})
        return 0
    for note in notes:
        print(f"note: {note}")
    print(f"ok: keys, wiring and dry run on {device}")
    return 0
