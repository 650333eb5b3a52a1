"""The HTTP interface as it is documented, held by a golden file."""

import json
from typing import Any

import pytest

from service.api.openapi import openapi_text
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(openapi_text())
    return document


def test_the_golden_file_is_the_generated_one() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == openapi_text(), (
        "the HTTP interface changed: if it should, run "
        "python -m service.api.openapi > tests/golden/openapi.json"
    )


def test_every_route_of_the_design_is_described(document: dict[str, Any]) -> None:
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == {
        ("post", "/v1/search"),
        ("post", "/v1/search/batch"),
        ("get", "/v1/videos"),
        ("post", "/v1/videos/list"),
        ("get", "/v1/folders"),
        ("get", "/v1/facets"),
        ("get", "/v1/videos/{video_id}"),
        ("patch", "/v1/videos/{video_id}"),
        ("delete", "/v1/videos/{video_id}"),
        ("get", "/v1/tags"),
        ("post", "/v1/videos/{video_id}/answer"),
        ("post", "/v1/videos/{video_id}/moments"),
        ("get", "/v1/videos/{video_id}/media"),
        ("get", "/v1/videos/{video_id}/stream"),
        ("get", "/v1/videos/{video_id}/clip"),
        ("get", "/v1/frames/{frame_id}.jpg"),
        ("get", "/v1/videos/{video_id}/poster.jpg"),
        ("get", "/v1/moments/random"),
        ("get", "/v1/examples"),
        ("get", "/v1/library"),
        ("post", "/v1/library/reload"),
        ("get", "/v1/session"),
        ("post", "/v1/session"),
        ("delete", "/v1/session"),
        ("post", "/v1/signed-urls"),
        ("post", "/v1/jobs/index"),
        ("get", "/v1/jobs"),
        ("get", "/v1/jobs/{job_id}"),
        ("delete", "/v1/jobs/{job_id}"),
        ("get", "/v1/jobs/{job_id}/events"),
        ("get", "/v1/jobs/{job_id}/log"),
        ("post", "/v1/videos"),
        ("post", "/v1/uploads"),
        ("get", "/v1/uploads/{upload_id}"),
        ("patch", "/v1/uploads/{upload_id}"),
        ("delete", "/v1/uploads/{upload_id}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }


def test_errors_are_problem_documents_everywhere(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known
