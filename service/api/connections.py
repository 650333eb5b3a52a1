"""The connections of the HTTP server: how many there are, whose they are, and how slow they may be.

uvicorn limits neither the number of connections nor the time that a request may take to arrive or an answer
to be read. `GuardedProtocol` adds these to its HTTP protocol on h11, which limits the size of what it has to
hold: of the head, a chunk's head and trailers of a request (httptools has no such limit).

Times are in seconds of the event loop's clock.
"""

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.api.joined_writes import JoinedWrites
from service.api.problems import (
    MALFORMED,
    SLOW_REQUEST,
    TOO_MANY_CONNECTIONS,
    ProblemKind,
    problem_response,
)
from service.metrics import ConnectionEnding, Metrics

logger = logging.getLogger("reelfind")

#: Largest head of a request, in bytes.
MAX_HEAD_BYTES = 32 * 1024
# A refused connection stays open for this time, so that its client can read why.
_REFUSAL_SECONDS = 1.0
# Most refused connections that stay open so long; others are closed at once.
_MAX_REFUSED = 32
_PRESENCE = "reelfind.presence"
_PEER = "reelfind.peer"


class Presence:
    """Whether the client of a connection is still there. May be asked from any thread."""

    def __init__(self) -> None:
        self._left = False
        self._is_renewed = False

    def is_here(self) -> bool:
        """Whether the connection is open."""
        return not self._left

    def leave(self) -> None:
        """The connection was lost."""
        self._left = True

    def renew(self) -> None:
        """The request that arrives is large, and has come on: its time to arrive begins anew."""
        self._is_renewed = True

    def take_renewal(self) -> bool:
        """Whether it has come on since this was asked last."""
        renewed, self._is_renewed = self._is_renewed, False
        return renewed


def presence_of(scope: MutableMapping[str, Any]) -> Presence | None:
    """The presence of the client that sent a request; None if another server than ours runs the app."""
    presence = scope.get("state", {}).get(_PRESENCE)
    return presence if isinstance(presence, Presence) else None


def peer_of(scope: MutableMapping[str, Any]) -> str:
    """The address at the other end of a request's connection, whatever its headers say; "": not known."""
    peer = scope.get("state", {}).get(_PEER)
    return peer if isinstance(peer, str) else ""


def client_of(scope: MutableMapping[str, Any]) -> str:
    """Whose request it is: an address, or where a trusted proxy names one, that."""
    client = scope.get("client")
    return client_key(client[0]) if client else ""


@lru_cache(maxsize=1024)
def client_key(host: str) -> str:
    """The client at an address: in IPv6 its /64, which is the least that one customer has."""
    address = address_of(host)
    if address is None:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


@lru_cache(maxsize=1024)
def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, that of IPv4 where it is mapped into IPv6; None: it is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections there may be, and how slow.

    Attributes:
        most: connections at once.
        most_per_client: connections at once of one client (see `client_key`).
        receive_seconds: that a request may take to arrive.
        send_seconds: after which a connection is closed whose client reads nothing.
    """

    most: int
    most_per_client: int
    receive_seconds: float
    send_seconds: float


class Connections:
    """All open connections. `sweep` must be called every second or so: it ends those that are too slow."""

    def __init__(self, limits: ConnectionLimits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._open: dict[GuardedProtocol, None] = {}
        self._of_client: Counter[str] = Counter()
        self.num_refused = 0

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "GuardedProtocol":
        """Make the protocol of a new connection, as uvicorn does with its own classes."""
        return GuardedProtocol(self, config, server_state, app_state, _loop)

    def admit(self, protocol: "GuardedProtocol") -> ConnectionEnding | None:
        """Count a new connection, or say why there is no place for it. Idle ones give way."""
        of_client = self._of_client[protocol.key]
        if of_client >= self.limits.most_per_client and not self._close_idle(protocol.key):
            return "client_share"
        if len(self._open) >= self.limits.most and not self._close_idle(None):
            return "full"
        self._open[protocol] = None
        self._of_client[protocol.key] += 1
        self._metrics.show_connections(len(self._open))
        return None

    def release(self, protocol: "GuardedProtocol") -> None:
        """A connection has ended."""
        if protocol not in self._open:
            return
        del self._open[protocol]
        self._of_client[protocol.key] -= 1
        if not self._of_client[protocol.key]:
            del self._of_client[protocol.key]
        self._metrics.show_connections(len(self._open))

    def observe(self, ending: ConnectionEnding) -> None:
        """Count a connection that the server ended."""
        self._metrics.observe_connection_end(ending)

    def sweep(self, now: float) -> None:
        """End the connections that are too slow."""
        for protocol in list(self._open):
            protocol.end_if_slow(now)

    def _close_idle(self, key: str | None) -> bool:
        """Close the connection that has been idle longest: of one client, or of the one with most of them."""
        idle = [each for each in self._open if each.is_idle and (key is None or each.key == key)]
        if not idle:
            return False
        # `max` and the order of `_open` choose the oldest among those of the client with most.
        victim = max(idle, key=lambda each: self._of_client[each.key])
        self.observe("idle")
        victim.close_idle()
        self.release(victim)
        return True


class GuardedProtocol(H11Protocol):
    """One connection, whose number, client and pace are watched."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.presence = Presence()
        super().__init__(config, server_state, {**app_state, _PRESENCE: self.presence}, _loop)
        self.key = ""
        self._connections = connections
        self._refused = False
        # When the request began to arrive that is not here yet; None while there is none.
        self._begun: float | None = None
        self._is_silent = True
        # Bytes that wait for the client to read, and since when they have been as many.
        self._unread = 0
        self._unread_since = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun that is not answered yet."""
        return self._is_silent and not self._is_answering

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or turn it away."""
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self.key = client_key(self.client[0]) if self.client else ""
        self.app_state[_PEER] = self.client[0] if self.client else ""
        self._begun = self.loop.time()
        ending = self._connections.admit(self)
        if ending is not None:
            self._connections.observe(ending)
            self._refuse(ending)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell its search that nobody waits any more."""
        super().connection_lost(exc)
        self.presence.leave()
        if self._refused:
            self._connections.num_refused -= 1
        self._connections.release(self)

    def data_received(self, data: bytes) -> None:
        """Watch how long a request takes to arrive."""
        if self._refused:
            return
        if self._begun is None:
            self._begun = self.loop.time()
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        """Watch also what was sent after the answered request, and has been read just now."""
        super().on_response_complete()
        self._watch_request()

    def _watch_request(self) -> None:
        """Note whether a request has begun to arrive, and whether all of it is here."""
        state = self.conn.their_state
        if state is h11.IDLE:
            self._is_silent = not self.conn.trailing_data[0]
        else:
            self._is_silent = state is not h11.SEND_BODY
            if self._is_silent:
                self._begun = None
        if not self._is_silent and self._begun is None:
            self._begun = self.loop.time()

    def end_if_slow(self, now: float) -> None:
        """End the connection if its request takes too long to arrive, or its client reads nothing."""
        limits = self._connections.limits
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        elif unread and now - self._unread_since > limits.send_seconds:
            self._connections.observe("slow_reader")
            self.transport.abort()
            return
        if self.presence.take_renewal() and self._begun is not None:
            self._begun = now
        if self._begun is not None and now - self._begun > limits.receive_seconds:
            self._begun = None
            if self._is_silent:  # nothing was asked: nothing is answered
                self.transport.close()
                return
            self._connections.observe("slow_request")
            self._end_with(
                SLOW_REQUEST,
                f"The request did not arrive within {limits.receive_seconds:g} s. Send it faster, or raise "
                "REELFIND_RECEIVE_SECONDS.",
            )

    def close_idle(self) -> None:
        """Close the connection, which is idle, although its client may not have read the last answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is not HTTP, or has too large a head, with a problem document."""
        self._connections.observe("malformed")
        self._end_with(
            MALFORMED,
            f"The request is not valid HTTP/1.1, or its head is larger than {MAX_HEAD_BYTES:,} bytes. "
            "Correct it, or send fewer headers.",
        )

    def _refuse(self, ending: ConnectionEnding) -> None:
        self._refused = True
        self._connections.num_refused += 1
        if self._connections.num_refused > _MAX_REFUSED:
            self.transport.abort()
            return
        limit, setting = (
            (self._connections.limits.most, "REELFIND_MAX_CONNECTIONS")
            if ending == "full"
            else (self._connections.limits.most_per_client, "REELFIND_MAX_CONNECTIONS_PER_CLIENT")
        )
        whose = "" if ending == "full" else "from this address "
        detail = f"{limit} connections {whose}are open, which is the limit. Close some, or raise {setting}."
        self._write(TOO_MANY_CONNECTIONS, detail, {"retry-after": "1"})
        self.transport.write_eof()
        # Closed at once, with the request unread, the client's system would discard the answer.
        self.loop.call_later(_REFUSAL_SECONDS, self.transport.abort)

    def _end_with(self, kind: ProblemKind, detail: str) -> None:
        """Answer with a problem, if no answer has begun, and close the connection."""
        if not self._is_answering or not self.cycle.response_started:
            self._write(kind, detail, {})
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _write(self, kind: ProblemKind, detail: str, headers: dict[str, str]) -> None:
        response = problem_response(kind, detail, headers={**headers, "connection": "close"})
        lines = [f"HTTP/1.1 {kind.status} {kind.title}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))
