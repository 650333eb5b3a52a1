"""Requests that carry a picture: `multipart/form-data` with the parts `image` and `request`.

The picture is held in memory, and never written to a file. All pictures that are held at once, also by
searches that wait for their turn, share a budget.
"""

import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from service.api.presence import ClientLeftError
from service.api.principal import ScopedRoute
from service.errors import OverloadedError, QueryError

MEDIA_TYPE = "multipart/form-data"
#: Pictures of the largest size that are held at once.
PICTURES_HELD = 8
# What a picture's body may have beside it, in bytes: the boundaries and the heads of the parts.
_FRAMING_BYTES = 8192

_PATHS = re.compile(r"/v1/(search|videos/[^/]+/moments)")
_MULTIPART = re.compile(rb"\s*multipart/form-data\s*(?:;.*)?", re.IGNORECASE)
_EXAMPLE = 'curl -F image=@photo.jpg -F \'request={"query": {"image": "upload"}}\''


def is_upload(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is declared as one that carries a picture, to a path that takes pictures."""
    return scope["method"] == "POST" and bool(_PATHS.fullmatch(scope["path"])) and is_multipart(scope)


def is_multipart(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request's body is declared as multipart/form-data."""
    return _MULTIPART.fullmatch(declared_type(scope)) is not None


def declared_type(scope: MutableMapping[str, Any]) -> bytes:
    """The content type of a request; empty unless it declares exactly one."""
    types: list[bytes] = [value for name, value in scope["headers"] if name == b"content-type"]
    return types[0] if len(types) == 1 else b""


class UploadRoute(ScopedRoute):
    """A route that takes the requests that carry a picture, and leaves others of its path to the next one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes a request."""
        return super().matches(scope) if scope["type"] == "http" and is_upload(scope) else (Match.NONE, {})


class Upload(NamedTuple):
    """What a request carries: a picture, any bytes, and JSON, any bytes or None."""

    image: bytes
    request: bytes | None


class UploadBudget:
    """How many bytes of pictures may be held at once. Used in the event loop's thread alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @contextmanager
    def hold(self) -> Iterator["Held"]:
        """What one request holds, while the context is open."""
        held = Held(self)
        try:
            yield held
        finally:
            self._held -= held.count

    def take(self, count: int) -> None:
        """Count bytes as held.

        Raises:
            OverloadedError: they are too many.
        """
        if self._held + count > self._max_bytes:
            raise OverloadedError(
                "The server holds as many pictures as it may. Try again in a moment, or raise "
                "REELFIND_MAX_IMAGE_BYTES."
            )
        self._held += count


class Held:
    """The bytes that one request holds."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self.count = 0

    async def received(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The chunks of a body, each counted as held.

        Raises:
            OverloadedError: they are too many.
        """
        async for chunk in stream:
            self._budget.take(len(chunk))
            self.count += len(chunk)
            yield chunk


class _InMemoryParser(MultiPartParser):
    # The body is limited, and a container's disk may be read-only.
    spool_max_size = sys.maxsize


@contextmanager
def _refusing_what_is_malformed() -> Iterator[None]:
    try:
        yield
    except MultiPartException as error:
        raise QueryError(
            f"The body is not valid multipart/form-data ({error.message}). Send it as in: {_EXAMPLE}.",
            "/image",
        ) from error
    except ClientDisconnect as error:
        raise ClientLeftError from error


async def read_upload(request: Request, held: Held, max_image_bytes: int, max_json_bytes: int) -> Upload:
    """Read the body of a request that carries a picture, and count it as held.

    Raises:
        OverloadedError: the server holds too many pictures.
        QueryError: a part is missing, unknown, twice there or too large, or the body is malformed.
    """
    with _refusing_what_is_malformed():
        parser = _InMemoryParser(
            request.headers,
            held.received(request.stream()),
            max_files=2,
            max_fields=2,
            max_part_size=max_json_bytes,
        )
        form = await parser.parse()
    parts: dict[str, bytes] = {}
    try:
        for name, value in form.multi_items():
            if name not in ("image", "request"):
                raise QueryError(
                    f"The part {name[:60]!r} is unknown. Send `image` and `request`, as in: {_EXAMPLE}.",
                    "/image",
                )
            if name in parts:
                raise QueryError(f"The part `{name}` is there twice. Send it once.", f"/{name}")
            if isinstance(value, UploadFile):
                parts[name] = await value.read()
            elif name == "request":
                parts[name] = value.encode("utf-8", "surrogatepass")
            else:
                raise QueryError(
                    f"The part `image` has no file name, so it is no file. Send it as in: {_EXAMPLE}.",
                    "/image",
                )
    finally:
        await form.close()
    if "image" not in parts:
        raise QueryError(f"The part `image` is missing. Send it as in: {_EXAMPLE}.", "/image")
    for name, most in (("image", max_image_bytes), ("request", max_json_bytes)):
        if len(parts.get(name, b"")) > most:
            raise QueryError(f"The part `{name}` has more than {most:,} bytes. Send less.", f"/{name}")
    return Upload(parts["image"], parts.get("request"))


def largest_upload(max_image_bytes: int, max_json_bytes: int) -> int:
    """The largest body of a request that carries a picture, in bytes."""
    return max_image_bytes + max_json_bytes + _FRAMING_BYTES
