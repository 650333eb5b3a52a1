"""One browser for all tests of the page, and the library and server that most of them share.

A module that needs another library has fixtures `toy` and `server` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, open_browser
from tests.support.page import make_page_library, visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser with a fresh profile; every server has another origin in it."""
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """18 videos, for any test of the page."""
    return make_page_library(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def server(toy: ToyLibrary) -> Iterator[Server]:
    """A real server on that library."""
    with running_server(*toy.options) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Browser]:
    """The page as it opens for the first time; what the console complains about fails the test."""
    browser.errors()
    visit(browser, server)
    yield browser
    assert browser.errors() == []
