"""What is imported where: commands that only read text must not wait for torch."""

from __future__ import annotations

import json

import pytest
from distributions import ROOT, python

ROOMS = ("builtin/settings", "builtin/readers", "cli", "plugins", "protocols", "runfiles", "wiring")
"""Rooms in which nothing imports torch or numpy before it is called."""
MODULES = (
    "api",
    "builtin.plugin",
    "contracts.commands",
    "contracts.component",
    "contracts.explanations",
    "contracts.given",
    "contracts.openers",
    "contracts.settings",
    "data.datasets",
    "data.manifest",
    "errors",
    "evaluation.open_evaluation",
    "hookspecs",
    "runfolder.comparison",
    "runfolder.comparison_tables",
    "runfolder.drawn_galleries",
    "runfolder.folder",
    "runfolder.opening",
    "runfolder.record",
    "runfolder.results",
    "sizes",
    "support.cache_folder",
    "support.files",
    "support.repeats",
    "support.text_table",
    "support.wording",
    "tools",
    "training.train",
    "version",
)
"""The modules of other rooms that do not either."""
TORCH_FREE = MODULES + tuple(
    ".".join(path.relative_to(ROOT / "reidcore").with_suffix("").parts)
    for room in ROOMS
    for path in sorted((ROOT / "reidcore" / room).glob("*.py"))
    if path.name != "__init__.py"
)
HEAVY = ("torch", "torchvision", "numpy", "cattrs", "rich", "PIL", "safetensors")
LISTED = f"import json, sys; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
COMMAND = (
    "import sys, reidcore.cli.main\n"
    "try:\n    sys.exit(reidcore.cli.main.main(sys.argv[1:]))\n"
    "except SystemExit as end:\n    assert not end.code, end.code\n"
    f"{LISTED}"
)

MODULE_BY_MODULE = """
import importlib, sys
heavy = {"torch", "torchvision", "numpy", "PIL", "safetensors"}
for module in sys.argv[1:]:
    importlib.import_module(f"reidcore.{module}")
    assert not heavy & set(sys.modules), (module, heavy & set(sys.modules))
"""


def imported(folder, code: str, *arguments: str) -> set[str]:
    """Which heavy packages a fresh Python has imported after this code."""
    done = python(folder, "-c", code, *arguments)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (["--help"], set()),
        (["plugins"], set()),
        (["plugins", "core"], set()),
        (["runs"], set()),
        (["compare", "--help"], set()),
        (["run", "--help"], set()),
        (["explain", "--help"], set()),
        (["report", "--help"], set()),
        (["new-plugin", "--help"], set()),
        (["new-plugin", "spots"], set()),
        (["check", "--no-dry", "demo"], {"cattrs"}),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_commands(tmp_path, command, allowed):
    """Help and listings import none of the heavy packages, a check of wiring cattrs only."""
    assert imported(tmp_path, COMMAND, *command) <= allowed


def test_modules(tmp_path):
    """None of the modules that plugins and run files are read with imports torch or numpy. One
    Python imports them all, and names the first that does."""
    done = python(tmp_path, "-c", MODULE_BY_MODULE, *TORCH_FREE)
    assert done.returncode == 0, done.stderr


def test_the_heavy_packages_are_there(tmp_path):
    """What the tests above look for would be found: the torch half imports it."""
    assert {"torch", "numpy"} <= imported(tmp_path, f"import reidcore.modules\n{LISTED}")
