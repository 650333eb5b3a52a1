"""A small load balancer: each connection goes to the next server that says on /readyz that it is ready."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx

_CHECK_SECONDS = 0.05
_START_SECONDS = 60.0


class RoundRobin:
    """Passes connections on to servers, in turns.

    Attributes:
        url: where it listens.
        connections: how many each server got, by its address.
        least_ready: the least number of servers that were ready at once, since the first time that all were.
        refusals: what servers that were not ready said.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self.url = ""
        self.connections: Counter[str] = Counter()
        self.least_ready = len(servers)
        self.refusals: list[str] = []
        self._servers = list(servers)
        self._ready = dict.fromkeys(servers, False)
        self._turn = 0
        #: What is passed on now: asyncio itself does not keep tasks from being collected.
        self._passing: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])

    def start(self) -> None:
        """Listen, and return when all servers are ready."""
        self._thread.start()
        assert self._started.wait(_START_SECONDS), self.refusals

    def stop(self) -> None:
        """Close all connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        checks = [asyncio.create_task(self._check(server)) for server in self._servers]
        await self._stop.wait()
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        listener.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _check(self, server: str) -> None:
        """Ask a server again and again whether it is ready."""
        async with httpx.AsyncClient(base_url=server, timeout=_START_SECONDS, trust_env=False) as client:
            while True:
                answer = await client.get("/readyz")
                self._ready[server] = answer.status_code == 200
                if not self._ready[server]:
                    self.refusals.append(answer.text)
                ready = sum(self._ready.values())
                if self._started.is_set():
                    self.least_ready = min(self.least_ready, ready)
                elif ready == len(self._servers):
                    self._started.set()
                await asyncio.sleep(_CHECK_SECONDS)

    def _next(self) -> str | None:
        """The server whose turn it is; None: none is ready."""
        for _ in self._servers:
            self._turn += 1
            server = self._servers[self._turn % len(self._servers)]
            if self._ready[server]:
                return server
        return None

    def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(client, to_client))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server = self._next()
        if server is None:
            await _close(to_client)
            return
        self.connections[server] += 1
        address = urlsplit(server)
        from_server, to_server = await asyncio.open_connection(address.hostname, address.port)
        try:
            await asyncio.gather(_copy(client, to_server), _copy(from_server, to_client))
        finally:
            await _close(to_server)
            await _close(to_client)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side has no more, and say so to the other."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@contextmanager
def balancing(servers: Sequence[str]) -> Iterator[RoundRobin]:
    """A load balancer of servers, which are ready at the start."""
    balancer = RoundRobin(servers)
    balancer.start()
    try:
        yield balancer
    finally:
        balancer.stop()
