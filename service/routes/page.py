"""The web page and its files."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

STATIC = Path(__file__).parent.parent / "static"

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/")
async def page() -> FileResponse:
    """The search page."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})
