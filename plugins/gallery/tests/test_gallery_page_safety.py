"""The page of `reid serve`: what is hostile runs nothing, mistakes are told in sentences, and all
people can use it: without scripts, on narrow screens, in dark mode, by those who do not see it."""

from __future__ import annotations

import shutil

import attrs
import numpy as np
import pytest
from browser import needs_chromium

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from driving import driven, served_here
from gallery_runs import write_csv

from reid_gallery import Gallery
from reid_gallery.serve.client import Client
from reid_gallery.serve.settings import Settings, digest

pytestmark = [needs_chromium, pytest.mark.slow]
TOKEN = "a-token-that-nobody-guesses"
HACK = "window.hacked=1"
HOSTILE = f'"><script>{HACK}</script><img src=x onerror={HACK}><svg onload={HACK}>'
FILE = f"<img src=x onerror={HACK}>.jpg"
STAGES = ("start", "found", "why", "cut")


@pytest.fixture(scope="module")
def hostile(work, day, tmp_path_factory):
    """The address of a service of a gallery in which every text is hostile, and such a file."""
    folder = tmp_path_factory.mktemp("hostile")
    pictures = sorted((day / "seen").iterdir())[:3]
    names = [f"{place}{FILE}" for place in range(len(pictures))]
    for picture, name in zip(pictures, names, strict=True):
        shutil.copy(picture, folder / name)
    write_csv(
        folder / "seen.csv",
        [{"path": name, "camera": f"{HOSTILE}{place}", "time": str(1e9 + place)}
         for place, name in enumerate(names)],
    )  # fmt: skip
    gallery = Gallery.create(work / "run", folder / "gallery", device="cpu")
    gallery.add(folder / "seen.csv")
    gallery.label(where="id >= 0", identity=HOSTILE)
    asked = Settings(
        str(folder / "gallery"), str(folder / "state"), device="cpu", rate=0, decode_seconds=100
    )
    with served_here(asked) as address:
        yield address, folder / names[0]


def go(opened, picture):
    """Searches for a picture, and yields the name of each stage of the way when it is reached."""
    page = opened.page
    yield "start"
    opened.drop(picture)
    page.wait_for_selector("#chosen li")
    page.click("#search")
    page.wait_for_selector("#results:not(.waiting) #summary")
    page.wait_for_selector(".card")
    yield "found"
    page.locator("[data-do=why]").first.click()
    page.wait_for_selector("#why-picture:visible")
    yield "why"
    page.keyboard.press("Escape")
    page.locator("#chosen button").first.click()
    page.wait_for_selector("#cut-area")
    yield "cut"


def test_hostile_texts_are_shown_and_run_nothing(browser, hostile):
    address, picture = hostile
    with driven(browser, address) as opened:
        page = opened.page
        for _ in go(opened, picture):
            assert page.evaluate("window.hacked === undefined")
        page.keyboard.press("Escape")
        page.locator("[data-do=right]").first.click()
        opened.until("document.querySelector('.card.right') !== null")
        assert page.evaluate("window.hacked === undefined")
        card = page.inner_text(".card.right")
        assert HOSTILE in card and FILE in card
        assert HOSTILE in page.inner_text("#status") and HOSTILE in page.inner_text(
            "legend ~ label"
        )
        assert picture.name in page.inner_text("#chosen")
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        page.locator(
            "input[name=camera]"
        ).last.check()  # its name goes to the service and comes back
        page.click(".card [data-do=on]")
        page.wait_for_selector("#chosen img[src^='/v1/']")
        assert page.evaluate("window.hacked === undefined")
        assert opened.faults == []
        assert all(one.startswith((address, f"blob:{address}")) for one in opened.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_everybody_can_use_it(browser, service, day, scheme, width):
    """Contrast, names of all that is used, headings and roles, by axe; no scrolling sideways."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 740}}
    with driven(browser, service, **options, reduced_motion="reduce") as opened:
        paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(one) for one in paper[4:-1].split(","))
        assert (brightness < 150) == (scheme == "dark")
        for stage in go(opened, day / "new.jpg"):
            assert opened.width() <= width, stage
            for found in Axe().run(opened.page).response["violations"]:
                told = [one["html"] + one["failureSummary"] for one in found["nodes"]]
                raise AssertionError(f"{stage}: {found['id']}: {told}")
        assert opened.faults == []


def test_without_scripts_it_is_a_form(browser, service, day):
    with driven(browser, service, java_script_enabled=False) as opened:
        page = opened.page
        assert not page.is_visible(".scripted")
        page.click("#search")
        assert page.inner_text("#problem") == "Choose a picture of the person first."
        page.set_input_files("#picture", day / "new.jpg")
        page.check("input[name=camera][value='3']")
        page.click("#search")
        cards = [one.get_attribute("data-id") for one in page.query_selector_all(".card")]
        with Client(service) as client:
            (answer,) = client.search([day / "new.jpg"], camera="3").answers
        assert cards == [str(match.id) for match in answer.matches]
        assert page.is_checked("input[name=camera][value='3']")
        page.click(".card a.picture")
        assert page.url.endswith(f"?id={cards[0]}")
        assert page.locator(".card").count() == 10


def test_mistakes_are_told_in_sentences(browser, service, day, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "fake.png").write_bytes(np.random.default_rng(0).bytes(3000))
    whole = (day / "new.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with driven(browser, service, viewport={"width": 360, "height": 740}) as opened:
        page = opened.page

        def told(words):
            opened.until(f"document.getElementById('problem').innerText.includes('{words}')")
            place = page.locator("#problem").bounding_box()
            assert 0 <= place["y"] <= 740 - place["height"], "one sees it wherever one is"

        page.click("#search")
        told("Choose a picture of the person first.")
        opened.drop(tmp_path / "notes.txt")
        told("“notes.txt” is not a picture that can be read here. Use BMP, JPEG, PNG, WEBP.")
        opened.drop(tmp_path / "fake.png")
        told("“fake.png” is damaged, or no picture.")
        opened.drop(*[day / "new.jpg"] * 17)
        told("there may be 16 pictures at once")
        page.reload()
        opened.drop(tmp_path / "half.jpg")
        page.wait_for_selector("#chosen li")
        page.click("#search")
        told("Picture 1 cannot be decoded")
        page.context.set_offline(True)
        page.click("#search")
        told("The service does not answer. Try again in a moment.")
        page.context.set_offline(False)


def test_a_token_is_entered_and_left(browser, day, tmp_path):
    asked = Settings(
        str(day / "gallery"), str(tmp_path), device="cpu", rate=0, tokens={"ann": digest(TOKEN)}
    )
    with served_here(asked) as address, driven(browser, address) as opened:
        page = opened.page
        assert page.url == f"{address}/login"
        page.fill("#token", "not this one")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong")
        assert "This is no token of this service." in page.inner_text("main")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#search")
        opened.drop(day / "new.jpg")
        page.wait_for_selector("#chosen li")
        page.context.clear_cookies()
        page.click("#search")
        opened.until("document.getElementById('problem').innerText.includes('enter your token')")
        page.goto(address)
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.click("text=Leave")
        page.wait_for_url(f"{address}/login")
        page.goto(address)
        assert page.url == f"{address}/login"


def test_an_empty_gallery_says_so(browser, work, tmp_path):
    Gallery.create(work / "run", tmp_path / "gallery", device="cpu")
    asked = Settings(str(tmp_path / "gallery"), str(tmp_path / "state"), device="cpu", rate=0)
    asked = attrs.evolve(asked, decoders=1)
    with served_here(asked) as address, driven(browser, address) as opened:
        assert "There are no pictures to compare with yet." in opened.page.inner_text("main")
        assert opened.faults == []
