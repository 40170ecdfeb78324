"""Packaged run files and `--set` texts that were mutated: whatever comes out, the user gets short
sentences and exit code 2 or 4, and a value that cannot be right is told by its key."""

from __future__ import annotations

import random
import re

import pytest

from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged, packaged_runs
from reidcore.runfiles.overrides import flatten
from reidcore.support.toml_values import toml_value

WRONG = (
    "9" * 5000,
    "1" + "0" * 400,
    "0x" + "f" * 5000,
    "-" + "9" * 4500,
    "1e400",
    "-inf",
    "inf",
    "nan",
    "1e38",
    "1979-05-27",
    "07:32:00",
    "[" + "1, " * 3000 + "]",
    '"' + "x" * 5000 + '"',
    '"a\\nb"',
    '"\\u0000"',
    "[[[[1]]]]",
    "{ a = { b = { c = 1 } } }",
    "[" * 200 + "]" * 200,
)
"""Values that fit no key: too large, of no range, of a type that no key has, or too long."""
ODD = (
    "0",
    "-1",
    "18446744073709551615",
    "1.5",
    "true",
    '""',
    '"x"',
    "[]",
    "[nan]",
    "{}",
    "[{}]",
    '"core.cosine"',
    '"a.b.c"',
    '["neck.bn"]',
    "'''\n'''",
)
"""Values that may fit."""
MOST = 1000
"""Characters of a message."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """{name: text} of the packaged run files of all plugins, in a folder without data."""
    folder = tmp_path_factory.mktemp("mutated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("REID_CACHE", "REID_DATA", "REID_WEIGHTS"):
            patch.setenv(name, str(folder / "none"))
        plugins = Plugins()
        names = [run.full_name for run in packaged_runs(plugins, None)]
        yield {name: find_packaged(name, plugins).text for name in names}


def answer(capsys, *command: str) -> tuple[int, str]:
    """(exit code, message) of a command that must not end in a traceback."""
    capsys.readouterr()
    try:
        code = main(list(command))
    except SystemExit as error:
        code = int(error.code or 0)
    output, message = capsys.readouterr()
    assert code in (0, 2, 4), (code, message)
    assert bool(message) == (code != 0) and bool(output) == (code == 0)
    assert "Traceback" not in message
    assert len(message) < MOST, message
    return code, message


def of_structure(text: str, dice: random.Random) -> tuple[str, str]:
    """(the text with one value that fits nowhere, its key)."""
    lines = text.split("\n")
    keys = [n for n, line in enumerate(lines) if re.match(r"[\w.\"]+ = [^\[{].*[^\[{(,]$", line)]
    at = dice.choice(keys)
    key = lines[at].partition(" = ")[0]
    lines[at] = f"{key} = {dice.choice(WRONG)}"
    return "\n".join(lines), key


def of_lines(text: str, dice: random.Random) -> str:
    """The text after changes to whole lines, keys and values."""
    lines = text.split("\n")
    for _ in range(dice.randint(1, 3)):
        at, other = dice.randrange(len(lines)), dice.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        match dice.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at].replace("[", "[[").replace("]", "]]")
            case _ if equals:
                lines[at] = f"{key} = {dice.choice(WRONG + ODD)}"
        lines = lines or [""]
    return "\n".join(lines)


def of_bytes(text: str, dice: random.Random) -> bytes:
    """The text after changes to single bytes and stretches of them."""
    data = bytearray(text.encode())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data))
        match dice.randrange(5):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randint(1, 40)]
            case 2:
                data[at:at] = dice.choice([b'"', b"'''", b"[", b"}", b"\n", b"\r", b"\0", b"\xff"])
            case 3:
                data[at:at] = data[at : at + dice.randint(1, 200)]
            case 4:
                data[at : at + 1] = str(dice.choice([10**25, -1, "inf", "nan"])).encode()
        data = data or bytearray(b"x")
    return bytes(data)


def mutate_files(sources, capsys, seeds) -> list[int]:
    """The exit codes of a mutation for each seed, once their messages have been looked at."""
    names, codes = sorted(sources), []
    for seed in seeds:
        dice = random.Random(f"file {seed}")
        text, key = sources[dice.choice(names)], ""
        match seed % 3:
            case 0:
                mutated, key = of_structure(text, dice)
                data = mutated.encode()
            case 1:
                data = of_lines(text, dice).encode()
            case _:
                data = of_bytes(text, dice)
        with open("file.toml", "wb") as file:
            file.write(data)
        try:
            code, message = answer(capsys, "check", "--no-dry", "file.toml")
            if key and code == 2:
                assert key.strip('"') in message, message
        except Exception as error:
            raise AssertionError(f"file, seed {seed}: {error!r}") from error
        codes.append(code)
    return codes


def mutate_sets(sources, capsys, seeds) -> list[int]:
    """The same of `--set` texts."""
    import tomli

    names, codes = sorted(sources), []
    tables = {name: flatten(tomli.loads(text)) for name, text in sources.items()}
    for seed in seeds:
        dice = random.Random(f"set {seed}")
        name = dice.choice(names)
        key = dice.choice([*tables[name], "train.device", "eval.ranks", "optim.scale", "name"])
        wrong = False
        match dice.randrange(5):
            case 0:
                value, wrong = dice.choice(WRONG), True
            case 1:
                value = dice.choice(ODD)
            case 2:
                value = toml_value(dice.choice(list(tables[name].values())))
            case 3:
                at = dice.randrange(len(key))
                key = key[:at] + dice.choice(["", ".", "..", "\n", "x", "é", "\0", "0", "[", " "])
                value = dice.choice(ODD)
            case _:
                letters = '[]{}"=,.\\\n 019eE-+xné'
                value = "".join(dice.choice(letters) for _ in range(dice.randint(0, 40)))
        item = f"{key}={value}"
        try:
            code, message = answer(capsys, "check", "--no-dry", name, "--set", item)
            if code == 2 and wrong:
                assert key.rpartition(".")[2] in message, message
        except Exception as error:
            raise AssertionError(f"set, seed {seed}: {name} {item[:200]}: {error!r}") from error
        codes.append(code)
    return codes


def test_some_files(sources, capsys):
    codes = mutate_files(sources, capsys, range(90))
    assert codes.count(2) > 45 and codes.count(0) > 2


def test_some_sets(sources, capsys):
    codes = mutate_sets(sources, capsys, range(180))  # what is drawn changes with each packaged run
    assert codes.count(2) > 40 and codes.count(0) > 2, (codes.count(2), codes.count(0))


@pytest.mark.slow
def test_three_thousand_files(sources, capsys):
    mutate_files(sources, capsys, range(100, 3100))


@pytest.mark.slow
def test_three_thousand_sets(sources, capsys):
    mutate_sets(sources, capsys, range(100, 3100))
