"""docs/gallery.md: its commands run in order, and its Python says who was seen before."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from gallery_runs import draw_day

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

from reidcore.cli.main import main

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    """The page's fenced blocks of one language, in order."""
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def test_the_walk_from_pictures_to_seen_before(tmp_path, monkeypatch, capsys):
    """Training is shortened, so what is found may be wrong, but all that is shown is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REID_DATA", "")
    draw_day(tmp_path, identities=30)
    count = len(list(Path("seen").iterdir()))
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ reid ")]
    assert len(commands) >= 10
    capsys.readouterr()
    outputs = []
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "run":
            drawn = (
                '{ read = "core.demo", train_identities = 16, test_identities = 2, pictures = 8 }'
            )
            short = f"data.train={drawn}", "data.test=[]", "train.epochs=1", "backbone.width=0.125"
            words += [word for one in short for word in ("--set", one)]
        assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
        outputs.append((command, capsys.readouterr().out))
    added, again = (out for command, out in outputs if command.startswith("reid gallery add"))
    assert f"added {count} pictures" in added and f"skipped {count} that" in again
    found = [out.splitlines() for command, out in outputs if " search " in command]
    assert found[0][1].split()[:3] == ["rank", "source", "camera"] and len(found[0]) == 2 + 3
    before, after = ([line.split() for line in found[place][2:]] for place in (0, 2))
    assert [row[:-1] for row in before] == [row[:-1] for row in after] and before != after
    assert found[-1][2].split()[1] == "seen/0156.jpg"
    assert "forgot 1 pictures" in "".join(out for _, out in outputs)
    (code,) = blocks("python")
    exec(compile(code, "gallery.md", "exec"), {})
    answer = capsys.readouterr().out.strip()
    assert answer == "not seen before" or re.fullmatch(
        r"seen before at camera \d, \d\d:\d\d, probability [01]\.\d\d", answer
    )
