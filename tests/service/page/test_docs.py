"""The page that describes the HTTP interface."""

from __future__ import annotations

import pytest

from tests.support.browser import Browser
from tests.support.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_operation_and_schema_is_described(browser: Browser, server: Server, dark: bool) -> None:
    browser.errors()
    browser.open(f"{server.url}/docs")
    browser.emulate(width=390, dark=dark)
    browser.until("$('#docs-operations details')")
    document = server.client.get("/openapi.json").json()
    operations = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    script = """
    return $$("#docs-operations summary").map((each) =>
      `${each.querySelector(".docs-method").textContent} ${each.querySelector(".docs-path").textContent}`);
    """
    assert set(browser.run(script)) == operations
    names = browser.run("return $$('#docs-schemas-list .docs-path').map((each) => each.textContent);")
    assert names == list(document["components"]["schemas"])
    # A link to a schema opens it.
    browser.run("$('#search').open = true; $('#search [href=\"#schema-SearchRequest\"]').click();")
    browser.until("$('#schema-SearchRequest').open")
    assert "top_k" in browser.text("#schema-SearchRequest")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth;")
    shown = [".docs-method", ".docs-summary", ".docs-kind", ".docs-notes"]
    assert [selector for selector in shown if browser.contrast(selector) < 4.5] == []
    loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name);")
    assert [name for name in loaded if not name.startswith(f"{server.url}/")] == []
    assert browser.errors() == []
