"""Whatever fits the OpenAPI document, or nearly does, is answered as the document says: by Schemathesis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.video_uploads import PART_TYPE
from tests.support.jobs import JOBS
from tests.support.keys import WITH_KEYS, bearer, make_key
from tests.support.paths import ROOT
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

schemathesis.serializer.alias(PART_TYPE, "application/octet-stream")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: Requests of each kind to each operation, the same in each run.
_EXAMPLES = 12
_DOCUMENT = json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text())
_OPERATIONS = {
    f"{found.method.upper()} {found.path}": found
    for result in schemathesis.openapi.from_dict(_DOCUMENT).get_all_operations()
    if isinstance(result, Ok) and (found := result.ok())
}


def _takes_something(operation: str) -> bool:
    """Whether there is anything in a request that could be wrong."""
    method, path = operation.split(" ")
    said = _DOCUMENT["paths"][path][method.lower()]
    return "parameters" in said or "requestBody" in said


CASES = [(name, GenerationMode.POSITIVE) for name in sorted(_OPERATIONS)]
CASES += [(name, GenerationMode.NEGATIVE) for name in sorted(_OPERATIONS) if _takes_something(name)]


class Asked(NamedTuple):
    """A server, and the headers that say who asks."""

    server: Server
    headers: Mapping[str, str]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    folder = tmp_path_factory.mktemp("fuzzed")
    return make_library(folder, {"red.mp4": [("red", 1.0)], "kids/blue.mp4": [("blue", 1.0)]})


@pytest.fixture(scope="module", params=["no keys", "an administrator", "a folder's key", "no key"])
def asked(request: pytest.FixtureRequest, toy: ToyLibrary) -> Iterator[Asked]:
    """A server that asks for keys, or does not, and allows writes and jobs."""
    options = [*toy.options, "--media", str(toy.media), "--upload-folder", str(toy.media / "uploads")]
    options += () if request.param == "no keys" else WITH_KEYS
    with running_server(*options, environment=JOBS | {"REELFIND_WRITES": "1"}) as server:
        headers = {
            "an administrator": lambda: bearer(make_key(toy, "admin")),
            "a folder's key": lambda: bearer(make_key(toy, "media", "index", folder=toy.media / "kids")),
        }.get(request.param, dict)()
        yield Asked(server, headers)


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_answers_are_as_documented(asked: Asked, operation: str, mode: GenerationMode) -> None:
    cases = _OPERATIONS[operation].as_strategy(generation_mode=mode)

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Case[Any]) -> None:
        case.call_and_validate(asked.server.url, headers=dict(asked.headers), checks=CHECKS, timeout=60)

    ask()
