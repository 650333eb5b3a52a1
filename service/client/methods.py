"""The methods that `Client` and `AsyncClient` have, declared once.

A method is a function of `calls` or `job_calls` that makes a request. Bound to a client, it sends the
request: at once with a `Client`, awaited with an `AsyncClient`. It has the arguments of the function, and
returns what the request's answer is read as.
"""

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import anyio

from service.client import calls, job_calls
from service.client.call import Call
from service.client.errors import ClientError
from service.client.events import Following
from service.client.job_answers import JobEvent
from service.client.library_answers import Video, VideoList
from service.client.search_answers import Hit, SearchResponse
from service.client.uploading import Steps, upload_video

P = ParamSpec("P")
T = TypeVar("T")


class _Page(Protocol):
    """A page of answers."""

    @property
    def next_page_token(self) -> str | None: ...


PageT = TypeVar("PageT", bound=_Page)


class Sends(ABC):
    """Sends a request and waits for its answer."""

    @abstractmethod
    def send(self, call: Call[T]) -> T:
        """The result of a request.

        Raises:
            ClientError: there is none.
            OSError: a file cannot be written.
        """

    @abstractmethod
    def follow(self, following: Following) -> Iterator[JobEvent]:
        """The events of a job; when the connection is lost, it goes on with the next one.

        Raises:
            ClientError: the service does not tell them.
        """


class SendsAsync(ABC):
    """Sends a request; its answer is awaited."""

    @abstractmethod
    async def send(self, call: Call[T]) -> T:
        """The result of a request; raises as `Sends.send`."""

    @abstractmethod
    def follow(self, following: Following) -> AsyncIterator[JobEvent]:
        """The events of a job; see `Sends.follow`."""


def _bound(make: Callable[P, T], send: Callable[[T], Any]) -> Callable[P, Any]:
    """Gives what `make` makes of its arguments to `send` at once."""

    @functools.wraps(make)
    def method(*args: P.args, **kwargs: P.kwargs) -> Any:
        return send(make(*args, **kwargs))

    return method


class Method(Generic[P, T]):
    """Sends the request that a function makes."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self._make = make

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Sends | SendsAsync | None, owner: type) -> Callable[P, Any]:
        """The method of a client; the function itself of a class."""
        if client is None:
            return self._make

        return _bound(self._make, client.send)


class PagedMethod(Generic[P, PageT, T]):
    """Iterates through what all pages hold, which are asked for as they are needed."""

    def __init__(self, make: Callable[P, Call[PageT]], items: Callable[[PageT], Sequence[T]]) -> None:
        self._make = make
        self._items = items

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[PageT]]: ...
    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Sends | SendsAsync | None, owner: type) -> Callable[P, Any]:
        """The method of a client; the function itself of a class."""
        if client is None:
            return self._make

        if isinstance(client, Sends):
            return _bound(self._make, functools.partial(self._through, client))
        return _bound(self._make, functools.partial(self._through_async, client))

    def _through(self, client: Sends, first: Call[PageT]) -> Iterator[T]:
        call: Call[PageT] | None = first
        while call is not None:
            page = client.send(call)
            yield from self._items(page)
            call = _next(call, page)

    async def _through_async(self, client: SendsAsync, first: Call[PageT]) -> AsyncIterator[T]:
        call: Call[PageT] | None = first
        while call is not None:
            page = await client.send(call)
            for item in self._items(page):
                yield item
            call = _next(call, page)


class EventsMethod(Generic[P]):
    """Iterates through events as they happen."""

    def __init__(self, make: Callable[P, Call[None]]) -> None:
        self._make = make

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[None]]: ...
    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, Iterator[JobEvent]]: ...
    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, AsyncIterator[JobEvent]]: ...
    def __get__(self, client: Sends | SendsAsync | None, owner: type) -> Callable[P, Any]:
        """The method of a client; the function itself of a class."""
        if client is None:
            return self._make

        return _bound(self._make, lambda first: client.follow(Following(first)))


class StepsMethod(Generic[P, T]):
    """Sends several requests, one after another."""

    def __init__(self, make: Callable[P, Steps[T]]) -> None:
        self._make = make

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Steps[T]]: ...
    @overload
    def __get__(self, client: Sends, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: SendsAsync, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Sends | SendsAsync | None, owner: type) -> Callable[P, Any]:
        """The method of a client; the function itself of a class."""
        if client is None:
            return self._make

        if isinstance(client, Sends):
            return _bound(self._make, functools.partial(_carry_out, client))
        return _bound(self._make, functools.partial(_carry_out_async, client))


def _carry_out(client: Sends, steps: Steps[T]) -> T:
    resume: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            if isinstance(step, float):
                time.sleep(step)
                resume = functools.partial(next, steps)
            else:
                resume = functools.partial(steps.send, client.send(step))
        except ClientError as error:
            resume = functools.partial(steps.throw, error)


async def _carry_out_async(client: SendsAsync, steps: Steps[T]) -> T:
    resume: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            if isinstance(step, float):
                await anyio.sleep(step)
                resume = functools.partial(next, steps)
            else:
                resume = functools.partial(steps.send, await client.send(step))
        except ClientError as error:
            resume = functools.partial(steps.throw, error)


def _next(call: Call[PageT], page: PageT) -> Call[PageT] | None:
    return None if page.next_page_token is None else call.following(page.next_page_token)


def _hits(page: SearchResponse) -> list[Hit]:
    return page.hits


def _videos(page: VideoList) -> list[Video]:
    return page.videos


class Methods:
    """Every method; `calls` and `job_calls` say what each takes."""

    search = Method(calls.search)
    search_hits = PagedMethod(calls.search, _hits)
    search_batch = Method(calls.search_batch)
    moments = Method(calls.moments)
    moment_hits = PagedMethod(calls.moments, _hits)
    answer = Method(calls.answer)

    video_page = Method(calls.video_page)
    videos = PagedMethod(calls.video_page, _videos)
    video = Method(calls.video)
    update_video = Method(calls.update_video)
    delete_video = Method(calls.delete_video)
    download_media = Method(calls.download_media)
    download_clip = Method(calls.download_clip)
    frame = Method(calls.frame)
    poster = Method(calls.poster)

    random_moments = Method(calls.random_moments)
    example_queries = Method(calls.example_queries)
    folders = Method(calls.folders)
    facets = Method(calls.facets)
    tags = Method(calls.tags)
    library = Method(calls.library)
    reload = Method(calls.reload)

    session = Method(calls.session)
    sign_url = Method(calls.sign_url)

    index = Method(job_calls.index)
    jobs = Method(job_calls.jobs)
    job = Method(job_calls.job)
    job_events = EventsMethod(job_calls.job_events)
    job_log = Method(job_calls.job_log)
    cancel_job = Method(job_calls.cancel_job)
    upload_video = StepsMethod(upload_video)

    health = Method(calls.health)
    readiness = Method(calls.readiness)
    metrics = Method(calls.metrics)
