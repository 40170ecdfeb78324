"""`reid plugins [NAME]` in environments with sound and unsound plugins."""

from __future__ import annotations

import json
import re
import types
from unittest.mock import ANY

import attrs
import pytest
from distributions import FINE, REID, ROOT, python, reid, write_distribution

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
    # Where the machine is busy, notes say that a plugin is slow.
    tables = [text.partition("note: ")[0] for text in (done.stdout, reid(crowd, "plugins").stdout)]
    assert tables[0] == tables[1]


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


def test_json_has_what_the_table_shows(crowd):
    """Broken plugins are rows, too; the form is that of docs/contracts.md."""
    done = reid(crowd, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    page = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    page = page.partition("## Listings for programs")[2].partition("## Versions")[0]
    assert set(found) == {"format", "reidcore", "group", "plugins", "notes"}
    keys = {key for key in (*found, *found["plugins"][0]) if f"`{key}`" not in page}
    assert not keys, keys
    rows = {one["name"]: one for one in found["plugins"]}
    lines = reid(crowd, "plugins").stdout.partition("note: ")[0].splitlines()[1:]
    assert [one["name"] for one in found["plugins"]] == [line.split()[0] for line in lines]
    for line in lines:
        row = rows[line.split()[0]]
        assert f" {row['state']} " in line and row["message"] in line
        assert all(f"{one['name']} {one['version']}" in line for one in row["distributions"])
    assert "division by zero" in rows["broken"]["message"] and rows["broken"]["components"] == []
    assert [one["name"] for one in rows["twin"]["distributions"]] == [
        "reid-plugin-twin-a",
        "reid-plugin-twin-b",
    ]
    assert {"name": "core:demo", "summary": ANY, "problem": ""} in rows["core"]["run_files"]


def test_json_of_one_plugin(crowd):
    """All that its page shows; one that cannot be used is an error as without --json."""
    (fine,) = json.loads(reid(crowd, "plugins", "fine", "--json").stdout)["plugins"]
    (stripes,) = fine["components"]
    shown = reid(crowd, "plugins", "fine").stdout
    assert stripes["kind"] == "head" and stripes["name"] == "fine.stripes"
    for text in (stripes["summary"], stripes["paper"]):
        assert text in shown
    assert stripes["settings"][:2] == [
        {"key": "source", "type": "map name", "default": None, "bounds": "", "doc": ANY},
        {"key": "parts", "type": "integer", "default": "6", "bounds": "at least 1", "doc": ANY},
    ]
    done = reid(crowd, "plugins", "broken", "--json")
    assert done.returncode == 3 and done.stdout == "" and "division by zero" in done.stderr


def test_a_slow_plugin_is_noted(tmp_path):
    """In the listing, where its import is waited for."""
    write_distribution(tmp_path, "slow", f"{FINE}\nimport time\ntime.sleep(0.6)\n")
    listed = reid(tmp_path, "plugins").stdout
    assert "note: plugin slow (reid-plugin-slow 0.1.0): importing this plugin takes " in listed


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
