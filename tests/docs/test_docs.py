"""The documents' own examples, run."""

from __future__ import annotations

import io
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
import warm_python
from distributions import install_built, write_distribution
from PIL import Image

ROOT = Path(__file__).parents[2]
REID = ("-m", "reidcore")


def python(
    folder: Path, *arguments: str, site: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What Python does in a folder, with the distributions in `site` installed."""
    path = os.pathsep.join(str(one) for one in (site, ROOT) if one is not None)
    return warm_python.run(
        arguments, {**os.environ, "PYTHONPATH": path, **(env or {})}, folder, 200
    )


def installed(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(site, *arguments, site=site)


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def test_the_example_plugin_of_the_contracts_works(tmp_path: Path):
    """The plugin printed in docs/contracts.md builds as a wheel, is found, and its table wires and
    dry-runs."""
    project = tmp_path / "project"
    package = project / "reid_example"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (project / "pyproject.toml").write_text(blocks("contracts.md", "toml")[0])
    plugin, stripes = blocks("contracts.md", "python")[:2]
    (package / "plugin.py").write_text(plugin)
    (package / "stripes.py").write_text(stripes)
    site = tmp_path / "site"
    install_built(project, site)

    run = (ROOT / "reidcore" / "runs" / "demo.toml").read_text()
    cut = blocks("contracts.md", "toml")[1]
    run = run.replace("[[head]]", f"{cut}\n[[head]]", 1).replace(
        'source = "backbone.layer4"\n\n[[matcher]]', 'source = "cut.vector"\n\n[[matcher]]'
    )
    file = tmp_path / "example.toml"
    file.write_text(run)

    def reid(*arguments: str) -> subprocess.CompletedProcess[str]:
        return python(tmp_path, *REID, *arguments, site=site, env={"REID_CACHE": str(tmp_path)})

    assert "example.stripes" in reid("plugins", "example").stdout
    checked = reid("check", str(file))
    assert checked.returncode == 0, checked.stderr
    assert "cut.vector               vector 1024" in checked.stdout
    refused = reid("check", str(file), "--set", "head.cut.parts=7")
    assert refused.returncode == 2
    assert "parts is 7, but 'backbone.layer4' has only 6 rows; use at most 6" in refused.stderr


@pytest.mark.timeout(600)
def test_the_walk_from_own_pictures_to_scores(tmp_path: Path):
    """Every command of docs/own-pictures.md runs in order and ends well; training is shortened."""
    from reidcore.builtin.drawn_people.pictures import write_demo

    write_demo(tmp_path / "drawn", train_identities=8, test_identities=8, pictures=8, seed=5)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in (tmp_path / "drawn").glob("*/*.jpg"):
        shutil.move(file, pictures / file.name)
    shutil.rmtree(tmp_path / "drawn")
    new = tmp_path / "new"
    new.mkdir()
    for file in sorted(pictures.glob("*.jpg"))[-3:]:
        shutil.move(file, new / file.name)
    shutil.make_archive(str(tmp_path / "pictures"), "zip", pictures)
    (table,) = blocks("own-pictures.md", "toml")
    (tmp_path / "rerank.toml").write_text(table)
    commands = [
        line.removeprefix("$ ")
        for block in blocks("own-pictures.md", "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(commands) >= 8
    outputs = {}
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "reid", command
        if arguments[0] == "run":
            arguments += ["--set", "train.epochs=1", "--set", "backbone.width=0.125"]
        done = python(tmp_path, *REID, *arguments, env={"REID_DATA": ""})
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs[command] = done.stdout
    assert "mAP" in outputs["reid run own-pictures.toml"]
    assert "rank-1" in outputs["reid eval runs/own-pictures"]
    assert " rerank " in outputs["reid eval runs/own-pictures rerank.toml"]
    matches = (tmp_path / "matches.csv").read_text()
    assert len(matches.splitlines()) == 1 + 3 * 3
    assert (tmp_path / "again.csv").read_text() == matches
    zipped = (tmp_path / "matches-zip.csv").read_text()
    assert zipped.replace("pictures.zip/", "pictures/") == matches
    first, *best = python_block("own-pictures.md", 0, tmp_path)
    assert first == f"torch.Size([3, {len(list(pictures.glob('*.jpg')))}])"
    assert len(best) == 3
    names = "new/0107_c4_02.jpg", str(sorted(new.iterdir())[0])
    (ranked,) = python_block("own-pictures.md", 1, tmp_path, names)
    assert ranked.startswith("torch.Size([2, 3]) ") and ranked.endswith(".jpg")
    (shapes,) = python_block("own-pictures.md", 2, tmp_path, names)
    assert shapes == "torch.Size([1, 3, 96, 48]) torch.Size([1, 64])"


def python_block(
    document: str, place: int, folder: Path, other: tuple[str, str] = ("", "")
) -> list[str]:
    """The lines that a block prints in a folder. other: a text, and what stands there instead."""
    code = blocks(document, "python")[place].replace(*other)
    done = python(folder, "-c", code, env={"REID_DATA": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_readme_shows_the_packaged_demo():
    """The run file in the README is the one that `reid run demo` runs."""
    shown = re.search(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert shown is not None
    assert shown[1] == (ROOT / "reidcore" / "runs" / "demo.toml").read_text()


def test_the_reader_of_the_data_page_works(tmp_path: Path):
    """The reader printed in docs/data.md lists a harbour's pictures, a run trains on them, and its
    own mistakes are told as its own."""
    site, harbour = tmp_path / "site", tmp_path / "harbour"
    write_distribution(site, "harbour", blocks("data.md", "python")[0])
    draw = random.Random(0)
    for gate in (1, 2, 3):
        for boat in range(6):
            folder = harbour / f"gate{gate}" / f"boat-{boat:04d}"
            folder.mkdir(parents=True)
            for number in range(2):
                colour = tuple(draw.randrange(256) for _ in range(3))
                Image.new("RGB", (24, 16), colour).save(folder / f"{number:06d}.jpg")
    (harbour / "test.txt").write_text("boat-0004\nboat-0005\n")
    checked = installed(site, *REID, "data", "check", str(harbour), "--read", "harbour.boats")
    assert "no errors" in checked.stdout, checked.stderr
    split = {"train": 24, "query": 4, "gallery": 8}
    for name, pictures in split.items():
        assert re.search(rf"{name} +{pictures} ", checked.stdout), checked.stdout
    demo = (ROOT / "reidcore" / "runs" / "demo.toml").read_text()
    boats = f'{{ read = "harbour.boats", root = "{harbour.as_posix()}" }}'
    run = demo.replace('{ read = "core.demo" }', boats).replace("ids = 8", "ids = 4")
    (tmp_path / "boats.toml").write_text(run)
    command = [*REID, "run", str(tmp_path / "boats.toml"), "--set", "train.epochs=1"]
    done = installed(site, *command)
    assert "4 identities" in done.stdout and done.returncode == 0, done.stderr
    (harbour / "test.txt").unlink()
    told = installed(site, *command, "--set", "name=again")
    assert told.returncode == 4 and "test.txt" in told.stderr


def test_the_reader_with_openers_of_the_data_page_works(tmp_path: Path):
    """The reader of a database on docs/data.md passes `data check` and `check`, and is
    refused where a manifest would have to say how to open its pictures."""
    site, table = tmp_path / "site", tmp_path / "boats.db"
    write_distribution(site, "harbour", blocks("data.md", "python")[1])
    draw = random.Random(0)
    with closing(sqlite3.connect(table)) as database, database:
        database.execute("create table shots (id, boat, gate, split, jpeg, x, y, w, h)")
        for number in range(48):
            boat, gate = number // 6, str(number % 3)
            split = "train" if boat < 5 else "query" if gate == "0" else "gallery"
            noise = Image.frombytes("RGB", (40, 30), draw.randbytes(3600))
            content = io.BytesIO()
            noise.save(content, "JPEG")
            row = (number, f"boat {boat}", gate, split, content.getvalue(), 3.5, 2, 20, 24)
            database.execute("insert into shots values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    words = ("data", "check", str(table), "--read", "harbour.table")
    checked = installed(site, *REID, *words)
    assert "no errors" in checked.stdout, checked.stdout + checked.stderr
    refused = installed(site, *REID, "data", "index", *words[2:], "-o", str(tmp_path / "m.csv"))
    assert refused.returncode == 2
    assert "can be opened by the reader only" in " ".join(refused.stderr.split())
    demo = (ROOT / "reidcore" / "runs" / "demo.toml").read_text()
    boats = f'{{ read = "harbour.table", root = "{table.as_posix()}" }}'
    run = demo.replace('{ read = "core.demo" }', boats).replace("ids = 8", "ids = 4")
    (tmp_path / "boats.toml").write_text(run)
    done = installed(site, *REID, "check", "--no-dry", str(tmp_path / "boats.toml"))
    assert "5 training identities" in done.stdout, done.stderr
