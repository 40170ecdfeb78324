"""`reid plugins [NAME]` in environments with sound and unsound plugins."""

from __future__ import annotations

import re
import types

import attrs
import pytest
from distributions import REID, python, reid, write_distribution

from reidcore.api import Component, hookimpl, setting
from reidcore.cli.plugins import details, listing
from reidcore.plugins.loading import Plugins


@pytest.fixture
def crowd(tmp_path):
    """Sound, broken, too-new, twin and exiting plugins in one environment."""
    write_distribution(tmp_path, "fine")
    write_distribution(tmp_path, "broken", "1 / 0")
    write_distribution(tmp_path, "leaver", "raise SystemExit")
    write_distribution(tmp_path, "future", groups=["reidcore.plugins.v2"])
    for letter in "ab":
        distribution, package = f"reid-plugin-twin-{letter}", f"reid_twin_{letter}"
        write_distribution(tmp_path, "twin", distribution=distribution, package=package)
    return tmp_path


def test_one_row_each(crowd):
    """The listing shows every plugin on a line of its own and succeeds."""
    done = reid(crowd, "plugins")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert rows["core"].split()[0] == "reidcore" and " ok " in rows["core"]
    assert rows["fine"].split() == ["reid-plugin-fine", "0.1.0", "ok", "1", "head"]
    assert rows["broken"].endswith("division by zero, at reid_broken/plugin.py:1.")
    assert "SystemExit" in rows["leaver"]
    assert "other API" in rows["future"]
    assert "reid-plugin-twin-a 0.1.0, reid-plugin-twin-b 0.1.0" in rows["twin"]
    assert done.stdout == reid(crowd, "plugins").stdout


@pytest.mark.parametrize(
    ("name", "code"),
    [("fine", 0), ("core", 0), ("fin", 2), ("broken", 3), ("future", 3), ("twin", 3)],
)
def test_exit_codes(crowd, name, code):
    """Naming a plugin fails with 2 if there is none, with 3 if it cannot be used."""
    done = reid(crowd, "plugins", name)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == bool(code) and bool(done.stdout) != bool(code)


def test_details(crowd):
    """A plugin's page has every component with its settings, ranges, defaults and docs."""
    done = reid(crowd, "plugins", "fine")
    assert done.stdout == (
        "fine: reid-plugin-fine 0.1.0, module reid_fine.plugin\n\n"
        "HEADS\n\n"
        "  fine.stripes\n"
        "    horizontal stripes\n"
        "    Paper: Sun et al., ECCV 2018\n"
        "      source  map name, required\n"
        "                the map to cut\n"
        "      parts   integer, at least 1, default 6\n"
        "                number of stripes\n"
        '      pool    one of "average" | "max", default "average"\n'
        "                how a stripe is pooled\n"
    )


def test_light(crowd):
    """The command imports neither torch nor numpy."""
    # -X importtime would not show what importlib.import_module() imports.
    done = python(crowd, "-v", *REID, "plugins", "core")
    imported = set(re.findall(r"^import '([\w.]+)'", done.stderr, flags=re.MULTILINE))
    assert "reidcore.builtin.plugin" in imported
    assert not imported & {"torch", "numpy", "cattrs", "rich"}


@pytest.mark.parametrize("width", [50, 80, 120])
def test_fits_a_terminal(width):
    """On a terminal no line is wider than the window."""

    @attrs.frozen
    class Config:
        size: int = setting("some words about it " * 9, default=3, at_least=1)

        def outputs(self, given): ...

    keys = {"summary": "word " * 40, "paper": "name " * 40, "deprecated": "old " * 40}
    plugins = Plugins(found=[])
    hook = hookimpl(lambda: [Component("part", Config, "package:build", **keys)])
    plugins.add("toy", types.SimpleNamespace(reid_heads=hook))
    plugins.add("bad", types.SimpleNamespace(reid_heads=hookimpl(lambda: None)))
    for lines in (listing(plugins.rows(), width), details(plugins.load("toy"), width)):
        assert all(len(line) <= width for line in lines)
        assert not any(line != line.rstrip() for line in lines)
