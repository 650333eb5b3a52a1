"""Stops work for a client that has left."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.types import Receive

#: The usual status in logs for a client that left before the answer.
CLIENT_LEFT = 499

Result = TypeVar("Result")


class ClientLeftError(Exception):
    """The client has left: nobody reads an answer."""


async def until_gone(receive: Receive) -> None:
    """Return when the client leaves. The request's body is passed over."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_here(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled when the client leaves.

    Raises:
        ClientLeftError: it has left.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        for each in (task, leaving):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each
