"""Liveness, readiness and metrics, for monitoring."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service.api import answers
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import OPEN, Principal, ScopedRoute, identity_of, require
from service.api.schemas import Health, Readiness

router = APIRouter(tags=["operation"], route_class=ScopedRoute)


@router.head("/healthz", include_in_schema=False, dependencies=[Depends(OPEN)])
@router.get(
    "/healthz",
    operation_id="healthz",
    summary="Is the process alive?",
    responses=error_responses(),
    dependencies=[Depends(OPEN)],
)
async def healthz() -> Health:
    """Answers as long as the process runs, even if no snapshot is served."""
    return Health()


@router.head("/readyz", include_in_schema=False, dependencies=[Depends(OPEN)])
@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Are searches answered?",
    responses=error_responses(503),
    dependencies=[Depends(OPEN)],
)
async def readyz(request: Request, context: ContextDep) -> Readiness:
    """Tries a search, at most one every two seconds. Answers 503 with the reason unless it is answered.

    What does not work although searches are answered is listed: `status` is then `degraded`. `scrub` is for
    the scope `metrics`; the names of files in the details are for administrators.
    """
    snapshot, degraded = await context.readiness.check()
    return answers.readiness(snapshot, degraded, context.live.scrub, identity_of(request.scope).principal)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **error_responses(503)},
)
async def metrics(context: ContextDep, _: Annotated[Principal, Depends(require("metrics"))]) -> Response:
    """Metrics of requests, of the stages of searches, and of the served snapshot."""
    return Response(context.metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
