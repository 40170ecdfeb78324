"""docs/run-files.md: its generated parts are up to date, its example is a run file that wires."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from reidcore.plugins.loading import Plugins
from reidcore.protocols.base import SIDES
from reidcore.runfiles.keys import TOP_KEYS
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfiles.tables import CORE_TABLES
from reidcore.wiring.make_plan import make_plan

DOCS = Path(__file__).parents[2] / "docs"
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
    from reidcore.plugins.packaged_runs import find_packaged

    items = re.findall(r"--set '?(?!key=)([\w.]+=(?:\[.*?\]|[\w.]+))", TEXT)
    assert len(items) >= 6
    text = find_packaged("demo", Plugins([])).text
    for item in items:
        make_plan(parse_runfile(text, Path("demo.toml"), [item]), Plugins([]), allow_missing=True)


def test_data_sets_of_the_pages_fit_the_demo(tmp_path, monkeypatch):
    """The tables of data sets that the pages show are accepted in place of the demo's, and so are
    the repeats over RegDB's trials."""
    import tomli

    from reidcore.plugins.packaged_runs import find_packaged
    from reidcore.support.toml_values import toml_value

    monkeypatch.setenv("REID_DATA", str(tmp_path))
    rows = "path,pid,split\n" + "".join(f"{n}.jpg,1,{s}\n" for n, s in enumerate(SIDES))
    (tmp_path / "yard.csv").write_text(rows)
    text, seen = find_packaged("demo", Plugins([])).text, set()
    for page in ("data.md", "evaluation.md"):
        blocks = re.findall(r"^```toml\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.S | re.M)
        for table in map(tomli.loads, blocks):
            data = table.get("data", table)
            sets = [f"data.{role}={toml_value(data[role])}" for role in data]
            run = parse_runfile(text, Path("demo.toml"), sets)
            plan = make_plan(run, Plugins([]), allow_missing=True)
            seen |= {one.protocol.name for one in plan.data.test}
            for trial in table.get("repeat", {}).get("data.trial", []):
                again = [*sets, f"data.trial={trial}"]
                run = parse_runfile(text, Path("demo.toml"), again)
                plan = make_plan(run, Plugins([]), allow_missing=True)
                assert plan.data.trials == {"core.regdb": [trial]}
    assert seen == {"cross_camera", "vehicleid", "sysu", "regdb", "open_set"}


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page):
    """Links have a file, and where they name one, a heading in it."""
    for target in re.findall(r"\]\(([^)]+)\)", (DOCS / page).read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = DOCS / (file or page)
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in anchors, target
