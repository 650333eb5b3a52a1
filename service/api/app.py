"""The HTTP application: `create_app` assembles its parts, the lifespan loads the models."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.concurrency import run_in_threadpool

from model.runtime.bundle import Bundle
from service.api.audit_trail import AuditTrail
from service.api.authentication import Authentication
from service.api.batch_turns import BatchTurns
from service.api.context import Context
from service.api.media import MediaFolders
from service.api.middleware import Envelope
from service.api.openapi_errors import describe_errors
from service.api.pool import SearchPool
from service.api.problems import install_problem_handlers
from service.api.routes import (
    batch,
    curation,
    folders,
    frames,
    glimpses,
    health,
    jobs,
    library,
    page,
    playback,
    questions,
    search,
    session,
    signed_urls,
    uploads,
    videos,
)
from service.api.search_processes.crew import Crew
from service.api.uploads import PICTURES_HELD, UploadBudget
from service.api.video_uploads import Arrivals
from service.jobs.queue import Jobs
from service.live import LiveLibrary, open_served_bundle
from service.metrics import Metrics
from service.playback.making import MediaMaker
from service.readiness import ReadinessProbe
from service.rights.audit import open_audit_log
from service.search.pages import Pages
from service.settings import Settings

logger = logging.getLogger("reelfind")

# How often former pages are let go of where no new snapshot is looked for.
_EXPIRE_SECONDS = 60.0

ROUTERS: Sequence[APIRouter] = (
    search.uploads,
    search.router,
    batch.router,
    questions.router,
    videos.router,
    playback.router,
    folders.router,
    curation.router,
    frames.router,
    glimpses.router,
    library.router,
    jobs.router,
    uploads.router,
    session.router,
    signed_urls.router,
    health.router,
    page.router,
)


def create_app(settings: Settings, bundle: Bundle | None = None, metrics: Metrics | None = None) -> FastAPI:
    """Create the app.

    Without a library it starts too, and answers 503 with the remedy until there is one.

    Args:
        settings: the service's settings.
        bundle: an open bundle; None: the lifespan opens that of the snapshot that is served.
        metrics: those that `/metrics` shows; None: new ones.

    Raises:
        InputError: the state folder or the audit log cannot be used.
        RightsError: keys or users cannot be read.
        JobStoreError: the file of jobs cannot be used.
    """
    shown = Metrics() if metrics is None else metrics
    authentication = Authentication(settings)
    audit = AuditTrail(open_audit_log(settings))
    media_folders = MediaFolders(settings)
    queue = Jobs(settings, media_folders.current) if settings.jobs else None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = await run_in_threadpool(open_served_bundle, settings) if bundle is None else bundle
        live = LiveLibrary(settings, opened, shown)
        crew = Crew(settings, shown)
        pool = SearchPool(
            settings.search_threads, settings.max_waiting_searches, live.cores, lambda: crew.capacity
        )
        shown.watch_searches(lambda: pool.waiting, lambda: pool.running)
        pages = Pages()
        maker = MediaMaker(settings, shown.show_encoders)
        app.state.context = Context(
            settings=settings,
            live=live,
            metrics=shown,
            pool=pool,
            crew=crew,
            readiness=ReadinessProbe(live),
            media_folders=media_folders,
            pages=pages,
            maker=maker,
            authentication=authentication,
            uploads=UploadBudget(PICTURES_HELD * settings.max_image_bytes),
            batch_turns=BatchTurns(settings.search_threads),
            jobs=queue,
            arrivals=Arrivals(),
        )
        await run_in_threadpool(live.poll)
        if queue is not None:
            queue.start(live.poll)
        watcher = asyncio.create_task(_watch(live, pages, crew, settings.reload_seconds))
        try:
            yield
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            if queue is not None:
                await run_in_threadpool(queue.close)
            maker.close()
            await crew.close()
            await run_in_threadpool(live.close)
            authentication.close()

    app = FastAPI(
        title="Reelfind",
        summary="Find videos, and moments in videos, by describing them.",
        version=version("reelfind"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # Both pages load scripts from another site; `routes/page.py` has one that does not.
        docs_url=None,
        redoc_url=None,
    )
    #: Set when the server is asked to stop: streams that last end then.
    app.state.is_stopping = False
    install_problem_handlers(app)
    describe_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", page.PageFiles(), name="static")
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "range",
                "if-match",
                "last-event-id",
                "upload-offset",
                "x-api-key",
            ],
            expose_headers=[
                "accept-ranges",
                "content-range",
                "etag",
                "location",
                "retry-after",
                "upload-offset",
            ],
        )
    app.add_middleware(
        Envelope,
        settings=settings,
        authentication=authentication,
        audit=audit,
        metrics=shown,
    )
    return app


async def _watch(live: LiveLibrary, pages: Pages, crew: Crew, seconds: float) -> None:
    """Let go of former pages and idle processes, and look for a new snapshot every `seconds`; 0: never."""
    while True:
        await asyncio.sleep(seconds or _EXPIRE_SECONDS)
        try:
            crew.release_idle()
            await run_in_threadpool(pages.expire)
            if seconds:
                await run_in_threadpool(live.poll, in_turn=True)
        except Exception:
            logger.exception("looking for a new snapshot failed; trying again in %g s", seconds)
