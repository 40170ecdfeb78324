"""The walk to a matcher that is trained through its logits, and the page on what parts may know."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from distributions import ROOT, install_built
from running import environment, reid

STEP = re.compile(
    r"^`(?P<file>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$"
    r"|^```console\n(?P<commands>.*?)^```\n(?:```\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
DATA = "{ read = 'core.demo', train_identities = 4, test_identities = 3, pictures = 8 }"
SHORT = ["train.epochs=1", "data.image=[64, 32]", "data.batch.ids=2", "data.batch.per_id=2"]
SETS = [*SHORT, f"data.train={DATA}", f"data.test={DATA}", "backbone.width=0.125"]
SCORED = re.compile(r"^(\w+ +\w+ +plain) +\d", re.MULTILINE)


class Reader:
    """Somebody who does what the page says; training is shortened."""

    def __init__(self, folder: Path):
        self.here, self.site = folder, folder / "site"
        self.env = environment(folder / "cache", self.site)

    def do(self, command: str, code: int) -> str:
        """What a command of the page prints, standard error behind; `code` is its exit code."""
        name, *arguments = shlex.split(command)
        if name == "cd":
            self.here /= arguments[0]
        elif name == "pip":
            install_built(self.here, self.site)
        elif name == "reid":
            if arguments[0] == "run":
                arguments += [word for one in SETS for word in ("--set", one)]
            done = reid(self.env, self.here, *arguments, code=code)
            return done.stdout + done.stderr
        else:
            subprocess.run([name, *arguments], cwd=self.here, check=True)
        return ""


@pytest.mark.timeout(600)
def test_the_walk_to_a_trained_matcher(tmp_path):
    """Every file and command of docs/trained-matchers.md in order; scores differ, as training is
    short, but what is scored does not."""
    page = (ROOT / "docs" / "trained-matchers.md").read_text(encoding="utf-8")
    reader = Reader(tmp_path)
    files = 0
    for step in STEP.finditer(page):
        if step["file"]:
            (reader.here / step["file"]).write_text(step["text"], encoding="utf-8")
            files += 1
            continue
        shown = step["output"] or ""
        code = 2 if shown.startswith("error:") else 0
        commands = [line.removeprefix("$ ") for line in step["commands"].splitlines()]
        printed = [reader.do(command, code) for command in commands][-1]
        if code:
            assert printed == shown
        elif shown:
            assert SCORED.findall(printed) == SCORED.findall(shown) != []
    assert files == 6


def test_the_examples_of_what_parts_see():
    """The `pycon` blocks of docs/what-parts-see.md, one after the other."""
    page = (ROOT / "docs" / "what-parts-see.md").read_text(encoding="utf-8")
    text = "\n".join(re.findall(r"^```pycon\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(text, {}, "what-parts-see.md", None, 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert not result.failed, "".join(report)
    assert result.attempted > 10
