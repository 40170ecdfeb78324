"""The page of `reid serve` in a browser, from a dropped picture to a labelled match."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from browser import needs_chromium

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from driving import found

from reidcore.cli.main import main

pytestmark = needs_chromium
slow = pytest.mark.slow
CARDS = ".card"
DOCS = Path(__file__).parents[3] / "docs" / "service.md"
(COMMAND,) = re.findall(r"^\$ reid (gallery .*)$", DOCS.read_text("utf-8"), re.MULTILINE)
"""What the walk of the docs ends with."""


def marked(opened, card, mark):
    """Marks a match, or takes the mark back, and waits until that is told."""
    pressed = card.locator(f"[data-do={mark}]").get_attribute("aria-pressed")
    with opened.page.expect_response("**/v1/label"):
        card.locator(f"[data-do={mark}]").click()
    told = "taken back" if pressed == "true" else f"Marked as {mark}"
    opened.until(f"document.getElementById('status').textContent.includes('{told}')")


def test_a_dropped_picture_is_searched_for(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen img[alt='new.jpg']")
    opened.search()
    assert opened.ids() == found(client, day / "new.jpg")
    first = client.picture(opened.ids()[0])
    assert f"Camera {first.camera}" in page.inner_text(".card")
    assert page.inner_text("#status") == page.inner_text("#summary")
    opened.until("document.querySelector('.card img').naturalWidth > 20")


@slow
def test_from_a_dropped_picture_to_a_labelled_match(opened, client, day, monkeypatch, capsys):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    page.click("summary")
    page.select_option("#ranking", "pairs")
    opened.search()
    assert opened.ids() == found(client, day / "new.jpg", ranking="pairs")
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
    marked(opened, card, "right")
    assert client.picture(match).identity == "Ann"
    assert "Named Ann" in card.inner_text()
    monkeypatch.chdir(day)
    assert main(shlex.split(COMMAND)) == 0
    assert client.picture(match).name in capsys.readouterr().out
    marked(opened, card, "right")
    assert client.picture(match).identity is None, "the mark is taken back"
    marked(opened, card, "right")
    marked(opened, card, "right")
    client.label(ids=[match], identity="Bob")
    opened.search()
    page.fill("#name", "Bob")
    marked(opened, card, "wrong")
    assert client.picture(match).identity is None
    marked(opened, card, "wrong")
    assert client.picture(match).identity == "Bob"
    client.label(ids=[match], identity="")


@slow
def test_search_on_and_back(opened, client, day):
    page = opened.page
    opened.drop(day / "new.jpg")
    page.wait_for_selector("#chosen li")
    opened.search()
    before = opened.ids()
    page.click(".card:nth-child(3) a.picture")
    page.wait_for_selector(f"#chosen img[src*='{before[2]}']")
    page.wait_for_selector(f"#results:not(.waiting) .card:not([data-id='{before[2]}'])")
    opened.until(f"!document.querySelector('[data-id=\"{before[2]}\"]')")
    expected = [match.id for match in client.search(ids=[before[2]]).answers[0].matches]
    assert opened.ids() == expected
    assert page.url.endswith(f"/?id={before[2]}")

    page.fill("#name", "Cleo")
    marked(opened, page.locator(CARDS).first, "right")
    assert client.picture(before[2]).identity == "Cleo", "the picture searched for is named too"
    marked(opened, page.locator(CARDS).first, "right")
    assert client.picture(before[2]).identity is None

    page.go_back()
    opened.until(f"document.querySelector('.card')?.dataset.id == '{before[0]}'")
    assert opened.ids() == before
    page.goto(page.url.split("?")[0] + f"?id={before[2]}")
    assert opened.ids() == expected, "the address alone finds the same"


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

    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    reach("#picture")
    keys.press("Enter")
    while not choosers:
        page.wait_for_timeout(50)  # the test's own limit of time ends it
    choosers[0].set_files([day / "new.jpg", sorted((day / "seen").iterdir())[0]])
    page.wait_for_selector("#chosen li:nth-child(2)")
    assert page.evaluate("document.activeElement.id") == "search"
    keys.press("Enter")
    page.wait_for_selector("#results:not(.waiting) #summary")
    opened.until("document.activeElement.id == 'results'")
    match = opened.ids()[0]
    reach(f"a[data-dot='{match}']")
    keys.press("Enter")
    opened.until(f"location.hash == '#match-{match}'")
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
