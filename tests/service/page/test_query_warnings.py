"""The page says what of a query was not understood."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_unknown_words_are_named_above_the_results(page: Browser) -> None:
    page.press("red 猫", Keys.ENTER)
    page.until("$('#query-warnings p')")
    assert page.run("return $('#query-warnings p').dataset.kind;") == "not_understood"
    assert '"猫"' in page.text("#query-warnings p")
    page.run("$('#query').value = 'red';")
    page.press(Keys.ENTER)
    page.until("$('#query-warnings').hidden")


def test_a_query_without_a_known_word_shows_no_results(page: Browser) -> None:
    page.press("猫 zzz", Keys.ENTER)
    page.until("$('#notice h2')")
    assert page.text("#notice h2") == "The query is not understood"
    assert '"猫", "zzz"' in page.text("#notice p")
    assert page.run("return $$('#grid .shot').length;") == 0
    assert any("422" in error for error in page.errors())
