"""What must not happen, made to happen inside the app: failures in a route, too many searches."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from model.runtime.errors import ReelfindError
from service.api.app import create_app
from service.errors import OverloadedError
from service.settings import load_settings
from tests.support.problems import check_problem
from tests.support.toy_bundle import make_toy_bundle


def ask(app: FastAPI, use: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run an app in this process, its lifespan included, and let `use` talk to it."""

    async def run() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as c,
        ):
            await use(c)

    asyncio.run(run())


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    bundle = make_toy_bundle(tmp_path / "bundle")
    return create_app(load_settings({"library": tmp_path / "none", "bundle": bundle, "reload_seconds": 0}))


def test_a_failure_is_a_problem_without_its_traceback(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    async def use(client: httpx.AsyncClient) -> None:
        response = await client.get("/broken?token=abc")
        problem = check_problem(response, 500, "could not be answered. The server's log has the error")
        assert "secret" not in response.text
        assert "ZeroDivision" not in response.text
        record = next(record for record in caplog.records if record.levelno == logging.ERROR)
        assert problem["instance"] in record.getMessage()
        assert record.exc_info is not None
        text = (await client.get("/metrics")).text
        assert 'reelfind_http_requests_total{method="GET",route="/broken",status="500"} 1.0' in text

    ask(app, use)


def test_an_error_of_ours_without_a_kind_is_503(app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise ReelfindError("the disk is full; free some space")

    async def use(client: httpx.AsyncClient) -> None:
        check_problem(await client.get("/broken"), 503, "the disk is full; free some space")

    ask(app, use)


def test_every_app_has_metrics_of_its_own(tmp_path: Path) -> None:
    settings = load_settings({"library": tmp_path / "none", "bundle": make_toy_bundle(tmp_path / "bundle")})

    async def use(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            await client.get("/healthz")
        assert 'route="/healthz",status="200"} 2.0' in (await client.get("/metrics")).text

    for _ in range(2):
        ask(create_app(settings), use)


def test_an_overloaded_server_says_when_to_come_back(app: FastAPI) -> None:
    @app.get("/full")
    def full() -> None:
        raise OverloadedError("256 searches are waiting already", retry_seconds=2.1)

    async def use(client: httpx.AsyncClient) -> None:
        response = await client.get("/full")
        check_problem(response, 503, "256 searches are waiting")
        assert response.headers["retry-after"] == "3"

    ask(app, use)
