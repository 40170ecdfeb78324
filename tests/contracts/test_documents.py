"""Documents name modules and files that exist, and their glossary and map of rooms are true."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from reidcore.plugins.loading import Plugins

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
)
OURS = ("reidcore", "tests", "docs", "plugins", "benchmarks")
WORDS = [
    "query",
    "gallery",
    "template",
    "distance",
    "ranking",
    "score",
    "run",
    "part",
    "component",
    "identity",
    "camera",
    "manifest",
    "row",
    "split",
    "head",
    "matcher",
    "postprocessor",
    "procedure",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_files_of_a_document_exist(document):
    """Every dotted name below reidcore can be imported; every path of a module or test is there."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for path in re.findall(rf"`((?:{'|'.join(OURS)})/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"`(reidcore(?:\.\w+)+)[`(]", text):
        if dotted.startswith("reidcore.plugins.v"):  # the group of entry points
            continue
        found, *names = dotted.split(".")
        here = importlib.import_module(found)
        for name in names:
            found = f"{found}.{name}"
            here = getattr(here, name, None) or importlib.import_module(found)


@pytest.mark.parametrize("name", ["core", *sorted(path.name for path in ROOT.glob("plugins/*/"))])
def test_a_readme_names_every_component(name: str):
    """What the core and our plugins bring, such as `qaconv.local`, stands in a README of theirs."""
    plugins = Plugins()
    if name not in plugins.names():
        return  # a package that is no plugin
    readme = ROOT / ("README.md" if name == "core" else f"plugins/{name}/README.md")
    text = readme.read_text(encoding="utf-8")
    components = plugins.load(name).components
    named = set(re.findall(rf"\b{name}\.\w+", text))
    assert sorted(one.name for one in components if one.name not in named) == []


def test_the_glossary_has_its_words():
    """docs/contracts.md begins with one line for each word of the field that the code uses."""
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    glossary = text.split("\n## ")[1]
    assert glossary.startswith("Words\n")
    words = re.findall(r"^\| ([a-z ]+) \|", glossary, re.M)
    assert len(words) == len(set(words))
    assert set(words) >= {*WORDS, "run file", "run folder"}


def test_the_ways_through_the_code_name_files_that_exist():
    """docs/design.md names files of rooms, and files beside the one named before."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    ways = text.split("\n## ")[1]
    assert ways.startswith("Three ways")
    room = ""
    named = re.findall(r"`((?:\w+/)?\w+\.py)`", ways)
    for path in named:
        room = path.rpartition("/")[0] or room
        assert (ROOT / "reidcore" / room / Path(path).name).exists(), path
    assert len(named) > 20


def test_the_map_of_rooms_is_the_order_that_is_checked():
    """CONTRIBUTING.md has the levels of pyproject.toml, from the top down."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (layers,) = (one["layers"] for one in tool["importlinter"]["contracts"] if "layers" in one)
    levels: list[set[str]] = []
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for number, rooms in re.findall(r"^\| (\d*) *\| (`[^|]+) \|", text, re.M):
        if number:
            assert int(number) == len(layers) - len(levels)
            levels.append(set())
        levels[-1] |= set(re.findall(r"`(\w+)(?:/|\.py)`", rooms))
    assert levels == [set(layer.split(" | ")) for layer in layers]


def test_the_reading_order_is_short():
    """Who reads what CONTRIBUTING.md says first has less than 700 lines before him."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    order = text.split("read in this order")[1].split("Then follow")[0]
    files = re.findall(r"`([\w/]+\.py)`", order)
    assert len(files) == 5
    assert sum(len((ROOT / "reidcore" / file).read_text().splitlines()) for file in files) < 700
