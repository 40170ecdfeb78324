"""The blocks of commands and of Python on the pages, and the commands as a shell reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from distributions import ROOT

PAGES = (
    "README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/*.md"))),
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("plugins/*/README.md"))),
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE
)
COMMAND = re.compile(
    r"^ *(?:\$ |(?:\w+=\S+ )*(?:reid|pip|python|ray|tensorboard|uv|torchrun|for) )", re.MULTILINE
)
"""How a block without a language begins a line that is typed."""
PROGRAMS = (
    *("reid", "python", "pip", "uv", "torchrun", "curl", "ray", "tensorboard"),
    *("cat", "head", "mkdir", "cd", "touch", "rm", "sed", "pytest"),
)
"""All programs that the pages call."""


@attrs.frozen
class Block:
    """A block that a reader types or runs. text: as it stands there. shown: what is printed by it
    according to the page, in the same block or the next one."""

    page: str
    line: int
    language: str
    text: str
    shown: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_python(self) -> bool:
        return self.language in ("python", "pycon")

    @property
    def typed(self) -> str:
        """The lines that are typed: those behind `$` where there are any, else all."""
        lines = self.text.splitlines()
        if not any(line.lstrip().startswith("$ ") for line in lines):
            return self.text
        typed, goes_on = [], False
        for line in lines:
            if goes_on or line.lstrip().startswith("$ "):
                typed.append(line.lstrip().removeprefix("$ "))
                goes_on = line.endswith("\\")
        return "\n".join(typed) + "\n"


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page that are commands or Python, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for at, one in enumerate(found):
        language, content = one["language"], one["text"]
        known = language in ("python", "pycon", "console", "sh")
        if not known and (language or not COMMAND.search(content)):
            continue
        follows = found[at + 1] if at + 1 < len(found) else None
        apart = text[one.end() : follows.start()].strip() if follows is not None else "-"
        own = [line for line in content.splitlines() if not line.startswith("$ ")]
        shown = "\n".join(own) if language == "" else ""
        if follows is not None and not apart and follows["language"] == "":
            shown = follows["text"]
        yield Block(page, text[: one.start()].count("\n") + 1, language, content, shown)


def commands(block: Block, folder: Path) -> list[list[str]]:
    """The words of every command of a block, after bash has read loops, variables and quotes. No
    program runs: each is a function that tells its words."""
    record = "{ printf '%s\\037' \"$@\"; printf '\\036'; }"
    functions = [f'{name}() {{ set -- {name} "$@"; _record "$@"; }}' for name in PROGRAMS]
    script = "\n".join([f"_record() {record}", *functions, block.typed])
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-e", "-c", script],
        env={"PATH": "/none"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return [one.split("\x1f")[:-1] for one in done.stdout.split("\x1e")[:-1]]


def of_reid(words: Sequence[str]) -> list[str]:
    """The arguments of `reid` in a command, [] where it does not call `reid`."""
    words = list(words)
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    if words[:1] == ["reid"]:
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1] == "reidcore":
        return words[words.index("-m") + 2 :]
    return []
