"""The client knows all of the API: routes, fields of requests, fields of answers."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from service.client import (
    AsyncClient,
    Client,
    calls,
    job_answers,
    job_calls,
    library_answers,
    requests,
    search_answers,
)
from service.client.call import Call
from service.client.methods import EventsMethod, Method, Methods, PagedMethod, StepsMethod
from service.client.search_answers import Answer
from tests.support.paths import ROOT

DOCUMENT: dict[str, Any] = json.loads((ROOT / "tests/golden/openapi.json").read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, of_path in DOCUMENT["paths"].items()
    for method, operation in of_path.items()
}
#: Routes that no method of the client uses, and why.
LEFT_OUT = {
    "logIn": "made for browsers, which keep a cookie; a program sends its key",
    "logOut": "the same",
    "uploadVideo": "`upload_video` sends parts, which go on where a connection was lost",
    "getStream": "made for players, from its address; a program downloads the file or a clip",
}
TO = Path("x")
#: A request by every method of the client, and the operation that it is.
CALLS: dict[str, tuple[str, Call[Any]]] = {
    "search": ("search", calls.search("x")),
    "search_batch": ("searchBatch", calls.search_batch(["x"])),
    "moments": ("searchMoments", calls.moments("v", "x")),
    "answer": ("answerQuestion", calls.answer("v", "x")),
    "video_page": ("listVideos", calls.video_page()),
    "video_page of a filter": ("filterVideos", calls.video_page(filter={"op": "is_null", "field": "codec"})),
    "video": ("getVideo", calls.video("v")),
    "update_video": ("annotateVideo", calls.update_video("v")),
    "delete_video": ("removeVideo", calls.delete_video("v")),
    "download_media": ("getMedia", calls.download_media("v", TO)),
    "download_clip": ("getClip", calls.download_clip("v", 0, 1, TO)),
    "frame": ("getFrame", calls.frame("f")),
    "folders": ("listFolders", calls.folders()),
    "facets": ("countVideos", calls.facets()),
    "tags": ("listTags", calls.tags()),
    "library": ("getLibrary", calls.library()),
    "reload": ("reloadLibrary", calls.reload()),
    "random_moments": ("drawMoments", calls.random_moments()),
    "example_queries": ("listExamples", calls.example_queries()),
    "poster": ("getPoster", calls.poster("v")),
    "session": ("getSession", calls.session()),
    "sign_url": ("signUrl", calls.sign_url("/v1/videos/v/media")),
    "index": ("startIndexJob", job_calls.index(["x"])),
    "jobs": ("listJobs", job_calls.jobs()),
    "job": ("getJob", job_calls.job("v")),
    "job_events": ("followJob", job_calls.job_events("v")),
    "job_log": ("getJobLog", job_calls.job_log("v")),
    "cancel_job": ("cancelJob", job_calls.cancel_job("v")),
    "upload_video, begun": ("beginUpload", job_calls.begin_upload("x", 1)),
    "upload_video, after a loss": ("getUpload", job_calls.upload_state("v")),
    "upload_video, a part": ("continueUpload", job_calls.send_part("v", 0, b"x")),
    "upload_video, given up": ("dropUpload", job_calls.drop_upload("v")),
    "health": ("healthz", calls.health()),
    "readiness": ("readyz", calls.readiness()),
    "metrics": ("metrics", calls.metrics()),
}


def test_every_route_has_a_method_or_a_reason() -> None:
    assert {operation for operation, _ in CALLS.values()} | LEFT_OUT.keys() == OPERATIONS.keys()


@pytest.mark.parametrize(("operation", "call"), CALLS.values(), ids=CALLS)
def test_a_request_is_the_one_of_its_route(operation: str, call: Call[Any]) -> None:
    method, path, described = OPERATIONS[operation]
    assert call.method == method
    assert re.fullmatch(
        re.sub(r"\{\w+\}", "[vf]", re.escape(path).replace(r"\{", "{").replace(r"\}", "}")), call.path
    )
    known = {each["name"] for each in described.get("parameters", []) if each["in"] == "query"}
    assert call.params.keys() <= known


def test_both_clients_have_every_method() -> None:
    kinds = (Method, EventsMethod, StepsMethod)
    named = {name for name, each in vars(Methods).items() if isinstance(each, kinds)}
    assert {re.split("[ ,]", name)[0] for name in CALLS} == named
    paged = {name for name, each in vars(Methods).items() if isinstance(each, PagedMethod)}
    for client in (Client, AsyncClient):
        for name in named | paged:
            assert inspect.getdoc(getattr(client, name)), name
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def _reachable(part: Any) -> set[str]:
    """Names of the schemas that a part of the document refers to, however deep."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(SCHEMAS[name])
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return found


ANSWERS = sorted(
    _reachable(
        [operation["responses"] for name, (_, _, operation) in OPERATIONS.items() if name not in LEFT_OUT]
    )
)


def _kind(schema: dict[str, Any]) -> Any:
    """What a value is, without its description; kinds that are named are strings."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return sorted((_kind(each) for each in schema["anyOf"]), key=repr)
    if schema.get("type") == "array":
        return ["array", _kind(schema["items"])]
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return ["object", _kind(values) if isinstance(values, dict) else "any"]
    return [schema.get("type"), schema.get("format")]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_the_fields_of_its_schema(name: str) -> None:
    modules = (search_answers, library_answers, job_answers)
    model: type[Answer] = next(getattr(each, name) for each in modules if hasattr(each, name))
    own = model.model_json_schema()["properties"]
    own.pop("etag", None)
    schema = SCHEMAS[name]
    assert {field: _kind(each) for field, each in own.items()} == {
        field: _kind(each) for field, each in schema["properties"].items()
    }
    # What may be absent is not required, nor is what may be null.
    required = {field for field, each in model.model_fields.items() if each.is_required()}
    assert required <= set(schema.get("required", []))


REQUESTS = sorted(
    _reachable([operation.get("requestBody") for _, _, operation in OPERATIONS.values()])
    & set(vars(requests))
    | {"SearchRequest"}
)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_has_the_fields_of_its_schema(name: str) -> None:
    given = getattr(requests, name)
    assert set(get_type_hints(given)) == set(SCHEMAS[name]["properties"])
    assert given.__required_keys__ == set(SCHEMAS[name].get("required", []))


def test_no_request_is_left_out() -> None:
    named_otherwise = {
        "MomentsRequest": ("query", requests.MomentsOptions),
        "AnswerRequest": ("question", requests.AnswerOptions),
        "IndexJobRequest": ("paths", requests.IndexJobOptions),
    }
    for name, (argument, options) in named_otherwise.items():
        assert {argument, *get_type_hints(options)} == set(SCHEMAS[name]["properties"])
    listed = {each["name"] for each in OPERATIONS["listVideos"][2]["parameters"]}
    listed |= set(SCHEMAS["VideoListRequest"]["properties"])
    assert set(get_type_hints(requests.ListOptions)) == listed
    of_jobs = {each["name"] for each in OPERATIONS["listJobs"][2]["parameters"]}
    assert set(get_type_hints(requests.JobListOptions)) == of_jobs
    # The others are arguments of their methods.
    arguments = {"BatchRequest", "Question", "NewUploadRequest", "SignedUrlRequest"}
    of_methods = {*named_otherwise, "VideoListRequest", *arguments}
    bodies = [each.get("requestBody") for name, (_, _, each) in OPERATIONS.items() if name not in LEFT_OUT]
    assert _reachable(bodies) - set(REQUESTS) == of_methods
