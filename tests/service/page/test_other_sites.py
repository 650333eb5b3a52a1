"""What other sites' pages can do with the service, in a real browser: nothing that the settings forbid."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import Browser, open_browser
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MARKUP = "<img src=x onerror=document.title='owned'>.mp4"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(
        tmp_path_factory.mktemp("sites"), {"red.mp4": [("red", 1.0)], MARKUP: [("blue", 1.0)]}
    )


class _Blank(http.server.BaseHTTPRequestHandler):
    """An empty page, whatever is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title>")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of another site, of which `evil.test` and `friend.test` are names."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


@pytest.fixture(scope="module")
def server(toy: ToyLibrary, site: str) -> Iterator[Server]:
    environment = {"REELFIND_CORS_ORIGINS": f"http://friend.test:{site}"}
    with running_server(*toy.options, environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for which every name under `.test` leads to this computer."""
    profile = tmp_path_factory.mktemp("elsewhere")
    with open_browser(profile, "--host-resolver-rules=MAP *.test 127.0.0.1") as browser:
        yield browser


def asked(browser: Browser, script: str, *arguments: Any) -> Any:
    """What a script gives to its last argument, `done`."""
    head = "const done = arguments[arguments.length - 1];"
    return browser.driver.execute_async_script(head + script, *arguments)


FETCHES = """
const [base, options] = arguments;
fetch(base, options)
  .then((answer) => answer.text().then((text) => done([answer.status, text])), () => done("refused"));
"""
EMBED = """
const [tag, address, cors] = arguments;
const node = document.createElement(tag);
if (cors) node.crossOrigin = "anonymous";
node.onload = node.onloadedmetadata = () => done("shown");
node.onerror = () => done("refused");
node.src = address;
document.body.append(node);
"""


def addresses(server: Server) -> tuple[str, str]:
    hit = server.search("red", top_k=1)[0]
    frame = hit["frames"][0]["frame_id"]
    return f"{server.url}/v1/frames/{frame}.jpg", f"{server.url}/v1/videos/{hit['video_id']}/media"


def test_a_name_that_was_rebound_reads_nothing(elsewhere: Browser, server: Server) -> None:
    port = server.url.rpartition(":")[2]
    elsewhere.visit(f"http://evil.test:{port}/")
    assert "REELFIND_ALLOWED_HOSTS=evil.test" in elsewhere.text("body")
    for path in ("/v1/videos", "/v1/library", addresses(server)[1].removeprefix(server.url)):
        status, text = asked(elsewhere, FETCHES, path, {})
        assert status == 403
        assert "red.mp4" not in text


def test_another_site_neither_reads_nor_changes_nor_embeds(
    elsewhere: Browser, server: Server, site: str
) -> None:
    elsewhere.visit(f"http://evil.test:{site}/")
    picture, video = addresses(server)
    for path in ("/v1/videos", "/healthz"):
        assert asked(elsewhere, FETCHES, server.url + path, {}) == "refused"
    before = len(server.log())
    for options in (
        {"method": "POST", "mode": "no-cors"},
        {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": "text/plain"}, "body": "{}"},
    ):
        assert asked(elsewhere, FETCHES, server.url + "/v1/library/reload", options) == "refused"
    new = server.log()[before:]
    assert new.count("POST /v1/library/reload 403") == 2, new
    assert asked(elsewhere, EMBED, "img", picture, False) == "refused"
    assert asked(elsewhere, EMBED, "video", video, False) == "refused"
    assert asked(elsewhere, EMBED, "script", f"{server.url}/static/app.js", False) == "refused"


def test_a_form_of_another_site_is_refused_and_a_link_is_followed(
    elsewhere: Browser, server: Server, site: str
) -> None:
    elsewhere.visit(f"http://evil.test:{site}/")
    elsewhere.run(
        "const form = document.createElement('form'); form.method = 'post'; form.action = arguments[0];"
        "document.body.append(form); form.submit();",
        f"{server.url}/v1/library/reload",
    )
    elsewhere.until("document.body.innerText.includes('comes from a page of')")
    elsewhere.visit(f"http://evil.test:{site}/")
    elsewhere.run(
        "const link = document.createElement('a'); link.href = arguments[0];"
        "document.body.append(link); link.click();",
        f"{server.url}/?q=red",
    )
    elsewhere.until("document.querySelector('.card, #grid li') !== null")


def test_a_site_of_the_settings_may(elsewhere: Browser, server: Server, site: str) -> None:
    elsewhere.visit(f"http://friend.test:{site}/")
    status, text = asked(elsewhere, FETCHES, f"{server.url}/v1/videos", {})
    assert status == 200
    assert "red.mp4" in text
    query = {
        "method": "POST",
        "headers": {"Content-Type": "application/json"},
        "body": '{"query": {"text": "red"}}',
    }
    assert asked(elsewhere, FETCHES, f"{server.url}/v1/search", query)[0] == 200
    picture, video = addresses(server)
    assert asked(elsewhere, EMBED, "img", picture, True) == "shown"
    assert asked(elsewhere, EMBED, "video", video, True) == "shown"
    assert asked(elsewhere, EMBED, "img", picture, False) == "refused"


def test_markup_in_the_name_of_a_file_is_text(elsewhere: Browser, server: Server) -> None:
    elsewhere.visit(f"{server.url}/?q=blue")
    elsewhere.until("document.body.innerText.includes(arguments[0])", MARKUP)
    elsewhere.until("document.querySelector('.shot') !== null")
    elsewhere.click(".shot")
    elsewhere.until("document.querySelector('#player').open")
    assert elsewhere.text("#player-title") == MARKUP
    assert "owned" not in elsewhere.driver.title
    assert elsewhere.run("return document.querySelectorAll('img[src=x]').length") == 0
