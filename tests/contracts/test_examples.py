"""The doors' documentation: every public name has some, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import pytest
from running import TINY, environment, reid

DOORS = ("api", "modules", "networks", "sizes", "errors")
RIDDLES = ("What", "Whether", "How")
CALLED_BY_THE_CORE = {"Ask", "Extract", "Ranking", "Run", "hookimpl"}
"""Names that nobody calls: protocols that the core implements, and a decorator of pluggy's, whose
examples are in docs/hooks.md."""

NAMES = [
    (f"reidcore.{door}", name)
    for door in DOORS
    for name in importlib.import_module(f"reidcore.{door}").__all__
] + [("reidcore", "load")]


def public(door: str, name: str) -> object:
    return getattr(importlib.import_module(door), name)


def constant_text(door: str, name: str) -> str | None:
    """The text below a constant's or an alias's assignment, in the module that assigns it."""
    tree = ast.parse(Path(importlib.import_module(door).__file__).read_text(encoding="utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and name in [one.name for one in statement.names]:
            return constant_text(statement.module, name)
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if name in [getattr(target, "id", None) for target in targets]:
            value = getattr(following, "value", None)
            return ast.literal_eval(value) if isinstance(value, ast.Constant) else None
    return None


def documented(found: object) -> bool:
    """True for a class or function of our own, whose text Python keeps."""
    ours = getattr(found, "__module__", "").startswith("reidcore")
    return ours and (inspect.isclass(found) or inspect.isfunction(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A current folder as the examples of `load` and `open_run` expect it: a run, pictures."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "demo.toml").write_text(TINY.replace("epochs = 6", "epochs = 1"))
    reid(environment(folder / "cache"), folder, "run", "demo.toml", "--out", "runs/demo")
    drawn = next((folder / "cache").iterdir())
    shutil.copytree(drawn / "gallery", folder / "pictures" / "gallery")
    (folder / "pictures" / "query").mkdir()
    shutil.copy(next((drawn / "query").iterdir()), folder / "pictures" / "query" / "a.jpg")
    return folder


@pytest.mark.parametrize(("door", "name"), NAMES, ids=lambda value: value)
def test_a_public_name_is_documented(door, name):
    """Every name in `__all__`, and every method, has a text that begins with no riddle."""
    found = public(door, name)
    texts = {name: found.__doc__ if documented(found) else constant_text(door, name)}
    if inspect.isclass(found):
        methods = (inspect.isfunction, inspect.ismethod, lambda one: isinstance(one, property))
        texts |= {
            f"{name}.{key}": value.__doc__
            for key, value in inspect.getmembers(
                found, lambda one: any(is_(one) for is_ in methods)
            )
            if not key.startswith("_") and key in vars(found) and key != "forward"
        }
    for key, text in texts.items():
        assert text, f"{door}: {key} has no docstring"
        assert text.split()[0] not in RIDDLES, text.splitlines()[0]


@pytest.mark.parametrize(
    ("door", "name"),
    [one for one in NAMES if documented(public(*one)) and one[1] not in CALLED_BY_THE_CORE],
    ids=lambda value: value,
)
def test_examples_run(door, name, folder, monkeypatch):
    """Every class and function that a person calls has an example, and the example is right."""
    monkeypatch.chdir(folder)
    tests = doctest.DocTestFinder().find(public(door, name), name, globs={})
    assert any(test.examples for test in tests), f"{door}.{name} has no example"
    runner = doctest.DocTestRunner(verbose=False)
    shown: list[str] = []
    for test in tests:
        runner.run(test, out=shown.append)
    assert not runner.failures, "".join(shown)
