"""Postprocessors that must stand elsewhere: the ranking and the neighbour at fault are named."""

from __future__ import annotations

import pytest
from damage import FILES

from reidcore.cli.main import main

MANY = (FILES / "many.toml").read_text("utf-8")
FIRST, UNIT, WITHOUT = "must be the first postprocessor", "needs distances in [0, 1]", "shortlist"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ['slow.post=["cut", "order"]'],
            [("order", FIRST, "ranking 'slow', behind postprocessor 'cut' (toy.clip).")],
        ),
        (
            ['slow.post=["cut", "order", "walk"]'],  # which gets what re-ranking makes
            [("order", FIRST, "ranking 'slow', behind postprocessor 'cut' (toy.clip).")],
        ),
        (
            ['slow.post=["order", "cut", "walk"]'],
            [("walk", UNIT, "ranking 'slow', behind postprocessor 'cut' (toy.clip).")],
        ),
        (['bare.post=["walk"]'], [("walk", UNIT, "ranking 'bare', behind matcher 'plain'.")]),
        (
            ['fused.scale="constant"', 'fused.post=["walk"]'],
            [("walk", UNIT, "'fused', behind matchers 'look' and 'plain', added up.")],
        ),
        (
            ['fast.post=["walk", "order"]', 'slow.post=["walk", "order"]', 'bare.post=["cut"]'],
            [
                ("order", FIRST, "ranking 'fast', behind postprocessor 'walk' (toy.times)."),
                ("walk", UNIT, "ranking 'slow', behind matcher 'pairs'."),
                ("order", FIRST, "ranking 'slow', behind postprocessor 'walk' (toy.times)."),
            ],
        ),
        (
            ['slow.shortlist={by="look", top=3}', 'slow.post=["order"]', 'bare.post=["cut"]'],
            [("order", WITHOUT, "ranking 'slow', behind matcher 'pairs'.")],
        ),
        (
            ['slow.scale="row_minmax"', 'bare.post=["cut"]'],
            [("order", "row by row", "ranking 'slow', behind matcher 'pairs'.")],
        ),
    ],
)
def test_who_is_at_fault(toy_folder, capsys, sets: list[str], said: list[tuple[str, str, str]]):
    """One message for each postprocessor and ranking that do not fit, and none that only follows
    from another."""
    (toy_folder / "many.toml").write_text(MANY, "utf-8")
    words = [word for one in sets for word in ("--set", f"ranking.{one}")]
    assert main(["check", "--no-dry", "many.toml", *words]) == 2
    problems = [line for line in capsys.readouterr().err.splitlines() if "postprocessor" in line]
    assert len(problems) == len(said)
    for name, *parts in said:
        found = [line for line in problems if all(part in line for part in parts)]
        assert len(found) == 1 and f"postprocessor {name!r}" in found[0].partition(": ")[2]
