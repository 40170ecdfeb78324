"""The page of `reid serve` in a browser, from a dropped picture to a labelled match."""

from __future__ import annotations

import io
import json

import pytest
from browser import needs_chromium

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from driving import driven
from PIL import Image

from reid_gallery.serve.client import Client

pytestmark = needs_chromium
slow = pytest.mark.slow
CARDS = ".card"


@pytest.fixture
def client(service):
    with Client(service) as client:
        yield client


@pytest.fixture
def opened(browser, service):
    with driven(browser, service) as opened:
        yield opened
        assert opened.faults == []
        assert [one for one in opened.requests if not own(one, service)] == []


def own(url, service):
    """Whether a request stays in the service, or within the page."""
    return url.startswith((service + "/", f"blob:{service}/"))


def search(page):
    """Presses Search and waits for what is found."""
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.click("#search")
    page.wait_for_selector("#results:not(.waiting) #summary")


def ids(page):
    return [int(one.get_attribute("data-id")) for one in page.query_selector_all(CARDS)]


def found(client, *files, **asked):
    """The ids that the service finds, as the page asks for them."""
    answers = client.search(files, together=True, **asked).answers
    return [match.id for match in answers[0].matches]


def marked(page, card, mark):
    with page.expect_response("**/v1/label"):
        card.locator(f"[data-do={mark}]").click()
    page.wait_for_function("document.getElementById('status').textContent.includes('ark')")


def test_a_dropped_picture_is_searched_for(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen img[alt='new.jpg']")
    search(page)
    assert ids(page) == found(client, day / "new.jpg")
    first = client.picture(ids(page)[0])
    assert f"Camera {first.camera}" in page.inner_text(".card")
    assert page.inner_text("#status") == page.inner_text("#summary")
    page.wait_for_function("document.querySelector('.card img').naturalWidth > 20")


@slow
def test_from_a_dropped_picture_to_a_labelled_match(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    search(page)
    card = page.locator(CARDS).nth(1)
    match = int(card.get_attribute("data-id"))
    card.locator("[data-do=why]").click()
    page.wait_for_selector("#why-picture:visible")
    assert page.evaluate("document.getElementById('why-picture').naturalWidth") > 300
    assert "Your picture beside the match" in page.get_attribute("#why-picture", "alt")
    view = page.evaluate("[...document.querySelectorAll('#why-view option')].at(-1).value")
    with page.expect_response("**/v1/explain") as answer:
        page.select_option("#why-view", view)
    assert json.loads(answer.value.headers["x-view"]) == view
    page.keyboard.press("Escape")

    page.fill("#name", "Ann")
    marked(page, card, "right")
    assert client.picture(match).identity == "Ann"
    assert "Named Ann" in card.inner_text()
    marked(page, card, "right")
    assert client.picture(match).identity is None, "the mark is taken back"
    marked(page, card, "right")
    marked(page, card, "right")
    client.label(ids=[match], identity="Bob")
    search(page)
    page.fill("#name", "Bob")
    marked(page, card, "wrong")
    assert client.picture(match).identity is None
    marked(page, card, "wrong")
    assert client.picture(match).identity == "Bob"
    client.label(ids=[match], identity="")


@slow
def test_search_on_and_back(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    search(page)
    before = ids(page)
    page.click(".card:nth-child(3) a.picture")
    page.wait_for_selector(f"#chosen img[src*='{before[2]}']")
    page.wait_for_selector(f"#results:not(.waiting) .card:not([data-id='{before[2]}'])")
    page.wait_for_function(f"!document.querySelector('[data-id=\"{before[2]}\"]')")
    expected = [match.id for match in client.search(ids=[before[2]]).answers[0].matches]
    assert ids(page) == expected
    assert page.url.endswith(f"/?id={before[2]}")

    page.fill("#name", "Cleo")
    marked(page, page.locator(CARDS).first, "right")
    assert client.picture(before[2]).identity == "Cleo", "the picture searched for is named too"
    marked(page, page.locator(CARDS).first, "right")
    assert client.picture(before[2]).identity is None

    page.go_back()
    page.wait_for_function(f"document.querySelector('.card')?.dataset.id == '{before[0]}'")
    assert ids(page) == before
    page.goto(page.url.split("?")[0] + f"?id={before[2]}")
    assert ids(page) == expected, "the address alone finds the same"


@slow
def test_with_the_keyboard_alone(opened, client, day):
    page, keys = opened.page, opened.page.keyboard

    def reach(selector):
        for _ in range(80):
            keys.press("Tab")
            assert page.evaluate(VISIBLE), page.evaluate("document.activeElement.outerHTML")
            if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    reach("#picture")
    with page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    assert page.evaluate("document.activeElement.id") == "search"
    keys.press("Enter")
    page.wait_for_selector("#results:not(.waiting) #summary")
    page.wait_for_function("document.activeElement.id == 'results'")
    match = ids(page)[0]
    reach(f"a[data-dot='{match}']")
    keys.press("Enter")
    page.wait_for_function(f"location.hash == '#match-{match}'")
    reach("[data-do=right]")
    with page.expect_response("**/v1/label"):
        keys.press("Space")
    name = page.input_value("#name")
    assert client.picture(match).identity == name
    page.wait_for_selector(".card.right")
    with page.expect_response("**/v1/label"):
        keys.press("Space")
    reach("[data-do=why]")
    keys.press("Enter")
    page.wait_for_selector("#why-picture:visible")
    keys.press("Escape")
    assert page.evaluate("document.activeElement.dataset.do") == "why"
    reach("[data-do=on]")
    keys.press("Enter")
    page.wait_for_url(f"**/?id={match}")
    page.wait_for_selector("#results:not(.waiting) #summary")


VISIBLE = """() => {
  const one = document.activeElement;
  if (one === document.body || one === document.documentElement) return true;
  const seen = (each) => getComputedStyle(each).outlineStyle !== "none";
  const circle = one.querySelector("circle");
  if (circle) return parseFloat(getComputedStyle(circle).strokeWidth) >= 4;
  return seen(one) || (one.labels && [...one.labels].some(seen));
}"""
"""Whether one sees what has the focus."""


@slow
def test_pasted_pictures_are_one_person(opened, client, day):
    page = opened.page
    other = sorted((day / "seen").iterdir())[0]
    opened.paste(day / "new.jpg")
    opened.paste(other)
    page.wait_for_selector("#chosen li:nth-child(2)")
    search(page)
    assert ids(page) == found(client, day / "new.jpg", other)
    nearest = {one.get_attribute("data-query") for one in page.query_selector_all(CARDS)}
    assert nearest == {"picture 1", "picture 2"}
    answers = client.search([day / "new.jpg", other]).answers
    for card in page.query_selector_all(CARDS):
        distances = {
            answer.query: match.distance
            for answer in answers
            for match in answer.matches
            if match.id == int(card.get_attribute("data-id"))
        }
        assert card.get_attribute("data-query") == min(distances, key=distances.get)
    page.click("#chosen li:nth-child(1) button[aria-label^=Remove]")
    search(page)
    assert ids(page) == found(client, other)


@slow
def test_a_drawn_box_is_exactly_cut(opened, client, day, tmp_path):
    """Also out of a frame that a camera has turned, as its EXIF orientation says."""
    frame = tmp_path / "frame.png"
    with Image.open(day / "new.jpg") as person:
        scene = Image.new("RGB", (640, 360), (90, 120, 90))
        scene.paste(person.resize((80, 160)), (300, 100))
        exif = Image.Exif()
        exif[0x0112] = 6
        scene.transpose(Image.Transpose.ROTATE_90).save(frame, exif=exif)
    page = opened.page
    opened.drop(frame)
    page.click("#chosen button[aria-label^='Cut the person out']")
    page.wait_for_selector("#cut-area")
    area = page.locator("#cut-area").bounding_box()
    scale = area["width"] / 640
    assert area["height"] / 360 == pytest.approx(scale, rel=0.01)
    corners = [(380, 260), (300, 100)]  # drawn from the bottom right
    page.mouse.move(area["x"] + 380 * scale, area["y"] + 260 * scale)
    page.mouse.down()
    page.mouse.move(area["x"] + 330 * scale, area["y"] + 150 * scale)
    page.mouse.move(area["x"] + 300 * scale, area["y"] + 100 * scale)
    page.mouse.up()
    sides = [int(page.input_value(f"#cut-{side}")) for side in ("left", "top", "right", "bottom")]
    assert sides == pytest.approx([*corners[1], *corners[0]], abs=1)
    page.fill("#cut-left", "302")
    page.click("#cut button[value=use]")
    drawn = page.evaluate("(() => { const one = document.querySelector('#chosen canvas');"
                          "return [one.width, one.height] })()")  # fmt: skip
    assert drawn == [sides[2] - 302, sides[3] - sides[1]]
    search(page)
    cut = io.BytesIO()
    scene.crop((302, *sides[1:])).save(cut, "PNG")
    assert ids(page) == found(client, cut.getvalue())
    assert ids(page) != found(client, frame)
    page.click(".card [data-do=why]")
    page.wait_for_selector("#why-picture:visible")
    page.keyboard.press("Escape")
    page.click("#chosen button[aria-label^='Cut the person out']")
    page.fill("#cut-left", "600")
    page.click("#cut button[value=use]")
    assert "Left must be less than right" in page.inner_text("#cut-said")
    page.click("#cut button[value=whole]")
    search(page)
    assert ids(page) == found(client, frame)


@slow
def test_cameras_and_times_narrow_it_down(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    search(page)
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.check("input[name=camera][value='2']")
    page.wait_for_selector("#results:not(.waiting) #summary")
    assert ids(page) == found(client, day / "new.jpg", camera="2")
    slider = page.locator("#after")
    for _ in range(12):
        slider.press("ArrowRight")
    page.wait_for_selector("#results:not(.waiting) #summary")
    after = float(page.input_value("#after"))
    assert after > float(slider.get_attribute("min"))
    expected = found(client, day / "new.jpg", camera="2", after=after)
    page.wait_for_function(f"document.querySelectorAll('.card').length == {len(expected)}")
    assert ids(page) == expected
    assert {client.picture(one).camera for one in expected} == {"2"}
    assert all(client.picture(one).time >= after for one in expected)
    assert page.inner_text("#after-told") == slider.get_attribute("aria-valuetext")
    slider.press("End")
    assert float(page.input_value("#after")) < float(page.input_value("#before"))


@slow
def test_the_timeline_has_every_sighting_at_its_time(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    search(page)
    rows = {one: client.picture(one) for one in ids(page)}
    lanes = {}
    for lane in page.query_selector_all(".timeline li"):
        dots = lane.query_selector_all("a")
        lanes[lane.query_selector(".lane").inner_text()] = [
            (float(dot.query_selector("circle").get_attribute("cx")[:-1]),
             int(dot.get_attribute("data-dot")))
            for dot in dots
        ]  # fmt: skip
    assert {name: {one for _, one in dots} for name, dots in lanes.items()} == {
        f"Camera {camera}": {one for one in rows if rows[one].camera == camera}
        for camera in {row.camera for row in rows.values()}
    }
    dots = sorted(dot for lane in lanes.values() for dot in lane)
    assert [one for _, one in dots] == sorted(rows, key=lambda one: rows[one].time)
    first, last = rows[dots[0][1]].time, rows[dots[-1][1]].time
    for left, one in dots:
        assert left == pytest.approx(3 + 94 * (rows[one].time - first) / (last - first), abs=0.01)
    page.click(f"a[data-dot='{dots[0][1]}']")
    assert page.evaluate("document.querySelector('.card:target').dataset.id") == str(dots[0][1])
