"""The command `reid new-plugin`."""

from __future__ import annotations

import argparse
from pathlib import Path

from reidcore.plugins.registration import KINDS
from reidcore.testing.new_plugin import EXAMPLES, USUAL, _has_demo, chosen_kinds, new_plugin


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `new-plugin`; it sets `func(options) -> exit code`, which may raise
    `ReidError`."""
    parser = subparsers.add_parser(
        "new-plugin",
        help="write the package of a new plugin, which works as it is",
        description="Write the folder reid-plugin-NAME: a package with a small working component "
        "of each kind, its tests, and a run file that uses them.",
    )
    parser.add_argument("name", metavar="NAME", help="the plugin's name, such as spots")
    parser.add_argument(
        "--kinds",
        default=",".join(USUAL),
        metavar="KIND,...",
        help=f"any of {', '.join(KINDS)} (default {','.join(USUAL)})",
    )
    parser.set_defaults(func=run_new_plugin)


def run_new_plugin(options: argparse.Namespace) -> int:
    """`reid new-plugin NAME`; returns 0 or raises `ReidError`."""
    kinds = chosen_kinds(options.kinds)
    folder = Path(f"reid-plugin-{options.name.replace('_', '-')}")
    new_plugin(options.name, kinds, folder)
    run = "demo" if _has_demo(kinds) else "pictures"
    print(
        f"wrote {folder} with {', '.join(f'{options.name}.{EXAMPLES[kind]}' for kind in kinds)}\n"
        f"next: cd {folder}; pip install -e . pytest; pytest; reid run {options.name}:{run}"
    )
    return 0
