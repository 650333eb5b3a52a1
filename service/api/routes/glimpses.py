"""What the page shows when nothing is asked: random moments, pictures of videos, and examples of queries."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from model.runtime.messages import shorten
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, SearchPrincipal, require
from service.api.routes.frames import IMAGE_RESPONSES, SnapshotQuery, image_response
from service.api.routes.videos import VideoIdPath
from service.api.schemas import FrameId, ShownTitle, VideoId
from service.api.seen import read_seen
from service.errors import NotFoundError
from service.search.example_queries import ExampleSource, example_queries
from service.search.glimpses import poster_frame, random_glimpses
from service.search.searcher import Searcher
from service.search.video_finder import video_with_id

router = APIRouter(tags=["videos"], route_class=ScopedRoute)


class RandomMoment(BaseModel):
    """A moment that was drawn at random, with one frame."""

    model_config = ConfigDict(from_attributes=True)

    video_id: VideoId
    path: str = Field(description="Path of the video's file.")
    title: ShownTitle
    start_seconds: float
    end_seconds: float
    frame_id: FrameId
    pts_seconds: float = Field(description="When the frame is shown, in seconds.")


class RandomMoments(BaseModel):
    """Moments that were drawn at random, of different videos as far as there are enough."""

    moments: list[RandomMoment]
    snapshot: int = Field(description="Number of the snapshot that they are of.")


class ExampleQueryText(BaseModel):
    """A query that fits the library."""

    model_config = ConfigDict(from_attributes=True)

    text: str
    source: ExampleSource = Field(
        description="`seen`: of a list of things, one that many of the library's moments are nearest to. "
        "`tag`, `title`: one of the library's own."
    )


class ExampleQueries(BaseModel):
    """Queries that fit the library."""

    examples: list[ExampleQueryText]


Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number to return.")]


@router.get(
    "/v1/moments/random",
    operation_id="drawMoments",
    summary="Moments drawn at random",
    responses=error_responses(422, 503),
)
def draw_moments(
    context: ContextDep,
    principal: SearchPrincipal,
    limit: Limit = 12,
    seed: Annotated[
        int, Query(ge=0, le=2**32 - 1, description="The same seed draws the same moments of a snapshot.")
    ] = 0,
) -> RandomMoments:
    """Moments of the library, each as likely as any, with the frame in the middle of each."""
    number, moments = read_seen(
        context,
        principal,
        lambda s: (s.snapshot.number, random_glimpses(s.snapshot, limit, seed, s.names)),
    )
    return RandomMoments(moments=[RandomMoment.model_validate(moment) for moment in moments], snapshot=number)


@router.get(
    "/v1/examples",
    operation_id="listExamples",
    summary="Queries that fit the library",
    responses=error_responses(422, 503),
)
def list_examples(context: ContextDep, principal: SearchPrincipal, limit: Limit = 6) -> ExampleQueries:
    """Queries to begin with: what a search is likely to find in the library, its tags and its titles."""
    found = read_seen(context, principal, lambda s: example_queries(s, limit))
    return ExampleQueries(examples=[ExampleQueryText.model_validate(example) for example in found])


@router.head("/v1/videos/{video_id}/poster.jpg", include_in_schema=False)
@router.get(
    "/v1/videos/{video_id}/poster.jpg",
    operation_id="getPoster",
    summary="A picture of a video",
    response_class=Response,
    responses=IMAGE_RESPONSES,
)
def get_poster(
    video_id: VideoIdPath,
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("search", signable=True))],
    snapshot: SnapshotQuery = None,
) -> Response:
    """The thumbnail of a stored frame from the middle of the video. With `snapshot`, clients may cache it."""
    served, thumbnail = read_seen(context, principal, lambda s: (s.snapshot.number, _poster(s, video_id)))
    if thumbnail is None:
        raise NotFoundError(f"Nothing is stored of the pictures of video {shorten(video_id)}.")
    return image_response(thumbnail, request.headers, is_lasting=snapshot == served)


def _poster(searcher: Searcher, video_id: str) -> bytes | None:
    """The thumbnail that stands for a video; None: nothing is stored of its pictures."""
    video_with_id(searcher.snapshot, video_id)
    frame_id = poster_frame(searcher.snapshot, video_id)
    return None if frame_id is None else searcher.snapshot.thumbnail(frame_id)
