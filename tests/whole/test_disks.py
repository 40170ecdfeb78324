"""Commands on disks that take nothing more, in folders without permission, and on files that cannot
be read: a sentence with the path, the right exit code, and nothing left."""

from __future__ import annotations

import io
import os
import pwd
import shutil
from pathlib import Path

import pytest
from disks import files_of, permissions_hold
from distributions import write_distribution
from running import TINY

from reidcore.builtin.readers.demo import Demo
from reidcore.cli.main import main
from reidcore.cli.streams import _Output
from reidcore.errors import OutputError, UsageError

COPY = """
from pathlib import Path

def add(parser):
    parser.add_argument("output", type=Path)
    return run

def run(options):
    from reidcore.tools import check_output, write_atomically
    check_output(options.output)
    write_atomically(options.output, "copied" * 100)
    return 0
"""
COMMANDS = {
    "run": "run tiny.toml --out OUT/run --no-dry",
    "eval": "eval run -o OUT/scores.json",
    "rank": "rank run --query query --gallery query -o OUT/ranked.csv",
    "index": "index run query -o OUT/deep/index",
    "explain": "explain run --query query --gallery query --limit 1 --top 1 -o OUT/why",
    "compare": "compare run --csv OUT/runs.csv",
    "report": "report run --no-data -o OUT/report.html",
    "report-png": "report run --no-data -o report.html --png OUT",
    "data-index": "data index query --pattern {pid}_c{camera}_*.jpg -o OUT/manifest.csv",
    "data-demo": "data demo OUT/demo --set train_identities=2 --set test_identities=2",
    "drawn": "run tiny.toml --set data.train.seed=1 --out run2 --no-dry",
    "new-plugin": "new-plugin spots",
    "runs": "runs --copy demo",
    "plugin": "copying OUT/copy.txt",
}
"""Every command that writes; those without OUT write into the current folder, or into the cache."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a trained run, some pictures, and a plugin whose command writes."""
    folder = tmp_path_factory.mktemp("disks")
    plugin = (
        "from reidcore.api import Command, hookimpl\n@hookimpl\ndef reid_commands():\n"
        "    return [Command('copying', 'PACKAGE.copying:add', 'copies')]\n"
    )
    write_distribution(folder / "site", "copying", plugin, files={"copying.py": COPY})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        (folder / "tiny.toml").write_text(TINY)
        assert main(["run", "tiny.toml", "--out", "run", "--set", "train.epochs=1"]) == 0
        (drawn,) = (folder / "cache").iterdir()
        shutil.copytree(drawn / "query", "query")
    return folder


@pytest.fixture
def here(base, tmp_path, monkeypatch):
    """The current folder, with an empty folder `out`."""
    for name in ("run", "query", "tiny.toml"):
        (tmp_path / name).symlink_to(base / name)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(base / "site")
    monkeypatch.setenv("REID_CACHE", str(base / "cache"))
    monkeypatch.delenv("REID_DATA", raising=False)
    return tmp_path


def files(*folders: Path) -> dict[str, bytes | None]:
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("where", ["full", "closed"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_written_is_said(here, base, monkeypatch, capsys, command, where):
    """Exit code 1, the path, no traceback, and every folder as it was."""
    out = here / "out"
    words = COMMANDS[command].replace("OUT", str(out)).split()
    if command == "drawn":
        monkeypatch.setenv("REID_CACHE", str(out / "cache"))
    elif "OUT" not in COMMANDS[command]:
        monkeypatch.chdir(out)
    if where == "closed":
        out.chmod(0o500)
    before = files(here, base / "cache", base / "run")
    with files_of(100) if where == "full" else permissions_hold():
        code = main(words)
    error = capsys.readouterr().err
    assert code == 1, error
    assert error.startswith("error: ") and len(error) < 1000
    why = "File too large" if where == "full" else "Permission denied"
    assert why in error and str(out) in error and "Traceback" not in error
    assert files(here, base / "cache", base / "run") == before


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tiny.toml", "run tiny.toml"),
        ("tiny.toml", "check tiny.toml"),
        ("tiny.toml", "eval run tiny.toml"),
        ("run/lock.json", "eval run"),
        ("run/lock.json", "compare run"),
        ("run/lock.json", "run tiny.toml --out run --resume"),
        ("run/run.toml", "rank run --query query --gallery query"),
        ("run/weights.safetensors", "rank run --query query --gallery query"),
        ("run/weights.safetensors", "eval run"),
        ("run/scores.json", "compare run"),
        ("run/scores.json", "report run -o page.html"),
        ("run", "eval run"),
        ("run", "run tiny.toml --out run --resume"),
        ("query", "rank run --query query --gallery run"),
        ("query", "index run query -o index"),
        ("query", "data index query"),
        ("query", "data check query"),
        ("query/manifest.csv", "data check query"),
    ],
)
def test_what_cannot_be_read_is_said(base, tmp_path, monkeypatch, capsys, name, command):
    """Exit code 4 and the path; it is not called missing."""
    for part in ("run", "query"):
        shutil.copytree(base / part, tmp_path / part)
    (tmp_path / "query" / "manifest.csv").touch()
    shutil.copyfile(base / "tiny.toml", tmp_path / "tiny.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(base / "cache"))
    before = files(tmp_path)
    (tmp_path / name).chmod(0)
    try:
        with permissions_hold():
            code = main(command.split())
    finally:
        (tmp_path / name).chmod(0o700)
    error = capsys.readouterr().err
    assert code == 4, error
    assert name in error and "Permission denied" in error and "missing" not in error
    assert files(tmp_path) == before


def test_templates_on_a_full_disk(here, base, capsys):
    """`eval.templates = "disk"` needs room in the run folder, and gives it back."""
    before = files(base / "run")
    with files_of(100):
        assert main(["eval", "run", "--set", 'eval.templates="disk"']) == 1
    assert "File too large" in capsys.readouterr().err
    assert files(base / "run") == before


def test_a_missing_home_is_said(monkeypatch, tmp_path):
    """Where drawn pictures are kept there, as in a container of an unknown user."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("REID_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(UsageError, match="REID_CACHE"):
        Demo().default_root()


def test_a_current_folder_that_has_gone_is_said(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for command in ("data check x", "new-plugin spots", "runs --copy demo", "run demo"):
        assert main(command.split()) == 1
        error = capsys.readouterr().err
        assert "has gone" in error or "cannot write" in error


def test_output_that_takes_no_more():
    """Whether it is printed at once or held back; a reader that has gone is no error of ours."""
    for text, flush in (("x" * 100_000, False), ("x", True)):
        stream = _Output(io.BufferedWriter(io.FileIO("/dev/full", "w")))
        with pytest.raises(OutputError, match="output could not be written: No space left"):
            print(text, file=stream, flush=flush)
    reader, writer = os.pipe()
    os.close(reader)
    stream = _Output(io.BufferedWriter(io.FileIO(writer, "w")))
    with pytest.raises(BrokenPipeError):
        print("x", file=stream, flush=True)
