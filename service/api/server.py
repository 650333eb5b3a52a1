"""Runs the HTTP server until it is told to stop."""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from model.runtime.bundle import Bundle
from model.runtime.errors import InputError, ReelfindError
from model.runtime.messages import printable
from model.runtime.signals import handling_signals
from service.api.app import create_app
from service.api.connections import MAX_HEAD_BYTES, ConnectionLimits, Connections
from service.metrics import Metrics
from service.settings import Settings

logger = logging.getLogger("reelfind")

# Descriptors for the library, its tables and what else the process has open.
_OTHER_FILES = 256


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket. Do it before the models load, so that a port in use is reported at once.

    Raises:
        InputError: `host` is not an address of this machine.
        ReelfindError: the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"host {host} is not an address of this machine: {error}. Use 127.0.0.1 or 0.0.0.0.", field="host"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ReelfindError(
            f"cannot listen on {host} port {port}: {error.strerror}. Stop the program that uses it, "
            "or choose another `port`; 0 chooses a free one."
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a listening socket for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    settings: Settings, bundle: Bundle, listener: socket.socket, on_started: Callable[[], None] | None = None
) -> None:
    """Serve on `listener` until SIGINT or SIGTERM; requests in flight get `shutdown_seconds` to finish.

    `on_started` is called when the server answers requests.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    metrics = Metrics()
    app = create_app(settings, bundle, metrics)
    limits = ConnectionLimits(
        most=allow_connections(settings.max_connections),
        most_per_client=settings.max_connections_per_client,
        receive_seconds=settings.receive_seconds,
        send_seconds=settings.send_seconds,
    )
    connections = Connections(limits, metrics)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            timeout_keep_alive=settings.keep_alive_seconds,
            ws="none",
            # A function where uvicorn's annotation asks for a class; it only calls it.
            http=connections.protocol,  # type: ignore[arg-type]
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            # A proxy that says who asks is believed where they ask from, too.
            forwarded_allow_ips=",".join(filter(None, [settings.trusted_proxies, *settings.auth_proxies])),
        ),
        on_started,
        lambda: setattr(app.state, "is_stopping", True),
        connections,
    )

    def stop(_number: int) -> None:
        server.should_exit = True

    # While it runs, uvicorn handles the signals itself. At its end it restores the handlers from before and
    # raises the signals again. `stop` takes them then, so that stopping on request ends with exit code 0.
    try:
        with handling_signals(stop):
            server.run(sockets=[listener])
    finally:
        listener.close()


def allow_connections(most: int) -> int:
    """Raise the limit of open files so that there can be `most` connections, each with a file that it reads.

    Returns:
        `most`, or the number of connections for which there are files if the system allows fewer.
    """
    wanted = 2 * most + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return most
    allowed = max(1, (soft - _OTHER_FILES) // 2)
    logger.warning(
        "%d files may be open, so at most %d connections, not %d: raise the limit (ulimit -n), or lower "
        "REELFIND_MAX_CONNECTIONS",
        soft,
        allowed,
        most,
    )
    return allowed


class PrintableFormatter(logging.Formatter):
    """Writes each message on one line, and what a name of a file may hold as in `printable`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class names it
        """The line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  the base class names it
        """A traceback, in its lines."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        on_started: Callable[[], None] | None,
        on_stopping: Callable[[], None],
        connections: Connections,
    ) -> None:
        super().__init__(config)
        self._on_stopping = on_stopping
        self._on_started = on_started
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        # uvicorn calls this ten times a second.
        if counter % 5 == 0:
            self._connections.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)
