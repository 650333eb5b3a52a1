"""A collector of traces: it takes what OpenTelemetry sends by OTLP over HTTP."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.server import until


@dataclass
class Collector:
    """A collector that listens on the loopback.

    Attributes:
        url: its address.
        spans: what it got.
        resources: what was said of each program that sent something.
    """

    url: str
    spans: list[Span] = field(default_factory=list)
    resources: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a program sends its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            self.resources.append(attributes_of(of_resource.resource))
            for scope in of_resource.scope_spans:
                self.spans.extend(scope.spans)

    def wait_for(self, name: str) -> Span:
        """The one span of a name, which comes soon."""
        until(lambda: any(span.name == name for span in list(self.spans)))
        (found,) = (span for span in list(self.spans) if span.name == name)
        return found

    def within(self, outer: Span) -> list[Span]:
        """The spans directly within another one, in the order of their beginnings."""
        found = [span for span in list(self.spans) if span.parent_span_id == outer.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def attributes_of(described: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in described.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            collector.take(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
