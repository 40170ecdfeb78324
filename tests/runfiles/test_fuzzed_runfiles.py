"""Run files that were damaged blindly: whatever comes out, the user gets a sentence."""

from __future__ import annotations

import random
import re

import pytest
from damage import FILES

from reidcore.cli.main import main

FILES_AND_COUNTS = [
    ("many", 70),
    ("readers", 50),
    pytest.param("many", 600, marks=pytest.mark.slow),
    pytest.param("readers", 450, marks=pytest.mark.slow),
]
VALUES = (
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "99999999999999999999",
    "true",
    '""',
    '"x"',
    "'a.b.c'",
    '"core.cosine"',
    '"core.bnneck"',
    '"toy.pairs"',
    '"broken.x"',
    '"wrong.raises"',
    '"future.y"',
    "[]",
    "[[]]",
    '[""]',
    "[1, 2]",
    '["neck.bn"]',
    "{}",
    "{ a = 1 }",
    "[{}]",
    "1979-05-27",
    "07:32:00",
    '"""\n"""',
    '"\\u0000"',
    '"ä/\\\\"',
    '"people.csv"',
    '"core.demo"',
    "[nan]",
    '[{ use = "core.flip" }]',
    '{ read = "wrong.unreadable", root = "." }',
    "[" * 40,
    '"' + "x" * 5000 + '"',
    "[" * 2000 + "]" * 2000,
    "0x10",
    "1_000",
)


def harmed(text: str, dice: random.Random) -> str:
    """The text after one to three blind changes to its lines, keys, values or characters."""
    lines = text.split("\n")
    for _ in range(dice.randint(1, 3)):
        at, other = dice.randrange(len(lines)), dice.randrange(len(lines))
        key, equals, value = lines[at].partition(" = ")
        values = [line.partition(" = ")[2] for line in lines if " = " in line]
        match dice.randrange(9):
            case 0:
                del lines[at]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3 | 4 if equals:
                lines[at] = f"{key} = {dice.choice(VALUES)}"
            case 5 if equals:
                lines[at] = f"{key} = {dice.choice(values)}"
            case 6 if equals:
                other_key = dice.choice(["use", "name", "zzz", f"{key}.x", '"ä"'])
                lines[at] = f"{other_key} = {value}"
            case 7 if lines[at]:
                cut = dice.randrange(len(lines[at]))
                lines[at] = lines[at][:cut] + dice.choice(" .=[]{}\"'#\t\r\0é") + lines[at][cut:]
            case _:
                names = re.findall(r"\w+\.\w+", lines[at]) or ["x"]
                lines[at] = lines[at].replace(dice.choice(names), dice.choice(["a.b", "", "."]))
    return "\n".join(lines)


@pytest.mark.parametrize(("name", "count"), FILES_AND_COUNTS)
def test_a_sentence_and_no_traceback(toy_folder, capsys, name, count):
    """Nothing but `ReidError` ends the command, the code is one of its own, an error has a text."""
    good = (FILES / f"{name}.toml").read_text("utf-8")
    codes = []
    for seed in range(count):
        text = harmed(good, random.Random(f"{name} {seed}"))
        (toy_folder / "fuzz.toml").write_bytes(text.encode())
        try:
            code = main(["check", "--no-dry", "fuzz.toml"])
        except Exception as error:
            raise AssertionError(f"seed {seed} raised {error!r}:\n{text}") from error
        output, errors = capsys.readouterr()
        assert code in (0, 2, 3, 4), seed
        assert bool(errors) == (code != 0) and bool(output) == (code == 0), seed
        assert "Traceback" not in errors
        codes.append(code)
    # The damage is neither so mild nor so coarse that it would show nothing.
    assert codes.count(0) > count // 50 and codes.count(2) > count // 2
