"""Fixtures of the tests of the page: each module brings its library as `toy`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, open_browser
from tests.support.page import visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser with a fresh profile."""
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    """A real server on the module's library."""
    with running_server(*toy.options) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Browser]:
    """The page as it opens for the first time; what the console complains about fails the test."""
    browser.errors()
    visit(browser, server)
    yield browser
    assert browser.errors() == []
