"""How the page shows what ranked a hit: its salient frames, and the explanation of its score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from model.runtime.bundle import HubnessCorrection
from tests.support.browser import Browser
from tests.support.page import (
    best_frame,
    find,
    number,
    shown_frames,
    sought,
    stop_at_the_next_seek,
    sum_terms,
    visit,
)
from tests.support.server import Server, running_server
from tests.support.toy_bundle import DIM, unit
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
FILMS = {
    "sunset.mp4": [("blue", 3.0), ("red", 2.0), ("black", 3.0)],
    "lights.mp4": [("red", 1.0), ("yellow", 2.0), ("green", 1.0)],
    "rose.mp4": [("magenta", 2.0)],
    "lawn.mp4": [("green", 2.0)],
    "night.mp4": [("black", 2.0)],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = make_library(tmp_path_factory.mktemp("toy"), FILMS)
    toy.film("hostile.mp4", [("cyan", 2.0)], title=HOSTILE)
    toy.index()
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def test_salient_frames_are_those_of_the_api(page: Browser, server: Server) -> None:
    find(page, "red")
    script = """
    return [...$$("#grid .strip")].map((strip) => [...strip.querySelectorAll(".cell")].map((cell) => [
      cell.dataset.frameId, cell.hasAttribute("data-salient"), cell.getAttribute("aria-label"),
    ]));
    """
    strips = page.run(script)
    hits = server.search("red", top_k=12)
    assert len(strips) == len(hits) == len(FILMS) + 1
    for strip, hit in zip(strips, hits, strict=True):
        assert [cell[:2] for cell in strip] == [[f["frame_id"], f["salient"]] for f in hit["frames"]]
        assert sum(salient for _, salient, _ in strip) == 2
        assert all(("salient" in label) == salient for _, salient, label in strip)


def test_cards_show_no_numbers_but_times(page: Browser) -> None:
    find(page, "red")
    for text in page.texts("#grid .card-facts"):
        assert re.fullmatch(r"\d+:\d\d–\d+:\d\d\s+Why\?", text)
    labels = page.run("return $$('#grid [aria-label]').map((one) => one.getAttribute('aria-label'));")
    assert [label for label in labels if re.search(r"\d[.]\d\d", label)] == []


def test_the_explanation_holds_the_numbers_of_every_frame(page: Browser, server: Server) -> None:
    find(page, "red")
    page.click("#grid .why")
    page.click("#why summary")
    script = """
    return $$("#why .numbers tbody tr").map((row) => [
      row.dataset.frameId, ...[...row.querySelectorAll("td")].map((cell) => cell.innerText),
    ]);
    """
    rows = page.run(script)
    frames = server.search("red")[0]["frames"]
    for (frame_id, relevance, match), frame in zip(rows, frames, strict=True):
        assert frame_id == frame["frame_id"]
        assert number(relevance) == pytest.approx(frame["relevance"], abs=0.0051)
        if frame["salient"]:
            assert number(match) == pytest.approx(frame["match_score"], abs=0.0051)
            assert match[0] in "+−0"
        else:
            assert match == ""


def test_salient_frames_catch_the_eye_and_the_others_stay(page: Browser) -> None:
    find(page, "red")
    page.click("#grid .shot")
    script = """
    return [...$("#player-strip").querySelectorAll(arguments[0])].map((cell) => {
      const image = cell.querySelector("img");
      const { width, height } = image.getBoundingClientRect();
      return [width, height, Number(getComputedStyle(image).opacity), getComputedStyle(image).outlineStyle];
    });
    """
    salient = page.run(script, ".cell[data-salient]")
    others = page.run(script, ".cell:not([data-salient], [aria-current])")
    assert len(salient) == 2
    assert others
    assert min(width for width, *_ in salient) > max(width for width, *_ in others) > 20
    assert min(height for _, height, *_ in salient) > max(height for _, height, *_ in others)
    assert {(opacity, outline) for *_, opacity, outline in salient} == {(1, "solid")}
    assert max(opacity for *_, opacity, _ in others) < 1
    colours = "return [...new Set($$(arguments[0]).map((bar) => getComputedStyle(bar).backgroundColor))];"
    yellow = page.run(colours, "#grid .cell[data-salient] .cell-bar span")
    assert len(yellow) == 1
    assert yellow[0] not in page.run(colours, "#grid .cell:not([data-salient]) .cell-bar span")


def test_the_picture_is_the_salient_frame_that_matches_best(page: Browser, server: Server) -> None:
    visit(page, server, "?q=yellow%20red&num_salient_frames=12")
    hits = server.search("yellow red", top_k=12, num_salient_frames=12)
    best = [best_frame(hit)["frame_id"] for hit in hits]
    assert shown_frames(page) == best
    first = [next(frame["frame_id"] for frame in hit["frames"] if frame["salient"]) for hit in hits]
    assert best != first


def test_two_more_salient_frames_are_shown_and_play(page: Browser, server: Server) -> None:
    visit(page, server, "?q=yellow%20red&num_salient_frames=12")
    hits = server.search("yellow red", top_k=12, num_salient_frames=12)
    stills = page.run(
        "return $$('#grid .card').map((card) =>"
        " [...card.querySelectorAll('.still')].map((still) => still.dataset.frameId));"
    )
    for shown, hit in zip(stills, hits, strict=True):
        salient = [frame for frame in hit["frames"] if frame["salient"]]
        others = [frame for frame in salient if frame is not best_frame(hit)]
        ranked = sorted(others, key=lambda frame: (-frame["match_score"], -frame["relevance"]))[:2]
        assert shown == [frame["frame_id"] for frame in hit["frames"] if frame in ranked]
    start = next(frame["pts_seconds"] for frame in hits[0]["frames"] if frame["frame_id"] == stills[0][1])
    page.click("#grid .still + .still")
    page.until("$('#player-video').played.length")
    assert page.run("return $('#player-video').played.start(0);") == pytest.approx(start, abs=0.1)


def test_the_explanation_adds_up(page: Browser, server: Server) -> None:
    find(page, "red green")
    hits = server.search("red green", top_k=12, explain=True)
    for place, hit in enumerate(hits, start=1):
        page.run("$$('#grid .why')[arguments[0]].click();", place - 1)
        terms = {name: number(text) for name, text in sum_terms(page)}
        assert list(terms) == ["match", "similarity", "score"]
        assert terms["match"] + terms["similarity"] == pytest.approx(terms["score"], abs=1e-9)
        explanation = hit["explanation"]
        assert terms["match"] == pytest.approx(explanation["match_score"], abs=0.0051)
        assert terms["similarity"] == pytest.approx(explanation["similarity_term"], abs=0.0051)
        assert terms["score"] == pytest.approx(hit["score"], abs=0.0051)
        proofs = page.run(
            "return $$('#why .proof').map((proof) => [proof.dataset.frameId,"
            " ...[...proof.querySelectorAll('dd')].map((term) => term.textContent)]);"
        )
        assert {proof[0] for proof in proofs} == {frame["frame_id"] for frame in explanation["frames"]}
        mean = sum(number(match) for *_, match in proofs) / len(proofs)
        assert mean == pytest.approx(terms["match"], abs=0.011)
        words = page.run("return $('#why-body').textContent;")
        assert explanation["formula"] in words
        assert (
            f"ranks {place}{'st' if place == 1 else 'nd' if place == 2 else 'rd' if place == 3 else 'th'}."
            in words
        )
        page.press(Keys.ESCAPE)
        page.until("!$('#why').open")


def test_the_hubness_correction_is_a_term_of_the_sum(browser: Browser, tmp_path: Path) -> None:
    correction = HubnessCorrection(0.5, 10, unit(np.random.default_rng(0).uniform(size=(30, DIM))))
    toy = make_library(tmp_path, FILMS, hubness=correction)
    with running_server(*toy.options) as own:
        for options, first in (("", "match"), ("&rerank=false", "similarity")):
            visit(browser, own, f"?q=red{options}")
            hit = own.search("red", top_k=12, explain=True, rerank=not options)[0]
            browser.run("$$('#grid .why')[0].click();")
            terms = {name: number(text) for name, text in sum_terms(browser)}
            assert list(terms) == list(dict.fromkeys([first, "similarity", "hubness", "score"]))
            score = terms.pop("score")
            assert sum(terms.values()) == pytest.approx(score, abs=1e-9)
            assert score == pytest.approx(hit["score"], abs=0.0051)
            assert terms["hubness"] == pytest.approx(hit["explanation"]["hubness_term"], abs=0.0051)
            assert hit["explanation"]["formula"] in browser.run("return $('#why-body').textContent;")
        assert browser.errors() == []


def test_a_hit_behind_the_candidates_is_explained_too(page: Browser, server: Server) -> None:
    visit(page, server, "?q=red&num_candidates=2")
    hits = server.search("red", top_k=12, num_candidates=2, explain=True)
    matched = [hit["match_score"] is not None for hit in hits]
    assert matched[0]
    assert not matched[-1]
    page.run("$$('#grid .why').at(-1).click();")
    terms = {name: number(text) for name, text in sum_terms(page)}
    assert list(terms) == ["offset", "similarity", "score"]
    assert terms["offset"] + terms["similarity"] == pytest.approx(terms["score"], abs=1e-9)
    assert terms["score"] == pytest.approx(hits[-1]["score"], abs=0.0051)
    assert "not among the candidates" in page.run("return $('#why-body').textContent;")


def test_a_salient_frame_of_the_explanation_plays(page: Browser, server: Server) -> None:
    find(page, "red")
    frame = next(frame for frame in server.search("red")[0]["frames"] if frame["salient"])
    assert page.texts("#grid .card-name")[0] == "sunset.mp4"
    page.click("#grid .why")
    page.click(f"#why [data-frame-id='{frame['frame_id']}'] .proof-shot")
    page.until("!$('#why').open && $('#player').open && $('#player-video').played.length")
    start = pytest.approx(frame["pts_seconds"], abs=0.1)
    assert page.run("return $('#player-video').played.start(0);") == start

    # Within the player, it goes to the frame and the player stays.
    page.run("$('#player-video').currentTime = 0;")
    page.until("!$('#player-video').seeking")
    page.click("#player-why")
    page.until("$('#why').open")
    stop_at_the_next_seek(page)
    page.click(f"#why [data-frame-id='{frame['frame_id']}'] .proof-shot")
    assert sought(page) == start
    assert page.run("return $('#player').open && !$('#why').open;")
    page.press(Keys.ESCAPE)
    page.until_focused("#grid li:first-child .shot")


def test_titles_stay_text_in_the_explanation(page: Browser) -> None:
    find(page, "cyan")
    assert page.texts("#grid .card-name")[0] == HOSTILE
    assert page.find("#grid .why").get_attribute("aria-label") == f"Why? {HOSTILE}"
    page.click("#grid .why")
    assert page.run("return $('#why-name').textContent;") == HOSTILE
    assert page.run("return $('#why-name').children.length;") == 0
    assert page.driver.title == "cyan – Reelfind"


def test_nothing_shifts_when_an_answer_arrives_or_a_panel_opens(page: Browser, server: Server) -> None:
    page.visit(f"{server.url}/?q=red")
    page.until("!$('#results').ariaBusy && $('#grid .card')")
    page.until("$$('#grid img').every((image) => image.loading === 'lazy' || image.complete)")
    where = "return $$('#grid .card').map((card) => Object.values(card.getBoundingClientRect().toJSON()));"
    before = page.run(where)
    for selector in ("#options-toggle", "#timing", "#grid .why"):
        page.click(selector)
        assert page.run(where) == before
        page.press(Keys.ESCAPE)
    shifts = """
    const done = arguments[0];
    new PerformanceObserver((list) => done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0)))
      .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(0), 300);
    """
    assert page.driver.execute_async_script(shifts) < 0.02


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(page: Browser, dark: bool) -> None:
    page.emulate(dark=dark, still=True)
    find(page, "red")
    page.click("#options-toggle")
    page.run("$('#option-frames').value = '0'; $('#option-frames').dispatchEvent(new Event('change'));")
    shown = [".choice-name", ".choice-hint", "#option-frames", "#options-problem", ".desk-button-text"]
    ratios = {selector: page.contrast(selector) for selector in shown}
    ratios["auto"] = page.contrast("#option-candidates", "::placeholder")
    page.press(Keys.ESCAPE)
    page.click("#timing")
    shown = [".stages th", ".stage-time", ".panel-fact", ".grid .why"]
    ratios |= {selector: page.contrast(selector) for selector in shown}
    page.click("#grid .why")
    page.click("#why summary")
    shown = [
        ".sheet summary",
        ".numbers th",
        ".numbers td",
        "#why-heading",
        "#why-name",
        ".sheet-words",
        ".sum th",
        ".sum td",
        ".sum-detail",
        ".sheet-formula",
    ]
    shown += [".proof-terms dt", ".proof-match"]
    ratios |= {selector: page.contrast(selector) for selector in shown}
    page.press(Keys.ESCAPE)
    page.run(
        "$('#note').hidden = false; $('#note').dataset.reason = 'deadline'; $('#note-button').hidden = false;"
    )
    ratios |= {selector: page.contrast(selector) for selector in ("#note-text", "#note-button")}
    page.run("$('#option-frames').value = '';")
    assert {selector: ratio for selector, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [360, 768])
def test_fits_the_window(page: Browser, width: int) -> None:
    page.emulate(width=width, height=740, still=True)
    find(page, "red")
    for selector, opened in (
        ("#options-toggle", "#options-panel"),
        ("#timing", "#timing-panel"),
        ("#grid .why", "#why"),
    ):
        page.click(selector)
        box = page.run("return $(arguments[0]).getBoundingClientRect().toJSON();", opened)
        assert box["left"] >= 0
        assert box["right"] <= width
        assert box["bottom"] <= 740
        assert page.run("return document.documentElement.scrollWidth <= innerWidth;")
        page.press(Keys.ESCAPE)


def test_nothing_moves_for_those_who_ask(page: Browser) -> None:
    find(page, "red")
    page.click("#grid .why")
    name = "return getComputedStyle($('#why')).animationName;"
    assert page.run(name) == "arrive"
    page.emulate(still=True)
    assert page.run(name) == "none"
