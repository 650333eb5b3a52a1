"""GET /v1/library and POST /v1/library/reload."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from service.api.context import ContextDep
from service.api.openapi import problems
from service.api.schemas import BundleInfo, LibraryInfo, ReloadResult

router = APIRouter(tags=["library"])


@router.get("/v1/library", operation_id="getLibrary", summary="What is served", responses=problems(503))
def get_library(context: ContextDep) -> LibraryInfo:
    """The snapshot and the bundle that answer now."""
    searcher = context.engine.searcher
    snapshot, manifest = searcher.snapshot, searcher.bundle.manifest
    return LibraryInfo(
        snapshot=snapshot.number,
        created=snapshot.created,
        num_videos=snapshot.num_videos,
        num_segments=snapshot.num_segments,
        hours=round(snapshot.hours, 4),
        bundle=BundleInfo(
            name=manifest.name,
            checksum=searcher.bundle.checksum,
            licence=manifest.licence,
            provenance=manifest.provenance.model_dump(mode="json"),
        ),
        cannot_rerank=searcher.cannot_rerank,
        problem=context.engine.problem,
    )


@router.post(
    "/v1/library/reload",
    operation_id="reloadLibrary",
    summary="Serve the newest snapshot",
    responses=problems(409, 503),
)
async def reload_library(context: ContextDep) -> ReloadResult:
    """Load the snapshot that CURRENT names; where it cannot be trusted the one before is served on."""
    return await run_in_threadpool(context.engine.reload)
