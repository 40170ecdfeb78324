"""Installed packages that are damaged: each is a row of `reid plugins`, and breaks nothing else."""

from __future__ import annotations

import os

import pytest
from distributions import FINE, reid, write_distribution

INFO = "reid_plugin_bad-0.1.0.dist-info"


@pytest.fixture
def site(tmp_path):
    """An environment with the sound plugin `fine`, which has a run file."""
    write_distribution(tmp_path, "fine", files={"runs/small.toml": "# a small run\nformat = 1\n"})
    return tmp_path


def rows(site) -> dict[str, list[str]]:
    """The rows of `reid plugins` by plugin, split into words."""
    done = reid(site, "plugins")
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split() for line in done.stdout.splitlines()}


def assert_only_a_row(site, name: str, *words: str) -> None:
    """The commands work, the sound plugin is ok, and the bad one's row says these words."""
    found = rows(site)
    assert found["fine"][3] == "ok" and found["core"][3] == "ok"
    for said in words:
        assert said in " ".join(found[name]), found[name]
    for command in (["runs"], ["check", "--no-dry", "demo"], ["plugins", "fine"], ["--help"]):
        done = reid(site, *command)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe[\x00", "UnicodeDecodeError"),
        (b"[reidcore.plugins.v1]\nbad = reid_bad.\xe9\n", "UnicodeDecodeError"),
        (b"[reidcore.plugins.v1]\nbad reid_bad.plugin\n", "cannot be read"),
        (b"[reidcore.plugins.v1\nbad = reid_bad.plugin\n", "line 1 is no header of a group"),
        (b"bad = reid_bad.plugin\n[reidcore.plugins.v1]\n", "line 1 stands in no group"),
        (b"[console_scripts]\nthis is no entry point\n", "cannot be read"),
    ],
    ids=["utf-16", "latin-1", "no value", "open header", "no header", "another group"],
)
def test_entry_points_that_cannot_be_read(site, text, says):
    """The package has the row, since its plugins are unknown; who names one is told of it."""
    write_distribution(site, "bad")
    (site / INFO / "entry_points.txt").write_bytes(text)
    assert_only_a_row(site, "reid-plugin-bad", "broken", says, "Install it again.")
    done = reid(site, "plugins", "bad")
    assert done.returncode == 2 and "a package that cannot be read" in done.stderr
    done = reid(site, "plugins", "reid-plugin-bad")
    assert done.returncode == 3 and says in done.stderr


def test_metadata_that_are_no_text(site):
    """The plugin has the row: what it is and which core it needs is unknown."""
    write_distribution(site, "bad")
    (site / INFO / "METADATA").write_bytes(b"Name: reid-plugin-bad\nVersion: 1\nAuthor: \xe9\xff\n")
    assert_only_a_row(site, "bad", "reid-plugin-bad", "broken", "its METADATA cannot be read")
    assert reid(site, "plugins", "bad").returncode == 3


@pytest.mark.parametrize("text", [b"", b"\n\n\n", b"Name\nVersion", b"Requires-Dist: ???\n", None])
def test_metadata_that_say_little(site, text):
    """A sound plugin is used; what is not said about it is shown as unknown."""
    write_distribution(site, "bad")
    path = site / INFO / "METADATA"
    path.unlink()
    if text is not None:
        path.write_bytes(text)
    assert_only_a_row(site, "bad", "reid-plugin-bad")


def test_a_folder_of_metadata_without_name(site):
    """It says neither name nor version."""
    write_distribution(site, "bad")
    (site / INFO / "METADATA").write_text("")
    (site / INFO).rename(site / "nameless.dist-info")
    assert_only_a_row(site, "bad", "unknown distribution")


def test_a_plugin_that_is_one_module(site):
    """It has no folder of run files, and whatever is called `runs` beside it is not its own."""
    write_distribution(site, "bad")
    (site / "reid_single.py").write_text(FINE.replace("PACKAGE", "reid_single"))
    (site / INFO / "entry_points.txt").write_text("[reidcore.plugins.v1]\nbad = reid_single\n")
    (site / "runs").mkdir()
    (site / "runs" / "other.toml").write_text("# not its own\n")
    assert_only_a_row(site, "bad", "ok", "1 head")
    done = reid(site, "runs")
    assert "fine:small " in done.stdout and "bad:" not in done.stdout
    done = reid(site, "check", "bad:other")
    assert done.returncode == 2 and "It has none." in done.stderr
    assert "Traceback" not in reid(site, "test-plugin", "bad").stderr


def test_run_files_that_cannot_be_read(site):
    """Listed with what is wrong; only who asks for them gets an error, about the plugin."""
    write_distribution(site, "bad", files={"runs/good.toml": "# good\nformat = 1\n"})
    (site / "reid_bad" / "runs" / "latin.toml").write_bytes(b"# caf\xe9\nformat = 1\n")
    (site / "reid_bad" / "runs" / "folder.toml").mkdir()
    os.mkfifo(site / "reid_bad" / "runs" / "pipe.toml")
    (site / "reid_bad" / "runs" / "link.toml").symlink_to("nowhere")
    assert_only_a_row(site, "bad", "ok")
    listed = reid(site, "plugins").stdout
    assert "note: plugin bad: runs/latin.toml is not UTF-8 text" in listed
    assert "note: plugin bad: runs/folder.toml cannot be read: it is a folder" in listed
    lines = reid(site, "runs").stdout.splitlines()
    assert any(line.startswith("bad:good ") and line.endswith("good") for line in lines)
    assert sum("cannot be used: bad: runs/" in line for line in lines) == 4
    for name in ("latin", "pipe"):
        for command in (["check", f"bad:{name}"], ["runs", "bad", "--copy", name]):
            done = reid(site, *command)
            assert done.returncode == 3 and f"runs/{name}.toml" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "group",
    ["reidcore.plugin.v1", "reidcore.plugins", "reidcore_plugins.v1", "reidcore.Plugins.V1"],
)
def test_a_group_that_is_nearly_ours(site, group):
    """The message names the group, and what its author must write."""
    write_distribution(site, "bad", groups=[group])
    says = f"stands in the entry-point group '{group}', which nothing reads"
    assert_only_a_row(site, "bad", "broken", says)
    done = reid(site, "plugins", "bad")
    assert done.returncode == 3 and "its author must write 'reidcore.plugins.v1'." in done.stderr


def test_a_misspelt_group_takes_no_name(site):
    """Another package's misspelt entry of a sound plugin's name leaves that as it is."""
    for number, name in enumerate(("fine", "core")):
        write_distribution(
            site,
            name,
            distribution=f"reid-plugin-other{number}",
            package=f"reid_other{number}",
            groups=["reidcore.plugin.v1"],
        )
    done = reid(site, "plugins")
    assert done.returncode == 0
    states = [line.split()[:4] for line in done.stdout.splitlines()]
    assert ["fine", "reid-plugin-fine", "0.1.0", "ok"] in states
    assert ["fine", "reid-plugin-other0", "0.1.0", "broken"] in states
    assert [one[3] for one in states if one[0] == "core"] == ["ok", "broken"]
