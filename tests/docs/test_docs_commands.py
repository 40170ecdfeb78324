"""Every block of commands and of Python on the pages is listed in `commands.toml`, with how it is
tested: by a test of its own, by running it here, or, where it takes too much, by reading it."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import warm_python
from distributions import ROOT
from doc_blocks import PAGES, Block, blocks, commands, of_reid
from running import environment

from reidcore.builtin.readers.demo import Demo
from reidcore.cli.commands import find_command
from reidcore.cli.main import main
from reidcore.errors import ReidError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

pytest.importorskip("reid_gallery", reason="needs `uv run --all-groups`")

LISTED = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))
BEFORE: Mapping[str, str] = LISTED.pop("before")
WAYS = ("test", "run", "read")
FEW = ("train_identities=16", "test_identities=6", "pictures=8")


def way(block: Block) -> tuple[str, str]:
    """How a block is tested: (one of `WAYS`, test or reason)."""
    fitting = [start for start in LISTED.get(block.page, {}) if block.text.startswith(start)]
    if not fitting:
        return "", ""
    ((how, what),) = LISTED[block.page][max(fitting, key=len)].items()
    return how, what


EVERY = [block for page in PAGES for block in blocks(page)]
READ = [block for block in EVERY if way(block)[0] == "read"]


def test_every_block_is_listed():
    unlisted = [f"{block}: {block.text.splitlines()[0]}" for block in EVERY if not way(block)[0]]
    assert not unlisted, "say in tests/docs/commands.toml how these are tested"
    for page, starts in LISTED.items():
        texts = [block.text for block in EVERY if block.page == page]
        for start, entry in starts.items():
            assert any(text.startswith(start) for text in texts), (page, start)
            assert len(entry) == 1 and set(entry) <= set(WAYS), (page, start)


def test_the_tests_that_are_named_are_there():
    for block in EVERY:
        how, what = way(block)
        if how == "test":
            file, _, name = what.partition("::")
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), what


@pytest.mark.parametrize("block", [block for block in READ if not block.is_python], ids=str)
def test_commands_that_are_only_read(block, tmp_path, no_data, capsys):
    """Commands take the options they are given, run files that come along can be wired with the
    changes of `--set`, and scripts are there and know their options."""
    for words in commands(block, tmp_path):
        arguments = of_reid(words)
        if arguments:
            parsed(arguments)
            wired(arguments)
        elif "python" in words:
            has_script(words[words.index("python") + 1 :])
    assert "Traceback" not in capsys.readouterr().err


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options of a command. A run that would be fetched is taken for a folder."""
    arguments = ["." if word.startswith("hf://") else word for word in arguments]
    parser = argparse.ArgumentParser(prog=f"reid {arguments[0]}", exit_on_error=False)
    find_command(arguments[0]).arguments()(parser)
    return parser.parse_args(arguments[1:])


def wired(arguments: list[str]) -> None:
    """Check the run file of `reid run` and `reid tune`; its data and weights may be absent."""
    options = parsed(arguments)
    files = {"run": ["file"], "check": ["file"], "tune": ["files"]}.get(arguments[0], [])
    for found in (getattr(options, name) for name in files):
        for file in [found] if isinstance(found, str) else found:
            if not file.endswith(".toml"):
                sets = [word for one in options.sets for word in ("--set", one)]
                assert main(["check", "--no-dry", file, *sets]) in (0, 4), (file, sets)


def has_script(words: list[str]) -> None:
    """A script or module that Python is called with."""
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), words
        return
    text = (ROOT / words[0]).read_text()
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in text, (words[0], word)


@pytest.mark.parametrize("block", [block for block in READ if block.is_python], ids=str)
def test_python_that_is_only_read(block):
    """It is Python, and what it imports is there."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for one in node.names:
                importlib.import_module(one.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for one in node.names:
                assert hasattr(module, one.name), (node.module, one.name)


def walks(speed: str) -> list[str]:
    """The pages with blocks that are run here."""
    return [page for page in PAGES if any(way(b) == ("run", speed) for b in blocks(page))]


@pytest.mark.parametrize("page", walks("fast"))
def test_pages_that_run(page, tmp_path):
    walk(page, "fast", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", walks("slow"))
def test_pages_that_train(page, tmp_path):
    walk(page, "slow", tmp_path)


def walk(page: str, speed: str, folder: Path) -> None:
    """Run a page's blocks in order, in a folder with what they speak of; trainings are short, so
    that scores differ. Errors that are shown are those that come."""
    reader = Reader(folder)
    reader.run_all(Block(page, 0, "sh", BEFORE.get(page, ""), ""))
    for block in blocks(page):
        if way(block) == ("run", speed):
            reader.run_all(block)


class Reader:
    """Somebody in a folder with pictures: `seen`, which `seen.csv` lists, and new.jpg."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = environment(folder / "cache", REID_DATA="", HF_HUB_OFFLINE="1")
        rows = Demo(train_identities=4, test_identities=2, pictures=8).rows(folder / "drawn")
        (new, *seen) = [row for row in rows if row.split != "train"]
        shutil.copy(new.path, folder / "new.jpg")
        (folder / "seen").mkdir()
        lines = ["path,camera"]
        for row in seen:
            shutil.copy(row.path, folder / "seen")
            lines.append(f"seen/{Path(row.path).name},{row.camera}")
        (folder / "seen.csv").write_text("\n".join(lines) + "\n")

    def run_all(self, block: Block) -> None:
        if block.is_python:
            self.run(block, ["-c", block.text])
            return
        for words in commands(block, self.folder):
            arguments = of_reid(words)
            if arguments:
                self.run(block, ["-m", "reidcore", *short(arguments)])
            elif words[0] == "python":
                self.run(block, words[1:])
            elif words[0] != "pip":
                subprocess.run(words, cwd=self.folder, check=True, capture_output=True)

    def run(self, block: Block, arguments: list[str]) -> None:
        done = warm_python.run(arguments, self.env, self.folder, 300)
        if block.shown.startswith("error:"):
            assert done.returncode == 2 and done.stderr.strip() == block.shown.strip(), done.stderr
        else:
            assert done.returncode == 0, f"{block}: {arguments}\n{done.stdout}\n{done.stderr}"


def short(arguments: list[str]) -> list[str]:
    """A command that trains, on few pictures for one epoch unless it says how many."""
    if arguments[0] not in ("run", "tune"):
        return arguments
    try:
        data = tomllib.loads(find_packaged(arguments[1], Plugins()).text)["data"]
    except ReidError:
        return arguments
    roles = ["train"] + ["test.0"] * bool(data.get("test"))
    sets = ["train.epochs=1", *(f"data.{role}.{one}" for role in roles for one in FEW)]
    changes = [word for one in sets for word in ("--set", one)]
    trials = [
        word.replace("12", "2") if before == "--trials" else word
        for before, word in zip(["", *arguments], arguments, strict=False)
    ]
    return [*trials[:2], *changes, *trials[2:]]
