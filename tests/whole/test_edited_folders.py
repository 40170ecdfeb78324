"""Run folders and indexes that were edited or damaged: every command that reads them answers with
one sentence, which names the file and what is wrong in it, and exit code 4."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path

import pytest
from folder_edits import (
    Edit,
    csv_cells,
    headers,
    json_sizes,
    json_texts,
    json_values,
    states,
    tensors,
    whole_files,
)
from running import TINY

from reidcore.cli.main import main
from reidcore.support.progress import Silent
from reidcore.tools import load, train

WEIGHTS = ("backbone.network.layer1.0.conv1.weight", "head.neck.norm.num_batches_tracked")
PAIRS = ("pairs.look.same", "pairs.look.different")
RUN_FILE = (
    ("no format", "format = 1", ""),
    ("another format", "format = 1", "format = 99"),
    ("an open list", "[32, 16]", "[32, 16"),
    ("a text for a size", "[32, 16]", '["32", "16"]'),
    ("a far number", "lr = 1e-3", f"lr = 1{'0' * 400}"),
    ("a long number", "lr = 1e-3", f"lr = {'9' * 5000}"),
    ("a deep list", "epochs = 2", f"epochs = {'[' * 2000}{']' * 2000}"),
    ("a misspelt key", "depth = 18", "dpeth = 18"),
    ("a wrong setting", "width = 0.125", 'width = "wide"'),
    ("no backbone", "[backbone]", "[bakcbone]"),
    ("an unknown feature", '"neck.bn"', '"neck.nb"'),
)


class _Killed(Exception):
    pass


class _Killer(Silent):
    """Ends a run after its first epoch, as a kill would."""

    def epoch_ended(self, row) -> None:
        raise _Killed


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with `run`, which is finished, `cut`, which is not, and `index`, a gallery."""
    folder = tmp_path_factory.mktemp("edited")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        train("tiny.toml", "run", check=False)
        with pytest.raises(_Killed):
            train("tiny.toml", "cut", check=False, reporter=_Killer())
        pictures = sorted((tmp_path_factory.getbasetemp() / "cache").glob("*/query/*"))[:3]
        for name in ("query", "gallery"):
            Path(name).mkdir()
            for picture in pictures:
                shutil.copy(picture, name)
        load("run", device="cpu").index("gallery", "index")
        yield folder


def edits(here: Path, seed: int) -> dict[str, list[Edit]]:
    """{folder: edits of its files}."""
    dice = random.Random(seed)

    def content(file: str):
        return json.loads((here / file).read_text())

    def free(path) -> bool:
        """What may be anything, or follows from another value: names, data entries, parts."""
        data = ("data", "train"), ("data", "test"), ("data", "augment"), ("data", "batch")
        if path[0] == "protocols":
            return len(path) > 2 and path[2] != "use"
        return path[0] == "resolved" and (
            path[1:2] in (("format",), ("name",), ("plugins",))
            or path[1:3] in data
            or (path[1:2] == ("parts",) and len(path) > 3)
        )

    def none(path) -> bool:
        return False

    def run_file(old: str, new: str):
        def change(path: Path) -> None:
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))

        return change

    facts = [("layout",), ("training", "identities"), ("training", "cameras")]
    weights = here / "run" / "weights.safetensors"

    def lock(folder: str) -> list[Edit]:
        return [
            *json_texts("lock.json"),
            *json_values("lock.json", content(f"{folder}/lock.json"), free, dice),
            *json_sizes("lock.json", facts if folder == "run" else facts[:1]),
        ]

    return {
        "run": [
            *itertools.chain.from_iterable(
                whole_files(file)
                for file in (
                    "lock.json",
                    "run.toml",
                    "scores.json",
                    "means.csv",
                    "scores-by-epoch.json",
                    "weights.safetensors",
                )
            ),
            *lock("run"),
            *json_texts("scores.json"),
            *json_values("scores.json", content("run/scores.json"), none, dice),
            *(edit for edit in json_texts("scores-by-epoch.json") if edit.what != "a list"),
            *json_values("scores-by-epoch.json", content("run/scores-by-epoch.json"), none, dice),
            *csv_cells("means.csv"),
            *(Edit("run.toml", what, run_file(old, new)) for what, old, new in RUN_FILE),
            Edit(
                "run.toml",
                "of another network",
                run_file("width = 0.125", "width = 0.25"),
                named="weights.safetensors",
            ),
            *tensors("weights.safetensors", weights, [*WEIGHTS, *PAIRS], dice),
            *headers("weights.safetensors"),
            *(
                Edit(file, "missing", Path.unlink)
                for file in ("lock.json", "run.toml", "scores.json", "weights.safetensors")
            ),
        ],
        "cut": [
            *whole_files("lock.json"),
            *lock("cut"),
            *whole_files("resume.safetensors"),
            *headers("resume.safetensors"),
            *states("resume.safetensors", here / "cut" / "resume.safetensors", dice),
            Edit("lock.json", "missing", Path.unlink),
        ],
        "index": [
            *whole_files("index.json"),
            *whole_files("manifest.csv"),
            *whole_files("templates.safetensors"),
            *json_texts("index.json"),
            *json_values("index.json", content("index/index.json"), none, dice),
            *json_sizes("index.json", [("layout",), ("pictures",), ("made_by",)]),
            *headers("templates.safetensors"),
            *tensors(
                "templates.safetensors",
                here / "index" / "templates.safetensors",
                ["look.vector"],
                dice,
            ),
            *(
                Edit(file, "missing", Path.unlink)
                for file in ("index.json", "manifest.csv", "templates.safetensors")
            ),
        ],
    }


PICTURES = ("--query", "query", "--gallery")
COMMANDS = {
    "compare": ("compare", "edited"),
    "report": ("report", "edited", "--no-data", "-o", "page.html"),
    "eval": ("eval", "edited"),
    "rank": ("rank", "edited", *PICTURES, "gallery"),
    "explain": ("explain", "edited", *PICTURES, "gallery", "-o", "drawn", "--limit", "1"),
    "resume": ("run", "tiny.toml", "--out", "edited", "--resume", "--no-dry"),
    "rank index": ("rank", "run", *PICTURES, "edited"),
    "explain index": ("explain", "run", *PICTURES, "edited", "-o", "drawn", "--limit", "1"),
}
READERS = {
    "lock.json": ("compare", "report", "eval", "rank", "explain"),
    "run.toml": ("eval", "rank", "explain"),
    "scores.json": ("compare", "report", "resume"),
    "means.csv": ("compare", "report"),
    "scores-by-epoch.json": ("report",),
    "weights.safetensors": ("eval", "rank", "explain"),
}
"""The commands that read a file of a finished run."""


def readers(folder: str, edit: Edit) -> tuple[str, ...]:
    """The commands that must answer to an edit of a file in a folder."""
    if folder == "index":
        return "rank index", "explain index"
    if folder == "cut":
        return ("resume",)
    if (edit.file, edit.what) == ("scores.json", "missing"):
        return ("compare",)  # a report shows what there is, and a resumed run is finished
    if edit.file == "lock.json" and edit.what.endswith(" missing"):
        return "eval", "rank", "explain"  # the others do without what was not always there
    return READERS[edit.file]


def wrong(folder: str, edit: Edit, command: str, capsys) -> str:
    """What is wrong with a command's answer to an edited folder, "" if nothing is."""
    for name in ("edited", "drawn"):
        shutil.rmtree(name, ignore_errors=True)
    shutil.copytree(folder, "edited")
    edit.do(Path("edited", edit.file))
    capsys.readouterr()
    try:
        code = main(COMMANDS[command])
    except BaseException as error:
        return f"{folder} {edit}: {command} raised {error!r}"
    message = capsys.readouterr().err
    if code != 4:
        return f"{folder} {edit}: {command} ended with {code}: {message}"
    last = message.partition("error: ")[2].rstrip()
    if (edit.named or edit.file) not in last or edit.key not in last or len(message) >= 1000:
        return f"{folder} {edit}: {command} said {message} without {edit.file} {edit.key}"
    return ""


def faults(here: Path, capsys, seed: int, count: int | None) -> list[str]:
    """What is wrong with the answers to some edits, each of which one command is given."""
    dice = random.Random(seed)
    every = [(folder, edit) for folder, found in edits(here, seed).items() for edit in found]
    assert len(every) > 300
    some = every if count is None else dice.sample(every, count)
    found = (
        wrong(folder, edit, dice.choice(readers(folder, edit)), capsys) for folder, edit in some
    )
    return [one for one in found if one]


def test_some_edits(here, capsys):
    """A few of each kind of file."""
    assert not faults(here, capsys, 0, 30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_every_edit(here, capsys, seed):
    """All of them, with other values and other commands for each seed."""
    found = faults(here, capsys, seed, None)
    assert not found, f"{len(found)} are wrong:\n" + "\n".join(found)
