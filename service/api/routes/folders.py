"""What the library holds, at a glance: its folders, and what can be counted of its videos."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import ScopedRoute, SearchPrincipal
from service.api.schemas import Facets, FolderLevel
from service.api.seen import seen
from service.search import folders

router = APIRouter(tags=["videos"], route_class=ScopedRoute)


@router.get(
    "/v1/folders",
    operation_id="listFolders",
    summary="The folders that videos are in",
    responses=error_responses(404, 422, 503),
)
def list_folders(
    context: ContextDep,
    principal: SearchPrincipal,
    parent: Annotated[
        str | None,
        Query(description="The folder whose folders to list. Absent: the deepest that all videos are in."),
    ] = None,
) -> FolderLevel:
    """A folder and those directly in it, with the numbers and hours of the videos in each, however deep."""
    facts = seen(context, principal).selections.facts
    return FolderLevel.model_validate(folders.folder_level(facts, parent))


@router.get(
    "/v1/facets",
    operation_id="countVideos",
    summary="Codecs, verdicts and reasons, with the number of videos of each",
    responses=error_responses(503),
)
def count_videos(context: ContextDep, principal: SearchPrincipal) -> Facets:
    """What can be counted of the library's videos."""
    return Facets.model_validate(folders.facets(seen(context, principal).selections.facts))
