"""The page of `reid report`: what is on it, and, in a headless Chromium, what it does."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Read, needs_chromium, opened, read, screenshot, title_of, unguarded, width_of
from PIL import Image
from running import TINY

from reidcore.cli.main import main
from tests.distributions import install_explaining

SCRIPT = "<script>document.title='ran'</script>"
IMAGE = "<img src=http://outside.example/x onerror=document.title='ran'>"
PARTS = """
[[matcher]]
name = "places"
use = "shown.places"
feature = "backbone.layer3"

[[post]]
name = "rerank"
use = "core.rerank"

[[ranking]]
name = "main"
matcher = "look"
post = ["rerank"]

[[ranking]]
name = "places"
matcher = "places"
"""


def hostile(folder: Path, drawn: Path) -> None:
    """A manifest in `folder` whose identities, cameras and file names are HTML."""
    rows = []
    for split, source in (("train", "train"), ("query", "query"), ("gallery", "gallery")):
        target = folder / "pictures" / split
        target.mkdir(parents=True)
        for path in sorted((drawn / source).glob("*.jpg")):
            pid, camera, _ = path.stem.split("_")
            name = f"{path.stem}{IMAGE.replace('/', ' ')}.jpg"
            shutil.copy(path, target / name)
            rows.append(
                [f"pictures/{split}/{name}", f"{pid}{SCRIPT}", f"{camera}\"'>{IMAGE}", split]
            )
    with open(folder / "people.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "camera", "split"])
        writer.writerows(rows)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder, with the runs `plain`, which scores 60 queries, and `hostile`."""
    folder = tmp_path_factory.mktemp("report")
    install_explaining(folder / "site")
    text = TINY.replace("epochs = 6", "epochs = 1") + PARTS
    ours = "test_identities = 15, pictures = 14, cameras = 4 },\n]"
    assert "test_identities = 3, pictures = 8, cameras = 2 },\n]" in text
    text = text.replace("test_identities = 3, pictures = 8, cameras = 2 },\n]", ours)
    (folder / "plain.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.setenv("REID_DATA", str(folder))
        patch.chdir(folder)
        assert main(["run", "plain.toml", "--out", "plain"]) == 0
        assert main(["data", "demo", "drawn", *TINY_DEMO]) == 0
        hostile(folder, folder / "drawn")
        start = TINY.index("train = {")
        data = 'train = { manifest = "people.csv" }\ntest = [{ manifest = "people.csv" }]\n'
        text = TINY[:start] + data + TINY[TINY.index("image =") :]
        text = text.replace("epochs = 6", "epochs = 1")
        (folder / "hostile.toml").write_text(f"# {SCRIPT}\n{text}")
        assert main(["run", "hostile.toml", "--out", "hostile"]) == 0
        yield folder


TINY_DEMO = [
    part
    for setting in ("train_identities=4", "test_identities=3", "pictures=8", "cameras=2")
    for part in ("--set", setting)
]


def report(work: Path, name: str, *arguments: object) -> Path:
    assert main(["report", *map(str, arguments), "-o", name, "--device", "cpu"]) == 0
    return work / name


@pytest.fixture(scope="module")
def plain(work) -> Path:
    return report(work, "plain.html", "plain", "--queries", "60")


@pytest.fixture(scope="module")
def plain_read(plain) -> Read:
    return read(plain.read_text())


def test_everything_is_on_the_page(plain_read):
    """Headings of all that a run knows, scores as `scores.json` has them, figures of every kind."""
    headings = (
        "Scores",
        "Training",
        "demo, ranking main",
        "plain → rerank",
        "Ranked lists",
        "Hardest failures",
        "Most confident wrong matches",
        "Explanations",
        "Run file",
        "All settings",
        "Versions and manifests",
    )
    for heading in headings:
        assert heading in plain_read.text, heading
    figures = " ".join(one["alt"] for one in plain_read.all("img"))
    for words in (
        "CMC curves. demo main plain: rank-1",
        "loss by epoch",
        "learning rate by epoch",
        "mAP, % by epoch",
        "Histograms of distances, plain: matches mean",
        "TAR",
        "at FAR 0.01",
        "mAP by camera pair. ",
        "Ranks of first matches, plain against rerank",
    ):
        assert words in figures, words
    assert "peak memory" in plain_read.text and "last evaluation" in plain_read.text
    assert 'format = 1 name = "tiny"' in plain_read.text


def test_what_third_party_parts_explain_is_on_the_page(plain_read):
    """Heat and tables of a plugin that the core does not know, for the ranking that uses it."""
    alts = [one["alt"] for one in plain_read.all("img")]
    assert any(alt.startswith("matcher.places.forth: lines between") for alt in alts)
    assert any(alt.startswith("gradcam.look.backbone.layer4: heat over") for alt in alts)


def test_every_picture_says_what_it_is(plain_read):
    """Pictures have alternative texts; the 60 queries of each ranking have a list."""
    for one in plain_read.all("img"):
        assert one["alt"] and one["src"].startswith("data:image/")
    labels = [one["aria-label"] for one in plain_read.pictures()]
    assert sum(label.startswith("query") for label in labels) >= 2 * 60
    kinds = [one["class"] for one in plain_read.all("figure")]
    assert {"tile query", "tile match", "tile wrong", "tile ignored"} <= set(kinds)
    for kind in ("match", "wrong", "not counted"):
        assert any(f"rank 1, {kind}" in label or kind in label for label in labels)


def test_everything_is_inside_the_file(plain, plain_read):
    """Every address is data or a place on the page; there is no script and no outer style."""
    addresses = [
        attributes[key]
        for _, attributes in plain_read.tags
        for key in ("src", "srcset", "href", "action", "poster", "data")
        if key in attributes
    ]
    assert len(addresses) > 20
    assert all(one.startswith(("data:image/", "#")) for one in addresses)
    assert not plain_read.all("script") and not plain_read.all("link")
    assert "@import" not in plain.read_text() and plain.read_text().count("url(") == sum(
        1 for _ in re.finditer(r"url\(data:image/jpeg;base64,", plain.read_text())
    )


def test_the_size(plain):
    """60 queries of two rankings with their pictures take less than 5 MiB."""
    assert plain.stat().st_size < 5 * 2**20


def test_pictures_can_be_left_out_or_made_smaller(work, plain, capsys):
    """Without pictures the figures stay; smaller ones make a smaller page."""
    without = report(work, "without.html", "plain", "--no-pictures")
    found = read(without.read_text())
    assert not found.pictures() and "Ranked lists" not in found.text
    assert any("Histograms of distances" in one["alt"] for one in found.all("img"))
    assert "image/jpeg" not in without.read_text()
    small = report(work, "small.html", "plain", "--queries", "60", "--max-side", "32")
    assert without.stat().st_size < small.stat().st_size < plain.stat().st_size
    sizes = [one["style"] for one in read(small.read_text()).pictures()]
    assert sizes and all("height:32px" in size for size in sizes)


def test_without_the_data(work, tmp_path, monkeypatch):
    """Where the pictures are gone, scores and curves are there, and the page says what is not."""
    monkeypatch.setenv("REID_DATA", str(tmp_path))
    text = report(work, "gone.html", "hostile").read_text()
    found = read(text)
    assert "Distances, lists and pictures are absent" in found.text and "people.csv" in found.text
    assert any(one["alt"].startswith("CMC") for one in found.all("img"))
    assert any(one["alt"].startswith("loss by epoch") for one in found.all("img"))
    assert not found.pictures()


def test_two_runs_side_by_side(work, monkeypatch):
    """Differences from the first run, what tells the runs apart, and queries that gained."""
    set_ = ["--set", "train.seed=1", "--set", "train.epochs=2"]
    assert main(["run", "plain.toml", "--out", "other", *set_]) == 0
    found = read(report(work, "two.html", "plain", "other", "--no-pictures").read_text())
    assert "Side by side" in found.text and "2 settings tell the runs apart" in found.text
    assert "plain main rerank → other main rerank" in found.text
    alts = [one["alt"] for one in found.all("img")]
    assert any("CMC" in alt and "plain main plain" in alt and "other main" in alt for alt in alts)


def test_pngs_for_papers(work, tmp_path):
    """Every figure is written as a PNG, and the ranked lists in full resolution."""
    report(work, "png.html", "plain", "--png", tmp_path / "png", "--queries", "3")
    names = {path.name for path in (tmp_path / "png").iterdir()}
    assert {
        "run1-cmc.png",
        "run1-epochs-loss.png",
        "run1-demo-main-rerank-distances.png",
        "run1-demo-main-cameras.png",
        "run1-demo-main-rerank-ranks.png",
        "run1-demo-main-lists.png",
    } <= names
    for name in names:
        with Image.open(tmp_path / "png" / name) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 200


@needs_chromium
def test_nothing_leaves_the_page(work, plain, tmp_path):
    """The page asks the network for nothing; the log would tell."""
    assert opened(tmp_path, plain).requests == []
    control = tmp_path / "control.html"
    control.write_text("<img src='http://outside.example/x.png'>")
    assert any("outside.example/x.png" in line for line in opened(tmp_path, control).requests)


@needs_chromium
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_scripts_in_names_are_text(work, tmp_path, guarded):
    """HTML in identities, cameras, file names and run files is shown, neither run nor fetched:
    because it is escaped, and because the page's policy forbids scripts and requests."""
    page = report(work, "hostile.html", "hostile", "--explain", "1")
    text = page.read_text()
    if not guarded:
        page = tmp_path / "unguarded.html"
        page.write_text(unguarded(text))
    found = opened(tmp_path, page)
    assert title_of(found.dom) == "Report: hostile"
    assert found.requests == []
    dom = read(found.dom)
    assert not dom.all("script")
    assert all(one["src"].startswith("data:") for one in dom.all("img"))
    assert f"# {SCRIPT}" in dom.text and f"id 0005{SCRIPT}" in dom.text
    assert any(IMAGE in one["aria-label"] for one in dom.pictures())


@needs_chromium
def test_the_policy_alone_stops_scripts_and_requests(plain, tmp_path):
    """What escaping might miss does nothing: a script and a picture put into the page by hand."""
    text = plain.read_text().replace("<main>", f"<main>{SCRIPT}{IMAGE}", 1)
    guarded, free = tmp_path / "guarded.html", tmp_path / "free.html"
    guarded.write_text(text)
    free.write_text(unguarded(text))
    found = opened(tmp_path, guarded)
    assert title_of(found.dom) == "Report: plain" and found.requests == []
    found = opened(tmp_path, free)
    assert title_of(found.dom) == "ran"


@needs_chromium
def test_dark_and_light(plain, tmp_path):
    """The paper follows the reader's mode, and ink stands out from it."""
    light, dark = (np.asarray(screenshot(tmp_path, plain, mode)).mean(2) for mode in (False, True))
    assert np.median(light) > 230 and light.min() < 80
    assert np.median(dark) < 40 and dark.max() > 200


@needs_chromium
@pytest.mark.parametrize("width", [360, 1100])
def test_narrow_and_wide(plain, tmp_path, width):
    """The page itself never scrolls sideways; wide tables and lists do, inside it."""
    assert width_of(tmp_path, plain, width) <= width
