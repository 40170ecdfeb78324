"""The command `reid`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from reidcore import __version__
from reidcore.errors import ReidError

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0 fine, 2 the run file or command can cure it, 3 a
    plugin is broken, 4 data or weights are missing or damaged, 1 the rest."""
    code = _main(argv)
    if os.environ.get("WORLD_SIZE", "1") != "1" and "torch" in sys.modules:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends one of several processes at once. Threads of torch's gloo that want the interpreter
    while it is taken down would abort it (seen in torch 2.15), and the whole job would fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    _yield_soon()
    _show_warnings_plainly()
    try:
        if options.command not in ("run", "eval"):
            _alone(options.command)
        code = int(options.func(options))
        sys.stdout.flush()
        return code
    except ReidError as error:
        if options.traceback:
            raise
        print(f"{_process()}error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in `reid plugins | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted; continue a run with --resume", file=sys.stderr)
        return 130


def _process() -> str:
    """Which process speaks, where torchrun has started several."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "


def _yield_soon() -> None:
    """Lets torch's threads, once it is imported, wait for each other by spinning 15 us, not 5 ms:
    where cores are shared with reading threads or other programs, steps are many times faster."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _show_warnings_plainly() -> None:
    import warnings

    def show(message: Any, category: Any, *_: Any, **__: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    warnings.simplefilter("default", FutureWarning)
    warnings.showwarning = show


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="reid", description="Object re-identification from run files and plugins."
    )
    parser.add_argument("--version", action="version", version=f"reidcore {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error arose"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )

    from reidcore import run_cli

    run_cli.add_parser(commands, _file_argument)
    check = commands.add_parser(
        "check", help="check a run file without training",
        description="Check a run file: its keys, how its parts fit together and, by a dry run on "
        "a random batch, that they do what they promise. Prints the plan.",
    )  # fmt: skip
    _file_argument(check)
    check.add_argument(
        "--no-dry", action="store_true", help="only keys and wiring, without importing torch"
    )
    check.set_defaults(func=_check)

    evaluation = commands.add_parser(
        "eval", help="evaluate a trained run",
        description="Evaluate a run folder's weights on its test sets, or as FILE says. Loads only "
        "what its rankings reach, so plugins that only train may be missing.",
    )  # fmt: skip
    evaluation.add_argument("folder", type=Path, metavar="RUN_DIR")
    _evaluation_argument(evaluation)
    _set_argument(evaluation)
    evaluation.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write scores as JSON"
    )
    evaluation.set_defaults(func=_eval)

    runs = commands.add_parser(
        "runs", help="list or copy the run files that come with plugins",
        description="List the run files that come with the core and with installed plugins. "
        "`reid run PLUGIN:NAME` runs one.",
    )  # fmt: skip
    runs.add_argument("plugin", nargs="?", metavar="PLUGIN")
    runs.add_argument("--copy", metavar="NAME", help="write PLUGIN:NAME into the current folder")
    runs.set_defaults(func=_runs)

    from reidcore import (
        compare,
        data_cli,
        explain_cli,
        new_plugin,
        plugins_cli,
        report_cli,
        search_cli,
        testing_cli,
    )

    compare.add_parser(commands)
    search_cli.add_parsers(commands, _evaluation_argument)
    explain_cli.add_parser(commands, _evaluation_argument)
    report_cli.add_parser(commands)
    plugins_cli.add_parser(commands)
    new_plugin.add_parser(commands)
    testing_cli.add_parser(commands)
    data = data_cli.add_parser(commands)
    demo = data.add_parser(
        "demo", help="draw the demo data set", description="Draw the demo data set into a folder."
    )
    demo.add_argument("folder", type=Path, metavar="FOLDER")
    demo.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of core.demo, such as seed=1; see reid plugins core",
    )  # fmt: skip
    demo.set_defaults(func=_data_demo)
    return parser


def _file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a run file, or the name of a packaged one such as demo"
    )
    _set_argument(parser)


def _set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE",
        help="change a key, such as train.seed=1 or, by instance name, loss.id.smoothing=0.1",
    )  # fmt: skip


def _evaluation_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE",
        help="a TOML file whose [data] test, [[ranking]], [[post]] and [eval] replace the run's",
    )  # fmt: skip


def _alone(command: str) -> None:
    """Refuses to do in each of several processes what is work for one."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        from reidcore.errors import UsageError

        raise UsageError(
            f"`reid {command}` works in one process, and torchrun has started {count} "
            "(WORLD_SIZE); several processes share the work of `reid run` and `reid eval`"
        )


def _check(options: argparse.Namespace) -> int:
    from reidcore.packaged import run_source
    from reidcore.plan import describe_plan
    from reidcore.plugins import Plugins
    from reidcore.run_cli import check_repeats
    from reidcore.runfile import parse_runfile
    from reidcore.wiring import make_plan

    plugins = Plugins()
    text, path = run_source(options.file, plugins)
    run = parse_runfile(text, path, options.sets)
    plan = make_plan(run, plugins, allow_missing=True)
    check_repeats(plugins, run, text, path, options.sets)
    print(describe_plan(plan))
    if options.no_dry:
        print("ok: keys and wiring (no dry run)")
        return 0
    from reidcore.dryrun import dry_run
    from reidcore.model import build_model, choose_device

    device = choose_device(run.train.device)
    model = build_model(plan, run.train.seed).to(device)
    model.freeze_norms(run.train.frozen_norm)
    for note in [*model.notes, *dry_run(plan, model)]:
        print(f"note: {note}")
    print(f"ok: keys, wiring and dry run on {device}")
    return 0


def _eval(options: argparse.Namespace) -> int:
    from reidcore.plugins import Plugins
    from reidcore.progress import Silent, reporter
    from reidcore.runfolder import check_output, load_model, read_run, write_json
    from reidcore.wiring import make_plan

    check_output(options.output)
    lock, run = read_run(options.folder, options.file, options.sets)
    plan = make_plan(run, Plugins(), purpose="eval", make_data=True, training=lock["training"])
    from reidcore.kept import KeptBlocks, scoring_key
    from reidcore.processes import together
    from reidcore.ranking import evaluate, score_table
    from reidcore.test_sets import require_scorable
    from reidcore.training import make_loader

    require_scorable(plan)

    with together() as processes:
        shown = reporter() if processes.first else Silent()
        try:
            model = load_model(options.folder, plan, run.train.device)
            kept = KeptBlocks(options.folder, lambda: scoring_key(plan, model), shown)
            scores = evaluate(plan, model, make_loader(plan, model.device), shown, kept, processes)
        finally:
            shown.close()
        if not processes.first:
            return 0
    print(score_table(scores))
    if options.output is not None:
        write_json(options.output, scores)
    return 0


def _runs(options: argparse.Namespace) -> int:
    from reidcore.errors import UsageError
    from reidcore.packaged import find_packaged, packaged_runs
    from reidcore.plugins import Plugins
    from reidcore.runfolder import write_atomically

    plugins = Plugins()
    if options.copy:
        name = options.copy if options.plugin is None else f"{options.plugin}:{options.copy}"
        run = find_packaged(name, plugins)
        target = Path(f"{run.name}.toml")
        if target.exists():
            raise UsageError(f"{target.absolute()} exists already; move it away first")
        write_atomically(target, run.text)
        print(f"wrote {target}")
        return 0
    found = list(packaged_runs(plugins, options.plugin))
    width = max((len(run.full_name) for run in found), default=0)
    for run in found:
        print(f"{run.full_name:{width}}  {run.summary}".rstrip())
    if not found:
        print(f"plugin {options.plugin!r} has no run files")
    return 0


def _data_demo(options: argparse.Namespace) -> int:
    from reidcore.data_cli import configured
    from reidcore.errors import UsageError
    from reidcore.readers import Demo

    if options.folder.exists():
        raise UsageError(f"{options.folder.absolute()} exists already; name a new folder")
    rows = configured(Demo, options.sets).rows(options.folder)
    print(f"drew {len(rows)} pictures into {options.folder}")
    return 0
