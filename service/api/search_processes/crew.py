"""The search processes of a server: started when searches come faster than they are answered, and let go of.

All methods are called in the event loop's thread.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pickle import PicklingError

from cachetools import TTLCache
from starlette.concurrency import run_in_threadpool

from model.runtime.cores import available_cores
from model.runtime.own_code import import_path
from model.runtime.tracing import trace_origin
from service.api.search_processes.call import Answer, Order, SearchCall
from service.api.search_processes.wire import HEAD, packed, unpacked
from service.memory import has_room_for_another
from service.metrics import Metrics
from service.search.pages import KEPT_SECONDS, MOST_ANSWERS
from service.search.queries import PictureQuery, examples_of
from service.search.searcher import Searcher
from service.settings import Settings

logger = logging.getLogger("reelfind")

#: More processes share too little: their calls of the models are no longer shared by many searches.
_MOST_BY_DEFAULT = 8
# How many searches a process has at once, while others wait in the pool for whichever is done first: as
# many as share its calls of a model well. The server has fewer, because it has all requests to read, too.
_MOST_AT_ONCE = 8
_MOST_OWN = 4
#: When each process has had so many searches at once for so long, one more starts.
BUSY_CALLS = 4
_BUSY_SECONDS = 1.0
# One that could not be started, or has ended by itself, is tried again after this time.
_RETRY_SECONDS = 30.0
_IDLE_SECONDS = 600.0
_START_SECONDS = 120.0
_STOP_SECONDS = 3.0
# A process that answers so long after a search's deadline hangs.
_GRACE_SECONDS = 30.0
_MAIN = "import sys; from service.api.search_processes.process import main; main(int(sys.argv[1]))"


def most_processes(settings: Settings) -> int:
    """How many processes answer searches at most, the server among them."""
    return settings.search_processes or min(available_cores(), _MOST_BY_DEFAULT)


class _Member:
    """One process that is ready, and the calls that it has not answered."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._open: dict[int, asyncio.Future[Answer]] = {}
        #: How many searches have a place here.
        self.taken = 0
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def ask(self, order: Order, seconds: float) -> Answer:
        """Its answer to a call.

        Raises:
            EOFError: the process has ended.
            TimeoutError: there is no answer after so many seconds.
        """
        # The event loop may know that the connection has ended before `read` does.
        if self._writer.is_closing():
            raise EOFError
        self._number += 1
        number = self._number
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(packed(number, order))
            return await asyncio.wait_for(answer, seconds)
        finally:
            self._open.pop(number, None)
            self.used_at = time.monotonic()

    async def read(self) -> None:
        """Hand out answers until the process ends.

        What it has not answered by then, and what it is asked afterwards, ends with EOFError.
        """
        try:
            while True:
                number, size = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                answer = unpacked(await self._reader.readexactly(size))
                if (waiting := self._open.get(number)) is not None and not waiting.done():
                    waiting.set_result(answer)
        except (EOFError, ConnectionError):
            pass  # asyncio's IncompleteReadError is an EOFError
        finally:
            self._writer.close()
            for waiting in self._open.values():
                if not waiting.done():
                    waiting.set_exception(EOFError())

    async def stop(self) -> None:
        """Let the process end, as it does when nobody listens any more: it sends its spans first."""
        self._writer.close()
        with suppress(subprocess.TimeoutExpired):
            await run_in_threadpool(self._process.wait, _STOP_SECONDS)
        self.end()

    def end(self) -> None:
        """End the process at once."""
        self._writer.close()
        self._process.kill()
        self._process.wait()


class Crew:
    """Sends searches to other processes, and starts as many of these as are needed and allowed."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._most = most_processes(settings)
        self._members: dict[_Member, asyncio.Task[None]] = {}
        self._starting: asyncio.Task[None] | None = None
        #: How many searches have a place in the server itself.
        self._own = 0
        self._busy_since: float | None = None
        self._next_start = 0.0
        #: Which process keeps the ranking of a question, for its further pages.
        self._keepers: TTLCache[bytes, _Member] = TTLCache(MOST_ANSWERS, KEPT_SECONDS)
        metrics.show_search_processes(1)

    @property
    def num_processes(self) -> int:
        """How many processes answer searches now, the server among them."""
        return 1 + len(self._members)

    @property
    def capacity(self) -> int:
        """How many searches may run at once: as many as have places. Others wait before, and take turns."""
        threads = self._settings.search_threads
        if not self._members:
            return threads
        return min(threads * self.num_processes, _MOST_OWN + _MOST_AT_ONCE * len(self._members))

    @contextmanager
    def place(self, call: SearchCall) -> Iterator[_Member | None]:
        """Take a place in a process for a search. → Another process; None: this one, the server."""
        self._start_if_busy()
        member = self._member_for(call)
        if member is None:
            self._own += 1
        else:
            member.taken += 1
        try:
            yield member
        finally:
            if member is None:
                self._own -= 1
            else:
                member.taken -= 1

    async def answer(self, member: _Member, call: SearchCall, searcher: Searcher) -> Answer | None:
        """Let another process, which has a place for it, answer a search. None: the server must.

        Args:
            member: the process.
            call: the search.
            searcher: what the server searches.
        """
        origin = trace_origin()
        order = Order(call.to_send(), searcher.mark, None if origin is None else dict(origin.parent))
        deadline = call.options.deadline
        seconds = _GRACE_SECONDS if deadline is None else deadline - time.monotonic() + _GRACE_SECONDS
        try:
            answer = await member.ask(order, seconds)
        except EOFError:
            return None
        except (PicklingError, TypeError, AttributeError):
            logger.exception("a search cannot be sent to another process; the server answers it")
            return None
        except TimeoutError:
            logger.error("search process %d hangs, and is ended", member.pid)
            self._let_go(member)
            return None
        for method, values in answer.observed:
            getattr(self._metrics, method)(*values)
        if answer.result is None:
            return None
        if answer.result.next_page_token is not None and call.keep:
            self._keepers[call.question] = member
        return answer

    def release_idle(self) -> None:
        """End the processes that have had nothing to do for long: they take memory."""
        now = time.monotonic()
        for member in list(self._members):
            if not member.taken and now - member.used_at > _IDLE_SECONDS:
                self._let_go(member)

    async def close(self) -> None:
        """End all processes."""
        self._most = 1
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        members = list(self._members)
        self._members.clear()
        await asyncio.gather(*(member.stop() for member in members))

    def _member_for(self, call: SearchCall) -> _Member | None:
        """Who answers a call; None: the server, if it is idle, or all others are full."""
        if call.page_token is not None:
            keeper = self._keepers.get(call.question)
            return keeper if keeper in self._members else None
        # Pictures are large, and decoded one at a time.
        if any(isinstance(example, PictureQuery) for example in examples_of(call.query)):
            return None
        member = min(self._members, key=lambda each: each.taken, default=None)
        return member if member is not None and self._own and member.taken < _MOST_AT_ONCE else None

    def _start_if_busy(self) -> None:
        """Start a process when there has been work for one more for a while."""
        now = time.monotonic()
        searches = 1 + self._own + sum(member.taken for member in self._members)
        if searches < BUSY_CALLS * self.num_processes:
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
        elif (
            now - self._busy_since >= _BUSY_SECONDS
            and now >= self._next_start
            and self.num_processes < self._most
            and self._starting is None
        ):
            self._busy_since = None
            self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            if not await run_in_threadpool(has_room_for_another):
                self._next_start = time.monotonic() + _RETRY_SECONDS
                return
            await asyncio.wait_for(self._add(), _START_SECONDS)
        except Exception as error:  # the server goes on, whatever it is
            self._next_start = time.monotonic() + _RETRY_SECONDS
            logger.warning("a search process could not be started: %r; the server searches on", error)
        finally:
            self._starting = None

    async def _add(self) -> None:
        """Start a process, and wait until it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await run_in_threadpool(_launch, theirs)
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        member = _Member(process, reader, writer)
        try:
            writer.write(packed(0, self._settings))
            _, size = HEAD.unpack(await reader.readexactly(HEAD.size))
            await reader.readexactly(size)
        except BaseException:
            member.end()
            raise
        self._members[member] = asyncio.create_task(self._watch(member))
        self._metrics.show_search_processes(self.num_processes)
        logger.info("%d processes answer searches", self.num_processes)

    async def _watch(self, member: _Member) -> None:
        await member.read()
        if member in self._members:
            logger.warning("search process %d has ended; the server answers its searches", member.pid)
            self._next_start = time.monotonic() + _RETRY_SECONDS
            self._let_go(member)

    def _let_go(self, member: _Member) -> None:
        self._members.pop(member, None)
        member.end()
        self._metrics.show_search_processes(self.num_processes)


def _launch(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start a process that answers through a socket."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        # What the server prints is read by programs.
        stdout=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        # In a process group of its own: Ctrl-C reaches only the server, which ends it.
        process_group=0,
        env={**os.environ, "PYTHONPATH": import_path()},
    )
