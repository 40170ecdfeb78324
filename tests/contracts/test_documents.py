"""Modules and files that the documents of the contracts name exist, and the glossary is whole."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("contracts.md", "evaluation.md", "data.md", "explain.md", "reranking.md")
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
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:reidcore|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"`(reidcore(?:\.\w+)+)[`(]", text):
        if dotted.startswith("reidcore.plugins.v"):  # the group of entry points
            continue
        found, *names = dotted.split(".")
        here = importlib.import_module(found)
        for name in names:
            found = f"{found}.{name}"
            here = getattr(here, name, None) or importlib.import_module(found)


def test_the_glossary_has_its_words():
    """docs/contracts.md begins with one line for each word of the field that the code uses."""
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    glossary = text.split("\n## ")[1]
    assert glossary.startswith("Words\n")
    words = re.findall(r"^\| ([a-z ]+) \|", glossary, re.M)
    assert len(words) == len(set(words))
    assert set(words) >= {*WORDS, "run file", "run folder"}
