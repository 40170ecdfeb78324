"""docs/run-files.md: its generated parts are up to date, its example is a run file that wires."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from reidcore.plugins import Plugins
from reidcore.runfile import parse_runfile
from reidcore.tables import CORE_TABLES, TOP_KEYS
from reidcore.wiring import make_plan

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "run-files.md").read_text("utf-8")


@pytest.fixture(scope="module")
def generate():
    """The script docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(generate):
    """Run `uv run python docs/generate.py` where this fails."""
    assert generate.page(TEXT) == TEXT


def test_the_script_notices_a_changed_key(generate):
    """A stale table is replaced, hand-written text is kept."""
    stale = TEXT.replace("| `epochs` |", "| `rounds` |")
    assert stale != TEXT and generate.page(stale) == TEXT
    assert generate.page(TEXT.replace("Run files", "Files")) == TEXT.replace("Run files", "Files")
    with pytest.raises(KeyError):
        generate.page("<!-- generated: nothing -->\n<!-- end -->")


def test_every_key_and_component_is_there():
    """Each top-level key, each key of the core's tables and each component of `core` is named."""
    for key in TOP_KEYS:
        assert re.search(rf"`(\[+)?{key}(\]+)?`", TEXT), key
    for name, cls in CORE_TABLES.items():
        for field in cls.__attrs_attrs__:
            assert f"| `{field.name}` |" in TEXT, (name, field.name)
    for one in Plugins([]).components(plugin="core"):
        assert f"#### `{one.name}`" in TEXT


def test_the_example_is_a_run_file(monkeypatch, tmp_path):
    """The complete example passes the check of keys and wiring, and shows every table that can be
    shown without a plugin."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    example = re.search(r"<!-- example: complete -->\n```toml\n(.*?)```", TEXT, re.DOTALL)[1]
    run = parse_runfile(example, Path("example.toml"))
    plan = make_plan(run, Plugins([]), allow_missing=True)
    assert [ranking.name for ranking in plan.rankings] == ["main", "both"]
    assert {*run.table} == {*TOP_KEYS} - {"post", "procedure", "repeat"}
    assert all("#" in line for line in example.splitlines() if line.startswith("[backbone"))


def test_the_repeat_of_the_page_fits_the_demo():
    """The lists under [repeat] are what the page says: three runs, the second with seed 1."""
    table = re.search(r"```toml\n(\[repeat\]\n.*?)```", TEXT, re.DOTALL)[1]
    example = re.search(r"<!-- example: complete -->\n```toml\n(.*?)```", TEXT, re.DOTALL)[1]
    run = parse_runfile(f"{example}\n{table}", Path("example.toml"))
    assert {len(values) for values in run.repeat.values()} == {3}
    assert run.repeat["train.seed"][1] == 1 and run.repeat["loss.id.smoothing"][1] == 0.1


def test_the_sets_of_the_page_fit_the_demo():
    """Every `--set` that the page shows is accepted with the demo's run file."""
    from reidcore.packaged import find_packaged

    items = re.findall(r"--set '?(?!key=)([\w.]+=(?:\[.*?\]|[\w.]+))", TEXT)
    assert len(items) >= 6
    text = find_packaged("demo", Plugins([])).text
    for item in items:
        make_plan(parse_runfile(text, Path("demo.toml"), [item]), Plugins([]), allow_missing=True)


def test_links_lead_somewhere():
    """Links inside the page have a heading, links to other files a file."""
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (DOCS / target).exists(), target
