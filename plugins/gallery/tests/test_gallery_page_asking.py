"""Pictures, boxes, cameras and times on the page of `reid serve`, in a browser."""

from __future__ import annotations

import io

import pytest
from browser import needs_chromium

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from driving import found
from PIL import Image

pytestmark = [needs_chromium, pytest.mark.slow]


def test_pasted_pictures_are_one_person(opened, client, day):
    page = opened.page
    other = sorted((day / "seen").iterdir())[0]
    opened.paste(day / "new.jpg")
    page.wait_for_selector("#chosen li:nth-child(1)")
    opened.paste(other)
    page.wait_for_selector("#chosen li:nth-child(2)")
    opened.search()
    assert opened.ids() == found(client, day / "new.jpg", other)
    nearest = {one.get_attribute("data-query") for one in page.query_selector_all(".card")}
    assert "picture 2" in nearest, "which is in the gallery itself"
    answers = client.search([day / "new.jpg", other]).answers
    for card in page.query_selector_all(".card"):
        distances = {
            answer.query: match.distance
            for answer in answers
            for match in answer.matches
            if match.id == int(card.get_attribute("data-id"))
        }
        assert card.get_attribute("data-query") == min(distances, key=distances.get)
    page.click("#chosen li:nth-child(1) button[aria-label^=Remove]")
    opened.search()
    assert opened.ids() == found(client, other)


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
    opened.search()
    cut = io.BytesIO()
    scene.crop((302, *sides[1:])).save(cut, "PNG")
    assert opened.ids() == found(client, cut.getvalue())
    assert opened.ids() != found(client, frame)
    page.click(".card [data-do=why]")
    page.wait_for_selector("#why-picture:visible")
    page.keyboard.press("Escape")
    page.click("#chosen button[aria-label^='Cut the person out']")
    page.fill("#cut-left", "600")
    page.click("#cut button[value=use]")
    assert "Left must be less than right" in page.inner_text("#cut-said")
    page.click("#cut button[value=whole]")
    opened.search()
    assert opened.ids() == found(client, frame)


def test_cameras_and_times_narrow_it_down(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    opened.search()
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.check("input[name=camera][value='2']")
    page.wait_for_selector("#results:not(.waiting) #summary")
    assert opened.ids() == found(client, day / "new.jpg", camera="2")
    slider = page.locator("#after")
    for _ in range(12):
        slider.press("ArrowRight")
    page.wait_for_selector("#results:not(.waiting) #summary")
    after = float(page.input_value("#after"))
    assert after > float(slider.get_attribute("min"))
    expected = found(client, day / "new.jpg", camera="2", after=after)
    opened.until(f"document.querySelectorAll('.card').length == {len(expected)}")
    assert opened.ids() == expected
    assert {client.picture(one).camera for one in expected} == {"2"}
    assert all(client.picture(one).time >= after for one in expected)
    assert page.inner_text("#after-told") == slider.get_attribute("aria-valuetext")
    slider.press("End")
    assert float(page.input_value("#after")) < float(page.input_value("#before"))


def test_the_timeline_has_every_sighting_at_its_time(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    opened.search()
    rows = {one: client.picture(one) for one in opened.ids()}
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
