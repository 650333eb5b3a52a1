"""What tests of the service ask of their module's library, the fixture `toy`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.live import open_searcher
from service.search.searcher import Searcher
from service.settings import load_settings
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary


@pytest.fixture(scope="module")
def searcher(toy: ToyLibrary) -> Searcher:
    """A searcher in this process."""
    return open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    """A real server."""
    with running_server(*toy.options) as server:
        yield server
