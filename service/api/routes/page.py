"""The web pages and their files."""

import os
from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.api.principal import OPEN, ScopedRoute

STATIC = Path(__file__).parents[2] / "static"

# Without this header, browsers may cache files as long as they like, and run an old script in a new page.
_ASK_AGAIN = {"cache-control": "no-cache"}

router = APIRouter(include_in_schema=False, route_class=ScopedRoute, dependencies=[Depends(OPEN)])


@router.head("/")
@router.get("/")
async def page() -> FileResponse:
    """The search page."""
    return FileResponse(STATIC / "index.html", headers=_ASK_AGAIN)


@router.head("/docs")
@router.get("/docs")
async def docs() -> FileResponse:
    """The description of the HTTP interface, for people."""
    return FileResponse(STATIC / "docs.html", headers=_ASK_AGAIN)


class PageFiles(StaticFiles):
    """The page's scripts and styles, mounted at `/static`."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, or 304, with the header that makes browsers ask again each time."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_ASK_AGAIN)
        return response
