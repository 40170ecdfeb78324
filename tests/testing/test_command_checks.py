"""The conformance kit on commands of installed plugins, sound and unsound."""

from __future__ import annotations

import pytest
from distributions import reid, write_distribution

PLUGIN = """
from reidcore.api import Command, hookimpl

@hookimpl
def reid_commands():
    return [Command("NAME", "PACKAGE.count:add", "SUMMARY")]
"""
COUNT = """
def add(parser):
    parser.add_argument("words", nargs="*", help="what is counted")
    return lambda options: 0
"""
CHECKS = ("has a summary and help", "help is its own and imports no torch")


def checked(site, name="count", summary="count words", code=COUNT):
    """The report of `reid test-plugin` on the command of the plugin `words`."""
    text = PLUGIN.replace("NAME", name).replace("SUMMARY", summary)
    write_distribution(site, "words", text, requires=["reidcore>=1.0,<2"], files={"count.py": code})
    return reid(site, "test-plugin", "words", "--only", "command")


def test_a_sound_command_passes(tmp_path):
    done = checked(tmp_path)
    assert done.returncode == 0, done.stdout
    for check in CHECKS:
        assert f"ok     {check}" in done.stdout
    assert "2 checks, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("changes", "failed", "words"),
    [
        ({"summary": ""}, CHECKS[0], "it has no summary"),
        ({"code": COUNT.replace("add", "fill", 1)}, CHECKS[0], "has no attribute 'add'"),
        ({"code": COUNT.replace("return", "_ =")}, CHECKS[0], "returned None, not the function"),
        ({"code": COUNT.replace("is counted", "is 100 %! sure")}, CHECKS[0], "format"),
        ({"code": f"import numpy\n{COUNT}"}, CHECKS[1], "imports numpy; import what needs it"),
        ({"name": "runs"}, CHECKS[1], "shows another command: the name is the core's"),
    ],
    ids=["summary", "reference", "return", "percent", "heavy", "taken"],
)
def test_an_unsound_command_fails(tmp_path, changes, failed, words):
    """The check that fails says what to do."""
    done = checked(tmp_path, **changes)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    block = done.stdout.partition(f"FAILED {failed}")[2]
    assert words in " ".join(block.split()), done.stdout


def test_a_name_of_two_plugins_fails(tmp_path):
    """The other one is named."""
    text = PLUGIN.replace("NAME", "count").replace("SUMMARY", "count others")
    write_distribution(tmp_path, "others", text, files={"count.py": COUNT})
    done = checked(tmp_path)
    assert done.returncode == 3
    assert "others (reid-plugin-others 0.1.0)" in " ".join(done.stdout.split())
