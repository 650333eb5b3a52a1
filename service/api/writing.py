"""Who may change the library over HTTP."""

from fastapi import Depends

from service.api.context import ContextDep
from service.errors import WritesOffError


async def _check_writes(context: ContextDep) -> None:
    """Let a request pass that changes the library.

    Raises:
        WritesOffError: the settings do not let clients do so.
    """
    if not context.settings.writes:
        raise WritesOffError(
            "This service does not let clients change the library. Start it with `reelfind serve --writes`, "
            "or set REELFIND_WRITES=1."
        )


#: A dependency of every route that changes the library.
WRITES = Depends(_check_writes)
