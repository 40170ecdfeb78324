"""Completion of command lines, asked through the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributions import ROOT, write_distribution

from reidcore.api import how_to_install
from reidcore.cli.main import main

BASH = """
source "$SCRIPT"
COMP_LINE=TYPED COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_POINT=${#COMP_LINE}
_python_argcomplete reid
printf '%s\\n' "${COMPREPLY[@]}"
"""
PLUGIN = """
from reidcore.api import Command, hookimpl

@hookimpl
def reid_commands():
    return [Command("count", "PACKAGE.count:add", "count 100% of it")]
"""
COUNT = """
def add(parser):
    parser.add_argument("--words", choices=["many", "few"])
    return lambda options: 0
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """The environment of a shell where `reid` is installed, with the plugin `words`."""
    site = tmp_path_factory.mktemp("site")
    write_distribution(site, "words", PLUGIN, files={"count.py": COUNT})
    command = site / "bin/reid"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reidcore "$@"\n')
    command.chmod(0o755)
    script = site / "completion.bash"
    found = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{site}:{ROOT}",
        "SCRIPT": str(script),
        "TERM": "dumb",
    }
    made = subprocess.run(
        ["reid", "completion", "bash"], env=found, capture_output=True, text=True, check=True
    )
    script.write_text(made.stdout)
    return found


def in_bash(env, folder: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = BASH.replace("TYPED", shlex.quote(line), 1)
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return sorted(word.strip() for word in done.stdout.splitlines() if word.strip())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("reid com", ["compare", "completion"]),
        ("reid cou", ["count"]),
        ("reid count --words ", ["few", "many"]),
        ("reid --traceback run --re", ["--resume"]),
        ("reid run my", ["my.toml"]),
        ("reid run dem", ["demo"]),
        ("reid check qaconv:demo-tl", []),
        ("reid plugins wor", ["words"]),
        ("reid data ch", ["check"]),
        ("reid data check --read core.d", ["core.demo", "core.dukemtmc"]),
        ("reid run my.toml --set loss.id.smo", ["loss.id.smoothing="]),
        ("reid run nothing.toml --set optim.kin", ["optim.kind="]),
        ("reid compare fol", ["folder/"]),
    ],
)
def test_bash_completes(env, tmp_path, line, offered):
    """Commands, plugins' too, options, run files, plugins, readers and keys of a run file."""
    text = ROOT.joinpath("reidcore/runs/demo.toml").read_text()
    (tmp_path / "my.toml").write_text(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folded.txt").touch()
    assert in_bash(env, tmp_path, line) == offered


def test_packaged_run_files_are_offered(env, tmp_path):
    """The core's by name, plugins' by plugin and name."""
    offered = in_bash(env, tmp_path, "reid run ")
    assert "demo" in offered and "qaconv:demo" in offered and "core:demo" not in offered


def test_a_broken_file_disturbs_nobody(env, tmp_path):
    """What cannot be completed is not, and no message stands among the typed words."""
    (tmp_path / "broken.toml").write_text("[data\n")
    offered = in_bash(env, tmp_path, "reid run broken.toml --set train.see")
    assert offered == ["train.seed="]


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_with_descriptions(env, tmp_path):
    script = 'reid completion fish | source; complete -C "reid coun"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env={**env, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "count\tcount 100% of it\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(env, tmp_path):
    """In an interactive shell, the tabulator key ends the word."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path
    ) as shell:

        def type_in(text: str, expected: str) -> None:
            os.write(ours, text.encode())
            shown, end = b"", time.monotonic() + 60
            while expected.encode() not in shown:
                assert time.monotonic() < end, shown
                if select.select([ours], [], [], 0.5)[0]:
                    shown += os.read(ours, 4096)

        try:
            load = f"autoload -U compinit; compinit -u -d {tmp_path}/dump"
            type_in(f'{load}; eval "$(reid completion zsh)"; echo re""ady\n', "ready")
            type_in("reid comple\t", "reid completion ")
        finally:
            shell.kill()
            os.close(theirs)
            os.close(ours)


def test_without_argcomplete_it_says_what_to_install(monkeypatch, capsys):
    """Nothing else needs it."""
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    assert f"To install it: {how_to_install('reidcore[completion]')}" in capsys.readouterr().err
