"""What the page lets people choose of the ranking, and what it says of how an answer came about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import LISTEN, bodies, find, number, settled, shown_scores, sum_terms, visit
from tests.support.server import Server, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def test_explanation_options_and_timings_with_the_keyboard(page: Browser) -> None:
    find(page, "red")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.TAB)
    assert page.focused("#grid li:nth-child(2) .why")
    page.press(Keys.ENTER)
    page.until("$('#why').open")
    assert page.focused("#why *")
    name = page.run("return $('#why-name').textContent;")
    assert name.startswith(page.texts("#grid .card-name")[1])
    page.press(Keys.ESCAPE)
    page.until("!$('#why').open")
    assert page.focused("#grid li:nth-child(2) .why")

    for toggle, panel in (("#options-toggle", "#options-panel"), ("#timing", "#timing-panel")):
        page.run("$(arguments[0]).focus();", toggle)
        assert page.find(toggle).get_attribute("aria-expanded") == "false"
        assert not page.find(panel).is_displayed()
        page.press(Keys.ENTER)
        assert page.find(toggle).get_attribute("aria-expanded") == "true"
        assert page.find(panel).is_displayed()
        page.press(Keys.ESCAPE)
        assert not page.find(panel).is_displayed()
        assert page.focused(toggle)
    page.click("#options-toggle")
    page.press(Keys.TAB)
    assert page.focused("#option-rerank")
    page.click("#count")
    assert not page.find("#options-panel").is_displayed()


def test_controls_have_names(page: Browser) -> None:
    find(page, "red")
    assert page.find("#grid .why").accessible_name == "Why? red.mp4"
    assert page.find("#timing").accessible_name.endswith(" ms")
    assert page.find("#options-toggle").accessible_name == "Options"
    page.click("#options-toggle")
    names = {
        "#option-rerank": "Re-ranking",
        "#option-candidates": "Candidates",
        "#option-frames": "Salient frames",
    }
    assert {selector: page.find(selector).accessible_name for selector in names} == names
    assert page.find("#option-rerank").aria_role == "switch"
    page.press(Keys.ESCAPE)
    page.click("#grid .why")
    assert page.find("#why").accessible_name == "Why this result"
    assert page.find("#why .proof-shot").accessible_name.startswith("Play from 0:0")


def test_switching_re_ranking_off_is_sent_and_kept_in_the_address(page: Browser, server: Server) -> None:
    find(page, "red")
    assert bodies(page)[-1]["rerank"] is True
    scores = shown_scores(page)
    page.run("$('#query').value = 'not yet searched';")
    page.click("#options-toggle")
    page.click("#option-rerank")
    settled(page, 2)
    assert bodies(page)[-1]["rerank"] is False
    assert page.driver.current_url == f"{server.url}/?q=red&rerank=false"
    assert page.find("#options-panel").is_displayed()
    assert page.find("#query").get_attribute("value") == "not yet searched"
    assert "switched off" in page.text("#note")
    similarities = [hit["score"] for hit in server.search("red", top_k=12, rerank=False)]
    expected = pytest.approx(similarities, abs=0.0051)
    assert shown_scores(page) == expected
    assert scores != expected
    assert page.find("#options-toggle").accessible_name == "Options , changed"

    page.driver.refresh()
    page.until("!$('#results').ariaBusy && $('#grid .card')")
    assert shown_scores(page) == expected
    assert not page.find("#option-rerank").is_selected()
    page.driver.back()
    page.until("!$('#results').ariaBusy && $('#note').hidden")
    assert shown_scores(page) == scores
    assert page.run("return $('#option-rerank').checked;")
    page.driver.forward()
    page.until("!$('#results').ariaBusy && !$('#note').hidden")
    assert shown_scores(page) == expected
    page.run(LISTEN)
    page.click("#note-button")
    settled(page, 1)
    assert page.driver.current_url == f"{server.url}/?q=red"
    assert shown_scores(page) == scores


def test_the_note_fits_a_phone(page: Browser, server: Server) -> None:
    page.emulate(width=360)
    page.visit(f"{server.url}/?q=red&rerank=false")
    page.until("!$('#note').hidden")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth;")


def test_numbers_are_sent_and_kept_in_the_address(page: Browser, server: Server) -> None:
    page.click("#options-toggle")
    page.click("#option-candidates")
    page.press("3", Keys.TAB, "1", Keys.TAB)
    page.until("location.search === '?num_candidates=3&num_salient_frames=1'")
    find(page, "red")
    settled(page, 1)
    body = bodies(page)[-1]
    assert (body["num_candidates"], body["num_salient_frames"]) == (3, 1)
    assert page.run(
        "return $$('#grid .strip').every((strip) => strip.querySelectorAll('[data-salient]').length === 2);"
    )
    address = f"{server.url}/?q=red&num_candidates=3&num_salient_frames=1"
    assert page.driver.current_url == address
    page.driver.refresh()
    page.run(LISTEN)
    page.until("!$('#results').ariaBusy && $('#grid .card')")
    page.click("#timing")
    assert "3 candidates re-ranked" in page.text("#timing-panel")
    page.click("#options-toggle")
    values = "return [$('#option-candidates').value, $('#option-frames').value];"
    assert page.run(values) == ["3", "1"]
    # Enter in a field is one search, not two.
    page.run("$('#option-candidates').select();")
    page.press("2", Keys.ENTER)
    settled(page, 1)
    assert page.driver.current_url == f"{server.url}/?q=red&num_candidates=2&num_salient_frames=1"
    page.click("#options-reset")
    settled(page, 2)
    assert page.driver.current_url == f"{server.url}/?q=red"
    assert page.run(values) == ["", ""]


def test_numbers_that_cannot_be(page: Browser, server: Server) -> None:
    find(page, "red")
    page.click("#options-toggle")
    page.click("#option-frames")
    for wrong in ("0", "-2", "1.5"):
        page.press(wrong, Keys.ENTER)
        assert page.text("#options-problem") == "Salient frames: enter a whole number from 1, or nothing."
        page.run("$('#option-frames').select();")
    # A search from elsewhere leads back to what is wrong.
    page.press("0", Keys.ESCAPE)
    page.click(".primary")
    assert page.focused("#option-frames")
    page.press(Keys.BACKSPACE, Keys.TAB)
    assert page.run("return $('#options-problem').textContent;") == ""
    assert page.driver.current_url == f"{server.url}/?q=red"
    # What the server does not grant is said in the words of the panel.
    page.click("#options-toggle")
    page.click("#option-frames")
    page.press("99", Keys.TAB)
    page.until("document.documentElement.dataset.view === 'problem'")
    assert page.text("#notice-heading") == "That search did not work"
    assert page.text("#notice-text").startswith("Salient frames (in Options) is 99; ask for 1 to ")
    page.click("#options-toggle")
    page.run("$('#option-frames').value = ''; $('#option-candidates').value = '99999999';")
    page.click("#option-candidates")
    page.press("9", Keys.ENTER)
    page.until("$('#notice-text').textContent.startsWith('Candidates (in Options) is ')")
    assert any("422" in error for error in page.errors())


def test_an_address_with_nonsense_searches_as_usual(page: Browser, server: Server) -> None:
    visit(page, server, f"?q=red&rerank=maybe&num_candidates=-3&num_salient_frames={quote('<b>')}")
    assert page.run("return [$('#option-candidates').value, $('#option-frames').value];") == ["", ""]
    assert shown_scores(page)[0] == pytest.approx(server.search("red")[0]["score"], abs=0.0051)


def test_timings_are_those_of_the_stages(page: Browser) -> None:
    find(page, "red")
    page.click("#timing")
    rows = page.run(
        "return $$('#timing-panel tr').map((row) => [row.dataset.stage, row.lastElementChild.textContent]);"
    )
    stages = {stage: number(text.removesuffix(" ms")) for stage, text in rows}
    assert list(stages) == [
        "encode_text",
        "retrieve",
        "salience",
        "tokens",
        "match",
        "moments",
        "texts",
        "fetch",
        "total",
    ]
    total = stages.pop("total")
    assert sum(stages.values()) == pytest.approx(total, abs=0.6 + 0.05 * total)
    assert "snapshot 1" in page.text("#timing-panel")


def test_a_missed_deadline_is_said_and_more_time_helps(browser: Browser, toy: ToyLibrary) -> None:
    browser.errors()
    with running_server(*toy.options, environment={"REELFIND_DEADLINE_MS": "1"}) as server:
        visit(browser, server, "?q=red")
        assert browser.find("#note").is_displayed()
        assert "too long" in browser.text("#note-text")
        assert browser.run("return $$('#grid [data-salient]').length;") > 0
        browser.click("#grid .why")
        assert [name for name, _ in sum_terms(browser)] == ["similarity", "text", "score"]
        assert "too long" in browser.run("return $('#why-body').textContent;")
        browser.press(Keys.ESCAPE)
        browser.click("#note-button")
        settled(browser, 1)
        assert bodies(browser)[-1]["deadline_ms"] == 20_000
        assert not browser.find("#note").is_displayed()
        browser.click("#grid .why")
        assert [name for name, _ in sum_terms(browser)] == ["match", "similarity", "text", "score"]
        browser.press(Keys.ESCAPE)
        # The grant is for this search, not for the next.
        find(browser, "green")
        assert bodies(browser)[-1]["deadline_ms"] is None
        assert browser.find("#note").is_displayed()
    assert browser.errors() == []


def test_a_bundle_without_a_matcher_is_said(browser: Browser, tmp_path: Path) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "b", matcher=False))
    toy.film("red.mp4", [("red", 1.0)])
    toy.index()
    browser.errors()
    with running_server(*toy.options) as server:
        visit(browser, server, "?q=red")
        assert browser.text("#note-text").startswith("Ranked by overall similarity only.")
        assert browser.texts("#note-text code") == ["match", "salience_match"]
        assert not browser.find("#note-button").is_displayed()
        browser.click("#timing")
        assert "match" not in browser.run("return $$('#timing-panel tr').map((row) => row.dataset.stage);")
    assert browser.errors() == []
