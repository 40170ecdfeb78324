"""The command `reid new-plugin`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.contracts.commands import RunCommand
from reidcore.support.installing import is_uvs
from reidcore.testing.new_plugin import EXAMPLES, USUAL, chosen_kinds, has_demo, new_plugin


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Write the folder reid-plugin-NAME: a package with a small working example of each kind, "
        "its tests, and a run file that uses them."
    )
    parser.add_argument("name", metavar="NAME", help="the plugin's name, such as spots")
    parser.add_argument(
        "--kinds",
        default=",".join(USUAL),
        metavar="KIND,...",
        help=f"any of {', '.join(EXAMPLES)} (default {','.join(USUAL)})",
    )
    return new_plugin_command


def new_plugin_command(options: Namespace) -> int:
    """`reid new-plugin NAME`; returns 0 or raises `ReidError`."""
    kinds = chosen_kinds(options.kinds)
    folder = Path(f"reid-plugin-{options.name.replace('_', '-')}")
    new_plugin(options.name, kinds, folder)
    dashed = options.name.replace("_", "-")
    examples = [
        f"reid {dashed}-{EXAMPLES[kind]}"
        if kind == "command"
        else f"{options.name}.{EXAMPLES[kind]}"
        for kind in kinds
    ]
    first = f"reid run {options.name}:{'demo' if has_demo(kinds) else 'pictures'}"
    if kinds == ["command"]:
        first = f"{examples[0]} --help"
    steps = f"cd {folder}; pip install -e . pytest; pytest; {first}"
    if is_uvs():  # which finds its environment from here alone
        steps = f"uv pip install -e {folder} pytest; uv run pytest {folder}; uv run {first}"
    print(f"wrote {folder} with {', '.join(examples)}\nnext: {steps}")
    return 0
