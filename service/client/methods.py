"""The methods that `Client` and `AsyncClient` have, declared once.

A method is a function of `calls` that makes a request. Bound to a client, it sends the request: at once with
a `Client`, awaited with an `AsyncClient`. The arguments, and the type of what it returns, are the function's.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from service.client import calls
from service.client.call import Call
from service.client.library_answers import Video, VideoList
from service.client.search_answers import Hit, SearchResponse

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


class SendsAsync(ABC):
    """Sends a request; its answer is awaited."""

    @abstractmethod
    async def send(self, call: Call[T]) -> T:
        """The result of a request; raises as `Sends.send`."""


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

        @functools.wraps(self._make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(self._make(*args, **kwargs))

        return method


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

        @functools.wraps(self._make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            call = self._make(*args, **kwargs)
            return (
                self._through(client, call)
                if isinstance(client, Sends)
                else self._through_async(client, call)
            )

        return method

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


def _next(call: Call[PageT], page: PageT) -> Call[PageT] | None:
    return None if page.next_page_token is None else call.following(page.next_page_token)


def _hits(page: SearchResponse) -> list[Hit]:
    return page.hits


def _videos(page: VideoList) -> list[Video]:
    return page.videos


class Methods:
    """Every method; `calls` says what each takes."""

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

    health = Method(calls.health)
    readiness = Method(calls.readiness)
    metrics = Method(calls.metrics)
