"""A pool of threads for searches, with a limit to those that wait for a thread."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread

from service.errors import OverloadedError

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class SearchPool:
    """Runs functions in threads so that the event loop never waits for a model."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._limiter = CapacityLimiter(threads)
        self._max_waiting = max_waiting

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return self._limiter.statistics().tasks_waiting

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call the function in a thread and return its result.

        Raises:
            OverloadedError: as many calls as may wait are waiting already.
        """
        waiting = self.waiting
        if waiting >= self._max_waiting and self._limiter.available_tokens < 1:
            raise OverloadedError(
                f"{waiting} searches are waiting already, which is the limit. Try again in a moment, or "
                "raise REELFIND_SEARCH_THREADS or REELFIND_MAX_WAITING_SEARCHES."
            )
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)
