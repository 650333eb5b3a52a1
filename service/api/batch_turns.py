"""Runs the searches of batches beside others: batches never take more than a part of the threads."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchTurns:
    """The turns of all batches of one app. Used in the event loop's thread alone.

    All batches together run half of the searches that may run at once, so that a search by itself finds a
    thread, whoever sends it. Batches take turns, search by search.
    """

    def __init__(self, search_threads: int) -> None:
        self._most = max(1, search_threads // 2)
        self._turn = asyncio.Semaphore(self._most)

    async def run(self, items: Sequence[Item], search: Callable[[Item], Awaitable[Result]]) -> list[Result]:
        """What `search` returns for each item, in their order. It must not raise an error.

        Raises:
            ExceptionGroup: `search` raised errors.
        """
        results: dict[int, Result] = {}
        waiting = iter(enumerate(items))

        async def take_turns() -> None:
            for place, item in waiting:
                # Waiters are served in the order in which they came: batches that wait alternate.
                async with self._turn:
                    results[place] = await search(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._most, len(items))):
                group.create_task(take_turns())
        return [results[place] for place in range(len(items))]
