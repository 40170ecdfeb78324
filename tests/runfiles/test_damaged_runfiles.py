"""Damaged run files: each is refused with a message that names what is wrong in it, and where."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import toy_parts
from damage import FILES, Case, Damager, Document, by_schema, by_tables
from damage_by_hand import HAND
from distributions import REID, python

from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

NAME_RULE = "expected a name of a-z, 0-9 and _ that starts with a letter, got "
SAYS = {
    "wrong type": (
        r'expected (("\w+" or |text or )*table|(table or )?list|table or list|int|number|text|'
        r"true or .*), got .* at \."
    ),
    "wrong length": r"expected a list of \d+, got",
    "out of range": r"expected a number (at least|above|at most|below) ",
    "unknown choice": r"expected one of ",
    "misspelt key": r"unknown key '\w+'( in \.\w+)?, did you mean",
    "unknown key": r"unknown key '\w+'( in \.\w+)?; (the keys here are|this table takes no)",
    "missing key": r"missing key '\w+'(, the component to use| at \.\w+)?$",
    "missing table": r": table \[\w+\] is missing",
    "misspelt table": r"unknown table or key '\w+', did you mean",
    "unknown table": r"unknown table or key '\w+'; known are format, name",
    "one table for a list": r"\[\w+\] must be written \[\[\w+\]\]: a list of tables, got table",
    "value for a list of tables": r"\[\w+\] must be .*: a list of tables, got (int|text)",
    "a list for one table": r"\[\[\w+\]\] must be written \[\w+\]: one table, got a list of 1",
    "value for table": r"expected table, got (int|text) \S+$",
    "unknown feature": r"names '\S*', which nothing provides.* Available \w+: ",
    "wrong kind of feature": r"needs a (map|vector|tensor), but '\S+' is a .* Available ",
    "later head": r"which is computed later; heads run in file order",
    "own output": r"which is its own output; heads run in file order",
    "unknown matcher": r"(matcher|fuse) names (the matcher )?'\w+', (did you mean|which does not)",
    "unknown loss": r"names the loss '\w+'",
    "unknown post": r": post names '\w+'(, did you mean|, which does not exist)",
    "post twice": r"post names '\w+' more than once",
    "unused post": r"no \[\[ranking\]\] names it in its 'post'",
    "unknown role": r"names the role '",
    "unknown score": r"best names the score '",
    "bad device": r"expected auto, cpu, cuda or cuda:N, got",
    "unknown component": r"plugin '\w+' has no \w+ '\w+'.* \w+ of \w+: ",
    "component of another kind": r"is an? \w+, not an? \w+\. \w+ of \w+: ",
    "not plugin.component": r"is not of the form plugin\.component",
    "uninstalled plugin": r"plugin '\w+' is not installed.* To install it: (uv )?pip install ",
    "observes nothing": r"observes nothing",
    "bad plugins": r"must be a list of names, got",
    "duplicate name": r"the name '\w+' is taken by another \[\[\w+\]\]",
    "bad name": NAME_RULE + "text",
    "name of another type": NAME_RULE + "int",
    "reserved name": r"the name 'backbone' is the backbone's own",
    "bad run name": r"must be letters, digits, '\.', '_' or '-', got",
    "two test sets of one name": r"two test sets have this name",
    "bad format": r"key 'format' is (text|float|int|bool|list) .*; this core reads format = 1$",
    "newer format": r"key 'format' is \d+, but this core reads format = 1; upgrade",
    "missing format": r"key 'format' is missing",
    "bad weight": r"expected a number of at least 0, got",
    "unknown protocol": r"protocol: there is no protocol '\w+'(, did you mean|; there are cross_)",
    "protocol of training": r"'protocol' is for test sets",
    "trial of nobody": r"trial is for readers that have a setting trial, and none has: ",
    "neither manifest nor read": r"needs either 'manifest', a CSV .* such as core.demo, got table",
    "manifest and read": r"needs either 'manifest', .*; it has both",
    "unknown key beside manifest": r"unknown key '\w+' beside 'manifest'",
    "bad splits": r"expected a list of train, val, query, gallery, test, got",
    "missing root": r"missing key 'root', the folder of the data set",
    "needed for training": r"missing key '\w+', and \[train\] epochs is above 0",
    "steps and cosine": r"'steps' and 'cosine' exclude each other",
    "several matchers, no ranking": r"there are several \[\[matcher\]\]",
    "no matcher": r"there is no \[\[matcher\]\]",
    "no loss": r"needs at least one \[\[loss\]\]",
    "triplet of both": r"needs either feature or matcher, but both is set",
    "triplet of neither": r"needs either feature or matcher, but neither is set",
    "metric of a matcher": r"metric is for a feature",
    "lengths differ": r"features share one classifier",
    "no logits": r"needs a matcher with logits, but",
    "plugin's own rule": r"must be even here",
    "weights not found": r"names the file '\S+', which is not at /",
    "too few identities": r"asks for \d+ different identities in a batch, but",
    "batches without pairs": r"needs batches with at least two identities and two pictures",
    "not in [0, 1]": r"needs distances in \[0, 1\], but what comes before it is unbounded",
    "neither matcher nor fuse": r"needs either matcher or fuse, but neither is set",
    "matcher and fuse": r"needs either matcher or fuse, but both are set",
    "nothing to fit a scale on": r"is fitted on training pairs, but \[data\] has no 'train'",
    "scaled row by row": r"do not compare with those that scale = 'row_minmax' stretches",
    "not the first": r"it must be the first postprocessor of its ranking",
    "no time": r"needs the manifest column time",
    "lists of unequal length": r"lists must be equally long: ",
    "no list to repeat": r"must be a list with a value for each repeat, got",
    "no such table to repeat": r"\[repeat\]: no table '",
    "no such part to repeat": r"\[repeat\]: no \w+ named '",
    "inside a value": r"\[repeat\]: '\S+' is no table, but",
    "not TOML": r"not valid TOML in ",
    "--set without a value": r"expected key=value, such as",
    "--set of no table": r"^--set \S+: no table '",
    "--set of no top key": r"^--set \S+: no table or key '",
    "--set of no part": r"^--set \S+: no \w+ named '",
    "--set inside a value": r"^--set \S+: '\S+' is no table, but",
}
"""What the message of each kind of damage says, and no message of another kind."""


def _damagers(plugins: Plugins) -> list[Damager]:
    texts = {name: (FILES / f"{name}.toml").read_text("utf-8") for name in ("many", "readers")}
    texts["demo"] = find_packaged("demo", plugins).text
    return [Damager(label, Document.parse(text)) for label, text in texts.items()]


def make_cases() -> list[Case]:
    """All damaged files; the same ones in the same order every time."""
    plugins = Plugins([])
    toy_parts.add(plugins)
    damagers = _damagers(plugins)
    for damager in damagers:
        by_schema(damager, plugins)
        by_tables(damager)
    for by_hand in HAND:
        by_hand(damagers[0], damagers[1])
    return [case for damager in damagers for case in damager.cases]


CASES = make_cases()
MESSAGES: dict[str, set[str]] = defaultdict(set)
"""Kind of damage -> the messages about it, filled by the tests."""


def check(text: str, capsys: pytest.CaptureFixture[str], *sets: str) -> tuple[int, list[str], str]:
    """(exit code, problems, output) of `reid check --no-dry` on the text as broken.toml."""
    with open("broken.toml", "w", encoding="utf-8") as file:
        file.write(text)
    capsys.readouterr()
    options = [word for item in sets for word in ("--set", item)]
    code = main(["check", "--no-dry", "broken.toml", *options])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err.removeprefix("error: ").splitlines(), captured.out


def fitting(case: Case, problems: list[str]) -> list[str]:
    """The problems that name what is damaged and the place where it stands."""
    place = f"broken.toml:{case.line}: " if case.line else "broken.toml: "
    if case.sets:
        place = f"--set {case.sets[0]!r}" if "without" in case.kind else f"--set {case.sets[0]}: "
    return [
        one for one in problems if one.startswith(place) and case.name in one and case.says in one
    ]


def test_five_hundred_different_files():
    """The damaged files are all different from each other and from the good ones."""
    damaged = {(case.text, case.sets) for case in CASES}
    good = {(damager.good.text(), ()) for damager in _damagers(Plugins([]))}
    assert len(damaged - good) == len(CASES) >= 500
    assert {case.kind for case in CASES} == SAYS.keys()


@pytest.mark.parametrize("label", ["many", "readers", "demo"])
def test_the_good_files_are_good(toy_folder, capsys, label):
    """Undamaged, the files pass: what is refused below is refused for its damage."""
    good = {damager.label: damager.good for damager in _damagers(Plugins([]))}[label]
    code, problems, output = check(good.text(), capsys)
    assert (code, problems) == (0, [])
    assert "ok: keys and wiring" in output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_damage(toy_folder, capsys, case):
    """Exit code 2, and one message with the damaged name, its line and a text of its kind."""
    code, problems, _ = check(case.text, capsys, *case.sets)
    assert code == 2
    found = fitting(case, problems)
    assert found, problems
    assert re.search(SAYS[case.kind], found[0])
    if case.single:
        assert problems == found[:1]
    MESSAGES[case.kind].add(found[0])


def test_no_catch_all(toy_folder, capsys):
    """No message of one kind of damage could stand for another kind."""
    for case in CASES:
        if not MESSAGES[case.kind]:
            MESSAGES[case.kind].update(fitting(case, check(case.text, capsys, *case.sets)[1])[:1])
    shared = [
        (kind, other, message)
        for kind, messages in MESSAGES.items()
        for message in messages
        for other, pattern in SAYS.items()
        if other != kind and re.search(pattern, message)
    ]
    assert shared == []


def test_as_a_command(toy_folder, toy_site):
    """The same through the real command: exit code 2, text on stderr, nothing on stdout."""
    for case in CASES[:: len(CASES) // 4]:
        (toy_folder / "broken.toml").write_text(case.text, encoding="utf-8")
        file = str(toy_folder / "broken.toml")
        done = python(toy_site, *REID, "check", "--no-dry", file, *_options(case))
        # It runs in another folder, where data.manifest is not: what is wrong is said all the same.
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert fitting(case, done.stderr.removeprefix("error: ").splitlines())


def _options(case: Case) -> list[str]:
    return [word for item in case.sets for word in ("--set", item)]
