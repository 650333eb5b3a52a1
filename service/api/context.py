"""What the routes of one app share, kept in `app.state.context`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.api.pool import SearchPool
from service.live import LiveLibrary
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The app's parts; made in its lifespan."""

    settings: Settings
    live: LiveLibrary
    metrics: Metrics
    pool: SearchPool


async def get_context(request: Request) -> Context:
    """The running app's context."""
    context: Context = request.app.state.context
    return context


ContextDep = Annotated[Context, Depends(get_context)]
