"""The first day with Reelfind on the page alone: from a server without a library to logging out."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.jobs import JOBS
from tests.support.keys import WITH_KEYS, make_key
from tests.support.page import find
from tests.support.server import running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN = "!$('#results').ariaBusy && $('#grid .card')"


def test_add_search_filter_tag_and_log_out(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("first day")
    toy = ToyLibrary(root / "media", root / "library", make_toy_bundle(root / "bundle"))
    toy.film("coast/sea.mp4", [("blue", 2.0)])
    toy.film("coast/sunset.mp4", [("red", 2.0)])
    toy.film("town/bus.mp4", [("red", 2.0), ("green", 1.0)])
    options = [*toy.options, *WITH_KEYS, "--writes", "--media", str(toy.media)]
    with running_server(*options, environment=JOBS, ready=False) as server:
        key = make_key(toy, "admin", name="ann")
        browser.driver.delete_all_cookies()
        browser.open(f"{server.url}/")
        browser.until("$('#log-in').open && document.activeElement.id === 'log-in-key'")
        browser.press(key, Keys.ENTER)
        browser.until("!$('#log-out').hidden")

        # Add a folder, and see how far it is.
        browser.until("!$('#home-jobs').hidden")
        browser.find("#job-path").send_keys(str(toy.media), Keys.ENTER)
        browser.until("$('.job')?.dataset.state === 'succeeded'")
        browser.until("$('#notice').hidden && $$('#home-videos .tile-name').length === 3")

        # Search, and keep to a folder.
        find(browser, "red")
        names = "$$('#grid .card-name').map((each) => each.textContent)"
        assert {"sunset.mp4", "bus.mp4"} <= set(browser.run(f"return {names};"))
        browser.click("#filters-toggle")
        browser.find("#filter-folder").send_keys(str(toy.media / "coast"), Keys.ENTER)
        browser.until(f"{SHOWN} && $('#chips .chip') && !{names}.includes('bus.mp4')")
        assert browser.texts("#grid .card-name")[0] == "sunset.mp4"

        # More like this, everywhere.
        browser.click("#grid .similar")
        browser.until(f"location.search.startsWith('?frame=') && {SHOWN}")
        assert browser.texts("#grid .card-name")[0] == "bus.mp4"

        # Tag it, and find it by the tag.
        browser.click("#grid .shot")
        browser.until("$('#player').open && !$('#player-edit').hidden")
        browser.click("#player-edit")
        browser.until("!$('#editing-save').disabled")
        browser.find("#editing-tags").send_keys("red bus", Keys.ENTER)
        browser.until("!$('#editing').open && $('#player-tags .tag')")
        browser.run("$('#player-tags .tag').click();")
        browser.until("document.documentElement.dataset.view === 'videos'")
        assert browser.texts("#videos .tile-name") == ["bus.mp4"]
        address = browser.driver.current_url
        assert "tag=red+bus" in address

        # Out, and nothing is shown any more.
        browser.click("#log-out")
        browser.until("$('#log-in').open")
        browser.visit(address)
        browser.until("$('#log-in').open")
        assert browser.run("return $$('#videos .tile-name').length;") == 0
        answer = browser.run("return fetch('v1/videos').then((answer) => answer.status);")
        assert answer == 401
        browser.driver.delete_all_cookies()
        browser.errors()
