"""The objects that the routes of one app share, kept in `app.state.context`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.api.authentication import Authentication
from service.api.batch_turns import BatchTurns
from service.api.media import MediaFolders
from service.api.pool import SearchPool
from service.api.search_processes.crew import Crew
from service.api.uploads import UploadBudget
from service.api.video_uploads import Arrivals
from service.jobs.queue import Jobs
from service.live import LiveLibrary
from service.metrics import Metrics
from service.playback.making import MediaMaker
from service.readiness import ReadinessProbe
from service.search.pages import Pages
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The parts of an app, created in its lifespan."""

    settings: Settings
    live: LiveLibrary
    metrics: Metrics
    pool: SearchPool
    crew: Crew
    readiness: ReadinessProbe
    media_folders: MediaFolders
    pages: Pages
    maker: MediaMaker
    authentication: Authentication
    uploads: UploadBudget
    batch_turns: BatchTurns
    jobs: Jobs | None
    arrivals: Arrivals


async def get_context(request: Request) -> Context:
    """The context of the app that handles `request`."""
    context: Context = request.app.state.context
    return context


ContextDep = Annotated[Context, Depends(get_context)]
