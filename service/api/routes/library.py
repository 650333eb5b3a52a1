"""GET /v1/library and POST /v1/library/reload."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool

from service.api import answers
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, SearchPrincipal, require
from service.api.schemas import LibraryInfo, ReloadResult

router = APIRouter(tags=["library"], route_class=ScopedRoute)


@router.get(
    "/v1/library", operation_id="getLibrary", summary="The served library", responses=error_responses(503)
)
def get_library(context: ContextDep, principal: SearchPrincipal) -> LibraryInfo:
    """The snapshot and the bundle that are served."""
    settings = context.settings
    return answers.library_info(context.live, principal, writes=settings.writes, jobs=settings.jobs)


@router.post(
    "/v1/library/reload",
    operation_id="reloadLibrary",
    summary="Serve the newest snapshot",
    responses=error_responses(409, 415, 503),
)
async def reload_library(
    context: ContextDep, _: Annotated[Principal, Depends(require("index", action="library.reload"))]
) -> ReloadResult:
    """Load the newest snapshot. If it or its bundle cannot be opened, the one before is still served."""
    return answers.reload_result(await run_in_threadpool(context.live.reload))
