"""Traces of a real server and a real indexing run, sent to a collector."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    service_attributes,
    url_attributes,
    user_agent_attributes,
)

from model.runtime.errors import InputError
from model.runtime.tracing import is_on, span, trace_origin, tracing
from tests.support.otlp import Collector, attributes_of, collecting
from tests.support.problems import check_problem
from tests.support.server import REELFIND, Server, clean_environment, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLOCKS_NS = 1_000_000
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("library"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary, collector: Collector) -> Iterator[Server]:
    with running_server(*toy.options, environment=collector.environment) as server:
        yield server


def check_within(inner: Span, outer: Span) -> None:
    assert inner.trace_id == outer.trace_id
    # Stages are timed by another clock than spans that are open.
    assert outer.start_time_unix_nano - CLOCKS_NS <= inner.start_time_unix_nano
    assert inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano + CLOCKS_NS


def test_a_search_is_traced_from_the_request_to_each_stage(server: Server, collector: Collector) -> None:
    headers = {"traceparent": TRACEPARENT, "user-agent": "test/1"}
    response = server.client.post("/v1/search", json={"query": {"text": "red"}}, headers=headers)
    request = collector.wait_for("POST /v1/search")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.status.code == Status.STATUS_CODE_UNSET
    assert attributes_of(request) == {
        http_attributes.HTTP_REQUEST_METHOD: "POST",
        http_attributes.HTTP_ROUTE: "/v1/search",
        http_attributes.HTTP_RESPONSE_STATUS_CODE: 200,
        network_attributes.NETWORK_PROTOCOL_VERSION: "1.1",
        url_attributes.URL_SCHEME: "http",
        url_attributes.URL_PATH: "/v1/search",
        user_agent_attributes.USER_AGENT_ORIGINAL: "test/1",
        client_attributes.CLIENT_ADDRESS: "127.0.0.1",
        server_attributes.SERVER_ADDRESS: "127.0.0.1",
        server_attributes.SERVER_PORT: server.client.base_url.port,
    }
    (search,) = collector.within(request)
    check_within(search, request)
    answer = response.json()
    assert search.name == "search"
    assert attributes_of(search) == {"reelfind.snapshot": 1, "reelfind.num_candidates": 1}
    stages = collector.within(search)
    for stage in stages:
        check_within(stage, search)
    milliseconds: dict[str, float] = {}
    for stage in stages:
        took = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e6
        milliseconds[stage.name] = milliseconds.get(stage.name, 0.0) + took
    timings = {name: value for name, value in answer["timings_ms"].items() if value and name != "total"}
    assert timings.keys() <= milliseconds.keys()
    for name, value in timings.items():
        assert milliseconds[name] == pytest.approx(value, abs=0.01)
    assert "reelfind" in {of_program[service_attributes.SERVICE_NAME] for of_program in collector.resources}


def test_what_somebody_searches_for_is_in_no_trace(server: Server, collector: Collector) -> None:
    moments = f"/v1/videos/{server.video_id('red.mp4')}/moments"
    refused = server.client.post(moments, json={"query": {"text": "zzz"}})
    check_problem(refused, 422, "zzz")
    request = collector.wait_for("POST /v1/videos/{video_id}/moments")
    (search,) = collector.within(request)
    assert attributes_of(search) == {error_attributes.ERROR_TYPE: "NotUnderstoodError"}
    assert not any(b"zzz" in span.SerializeToString() for span in collector.spans)


def test_failures_and_unknown_paths_are_named_as_the_conventions_say(
    server: Server, collector: Collector
) -> None:
    server.client.request("BREW", "/coffee?secret=1")
    found = attributes_of(collector.wait_for("HTTP"))
    assert found[http_attributes.HTTP_REQUEST_METHOD] == "_OTHER"
    assert found[http_attributes.HTTP_REQUEST_METHOD_ORIGINAL] == "BREW"
    assert http_attributes.HTTP_ROUTE not in found
    assert error_attributes.ERROR_TYPE not in found
    assert "secret" not in str(found)
    for path in ("/healthz", "/readyz", "/metrics"):
        server.client.get(path)
    server.client.get("/v1/library")
    collector.wait_for("GET /v1/library")
    assert not {"GET /healthz", "GET /readyz", "GET /metrics"} & {span.name for span in collector.spans}


def test_an_answer_of_a_service_without_a_library_is_an_error(collector: Collector, tmp_path: Path) -> None:
    options = ("--library", str(tmp_path / "none"))
    with running_server(*options, environment=collector.environment, ready=False) as server:
        server.client.get("/v1/folders")
    failed = collector.wait_for("GET /v1/folders")
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(failed)[error_attributes.ERROR_TYPE] == "503"


def test_an_indexing_run_is_traced_step_by_step(
    toy: ToyLibrary, collector: Collector, tmp_path: Path
) -> None:
    own = {"TRACEPARENT": TRACEPARENT, "OTEL_SERVICE_NAME": "nightly"}
    bundle, library = str(toy.bundle), str(tmp_path / "library")
    command = [*REELFIND, "index", str(toy.media), "--library", library, "--bundle", bundle, "--workers", "1"]
    environment = clean_environment() | collector.environment | own
    subprocess.run(command, env=environment, capture_output=True, check=True)
    run = collector.wait_for("index")
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes_of(run) == {"reelfind.files": 1, "reelfind.snapshot": 1}
    steps = collector.within(run)
    for step in steps:
        check_within(step, run)
    names = [step.name for step in steps]
    assert {"scan", "plan", "decode", "encode", "commit", "publish"} == set(names)
    decoded = attributes_of(steps[names.index("decode")])
    assert decoded == {"file.path": str(toy.media / "red.mp4")}
    assert "nightly" in {of_program[service_attributes.SERVICE_NAME] for of_program in collector.resources}


def test_spans_of_another_computer_are_within_the_one_that_is_current_here(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trace_origin() is None
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    with tracing(), span("here"):
        origin = pickle.dumps(trace_origin())
    program = (
        "import pickle, sys\n"
        "from model.runtime.tracing import span, tracing_from\n"
        "origin = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "with tracing_from(origin, 'node-7'), span('there', parent=origin.parent):\n"
        "    pass\n"
    )
    command = [sys.executable, "-c", program, origin.hex()]
    subprocess.run(command, env=clean_environment(), check=True)
    here, there = collector.wait_for("here"), collector.wait_for("there")
    assert (there.trace_id, there.parent_span_id) == (here.trace_id, here.span_id)
    assert "node-7" in {of_program.get("host.name") for of_program in collector.resources}


def test_neither_sdk_nor_exporter_is_imported_where_nobody_asks() -> None:
    program = (
        "import sys\n"
        "from model.runtime.tracing import tracing, span, is_on\n"
        "import service.api.server, service.cli.app\n"
        "with tracing(), span('search') as found:\n"
        "    found.set('a', 1)\n"
        "    assert not is_on()\n"
        # Other libraries look whether there is an `opentelemetry`.
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin': write otlp or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "OpenTelemetry"),
    ],
)
def test_variables_that_cannot_be_followed_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said), tracing():
        pass


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_variables_turn_it_off(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with tracing():
        assert not is_on()


def test_without_its_packages_the_command_to_install_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    # As if it could not be imported.
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InputError, match=r"not installed: `.* pip install .*opentelemetry-sdk"), tracing():
        pass
