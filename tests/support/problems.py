"""Problem documents (RFC 9457): what every error over HTTP must be."""

import re
from typing import Any

import httpx


def check_problem(response: httpx.Response, status: int, said: str) -> dict[str, Any]:
    """The problem document of a response, which must be one of `status` whose detail matches `said`."""
    assert response.status_code == status, response.content[:1000]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:reelfind:problem:")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", problem["instance"])
    assert re.search(said, problem["detail"]), problem["detail"]
    return problem
