"""Each test runs with `Client` and with `AsyncClient`."""

from __future__ import annotations

import pytest

from tests.support.both_clients import BothClients
from tests.support.server import Server


@pytest.fixture(params=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest, server: Server) -> BothClients:
    """Asks the module's server."""
    return BothClients(request.param, server.url)
