"""Spans of OpenTelemetry around what a program does. Where nobody asks for them, nothing is imported or done.

The standard variables decide. Spans are sent by OTLP where `OTEL_TRACES_EXPORTER` is `otlp`, or where it is
not set and `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is. The SDK reads all
others, such as `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and `OTEL_BSP_SCHEDULE_DELAY`.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from model.runtime.errors import InputError
from model.runtime.installing import install_command

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Span as OpenSpan
    from opentelemetry.trace import Tracer

Result = TypeVar("Result")

SERVICE_NAME = "reelfind"
Value = str | int | float | bool
Kind = Literal["internal", "server"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Span(Protocol):
    """What is known of something that is done, while it is done."""

    def set(self, name: str, value: Value | None) -> None:
        """Set an attribute; None: leave it out."""

    def rename(self, name: str) -> None:
        """Give the span another name."""

    def fail(self, kind: str) -> None:
        """Say that it failed, and by what kind of error."""


class _NoSpan:
    """The span of a program that makes none."""

    def set(self, name: str, value: Value | None) -> None:
        """Do nothing."""

    def rename(self, name: str) -> None:
        """Do nothing."""

    def fail(self, kind: str) -> None:
        """Do nothing."""


#: What `span` gives where nobody asks for spans.
NO_SPAN: AbstractContextManager[Span] = nullcontext(_NoSpan())

#: Makes spans; None: nobody asks for any.
_tracer: "Tracer | None" = None


def is_on() -> bool:
    """Whether spans are made."""
    return _tracer is not None


def span(
    name: str, kind: Kind = "internal", parent: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """A span that lasts as long as the context, within the one that is current in this thread and task.

    The kind of an exception that leaves the context is noted in it.

    Args:
        name: its name.
        kind: `server` where it answers a request.
        parent: headers in lower case that may name the span that it is within (`traceparent`); None: it is
            within the current one.
    """
    tracer = _tracer
    return NO_SPAN if tracer is None else _open_span(tracer, name, kind, parent)


def record(name: str, started: float, ended: float) -> None:
    """Add what has been done to the current span, as one within it; outside of any span nothing is added.

    Args:
        name: its name.
        started: when it began, in seconds of `time.perf_counter()`.
        ended: when it ended.
    """
    tracer = _tracer
    if tracer is None:
        return
    from opentelemetry import trace

    if trace.get_current_span().is_recording():
        epoch_ns = time.time_ns() - int(time.perf_counter() * 1e9)
        made = tracer.start_span(name, start_time=epoch_ns + int(started * 1e9))
        made.end(epoch_ns + int(ended * 1e9))


def carried(work: Callable[..., Result]) -> Callable[..., Result]:
    """The same work for one other thread, where it is within the span that is current now."""
    return work if _tracer is None else partial(copy_context().run, work)


@dataclass(frozen=True)
class TraceOrigin:
    """What a process of another computer needs to make spans within one of this process.

    Attributes:
        variables: those of OpenTelemetry (`OTEL_…`) in this process's environment.
        parent: the span, as `span` takes it.
    """

    variables: Mapping[str, str]
    parent: Mapping[str, str]


def trace_origin() -> TraceOrigin | None:
    """The origin of spans elsewhere that are within the current one; None: nobody asks for spans."""
    if _tracer is None:
        return None
    from opentelemetry.propagate import inject

    parent: dict[str, str] = {}
    inject(parent)
    return TraceOrigin({k: text for k, text in os.environ.items() if k.startswith("OTEL_")}, parent)


@contextmanager
def tracing_from(origin: TraceOrigin | None, host: str) -> Iterator[None]:
    """As `tracing`, for a process on another computer, which takes over the variables of the origin.

    Args:
        origin: where the spans come from; None: nobody asks for any.
        host: the name of this computer.

    Raises:
        InputError: as `tracing`.
    """
    if origin is None:
        yield
        return
    os.environ.update(origin.variables)
    with tracing({"host.name": host}):
        yield


def parent_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The parent for `span` that a program's environment names: `TRACEPARENT`, `TRACESTATE`, `BAGGAGE`."""
    names = ("TRACEPARENT", "TRACESTATE", "BAGGAGE")
    return {name.lower(): environment[name] for name in names if name in environment}


@contextmanager
def tracing(attributes: Mapping[str, str] | None = None) -> Iterator[None]:
    """Send spans while the context lasts, if the environment asks for it; at its end, all that are left.

    Args:
        attributes: what spans say of the program, besides its name and version.

    Raises:
        InputError: the variables ask for what cannot be done, or packages are missing.
    """
    global _tracer
    if not _is_asked_for(os.environ):
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(
            f"traces need OpenTelemetry, which is not installed: `{install_command('otel')}`, or set "
            "OTEL_TRACES_EXPORTER=none"
        ) from None
    try:
        provider = TracerProvider(resource=_resource(attributes or {}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise InputError(f"a variable of OpenTelemetry (OTEL_…) is invalid: {error}") from error
    _tracer = provider.get_tracer(SERVICE_NAME, version(SERVICE_NAME))
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def _is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether variables ask for spans.

    Raises:
        InputError: in a way that there is not.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        raise InputError(f"OTEL_TRACES_EXPORTER is {exporter!r}: write otlp or none")
    if exporter == "none" or (not exporter and not any(environment.get(name) for name in _ENDPOINTS)):
        return False
    for name in _PROTOCOLS:
        protocol = environment.get(name, "").strip()
        if protocol not in ("", "http/protobuf"):
            raise InputError(
                f"{name} is {protocol!r}, and spans are sent by http/protobuf alone: write that, or unset it"
            )
    return True


def _resource(attributes: Mapping[str, str]) -> "Resource":
    """What spans say of the program. A name in the environment wins."""
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.version": version(SERVICE_NAME), **attributes})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE_NAME}))
    return resource


class _MadeSpan:
    """A span that is sent."""

    def __init__(self, made: "OpenSpan") -> None:
        self._made = made

    def set(self, name: str, value: Value | None) -> None:
        """See `Span`."""
        if value is not None:
            self._made.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """See `Span`."""
        self._made.update_name(name)

    def fail(self, kind: str) -> None:
        """See `Span`."""
        from opentelemetry.trace import Status, StatusCode

        self._made.set_attribute("error.type", kind)
        self._made.set_status(Status(StatusCode.ERROR))


@contextmanager
def _open_span(
    tracer: "Tracer", name: str, kind: Kind, parent: Mapping[str, str] | None
) -> Iterator[_MadeSpan]:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    context = None if parent is None else extract(parent)
    spans = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER}
    with tracer.start_as_current_span(
        name, context=context, kind=spans[kind], record_exception=False, set_status_on_exception=False
    ) as made:
        found = _MadeSpan(made)
        try:
            yield found
        except Exception as error:
            # Its text may name what somebody searches for.
            found.fail(type(error).__qualname__)
            raise
