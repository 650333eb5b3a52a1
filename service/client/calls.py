"""Every request of the client. A method of `Client` and of `AsyncClient` is one of these functions, sent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import quote

import httpx

from service.client.call import Call, reading
from service.client.downloads import Download, Progress
from service.client.library_answers import (
    ExampleQueries,
    Facets,
    FolderLevel,
    Health,
    LibraryInfo,
    RandomMoments,
    Readiness,
    ReloadResult,
    SessionInfo,
    SignedUrlAnswer,
    TagList,
    Video,
    VideoDetails,
    VideoList,
)
from service.client.requests import (
    AnnotationChange,
    AnswerOptions,
    ListOptions,
    MomentsOptions,
    Query,
    SearchOptions,
    SearchRequest,
)
from service.client.search_answers import AnswerResponse, BatchResponse, SearchResponse

# A clip is encoded before its first byte is sent.
_CLIP_SECONDS = 600.0
_READ_VIDEO = reading(VideoDetails)


def search(
    query: str | Query | None = None, *, image: Path | bytes | None = None, **options: Unpack[SearchOptions]
) -> Call[SearchResponse]:
    """Find moments, or videos.

    Args:
        query: a text, or a query of another kind; None: the picture alone.
        image: a picture, as a file or its bytes, which `{"image": "upload"}` in the query stands for.
        options: see `SearchOptions`.

    Raises:
        OSError: the picture cannot be read.
    """
    return _searching("/v1/search", query, image, options)


def moments(
    video_id: str,
    query: str | Query | None = None,
    *,
    image: Path | bytes | None = None,
    **options: Unpack[MomentsOptions],
) -> Call[SearchResponse]:
    """Find moments of one video; see `search`.

    Raises:
        OSError: the picture cannot be read.
    """
    return _searching(f"{_video(video_id)}/moments", query, image, options)


def search_batch(
    searches: Sequence[str | SearchRequest], *, deadline_ms: int | None = None
) -> Call[BatchResponse]:
    """Answer up to 256 searches, each a text or a request; each has its own answer or problem."""
    requests = [{"query": {"text": each}} if isinstance(each, str) else each for each in searches]
    deadline = {} if deadline_ms is None else {"deadline_ms": deadline_ms}
    return Call("POST", "/v1/search/batch", reading(BatchResponse), body={"searches": requests, **deadline})


def answer(video_id: str, question: str, **options: Unpack[AnswerOptions]) -> Call[AnswerResponse]:
    """Answer a question about a video, or about a span of it."""
    body = {"question": {"text": question}, **options}
    return Call("POST", f"{_video(video_id)}/answer", reading(AnswerResponse), body=body)


def video_page(**options: Unpack[ListOptions]) -> Call[VideoList]:
    """List a page of the library's videos; see `ListOptions`.

    Raises:
        ValueError: `filter` is given together with `verdict`, `folder` or `text`, which it can say too.
    """
    if options.get("filter") is None:
        params: Any = {name: value for name, value in options.items() if name != "filter"}
        return Call("GET", "/v1/videos", reading(VideoList), params=params)
    if both := options.keys() & {"verdict", "folder", "text"}:
        raise ValueError(f"{', '.join(sorted(both))} beside a filter: say it in the filter")
    return Call("POST", "/v1/videos/list", reading(VideoList), body=options)


def video(video_id: str) -> Call[VideoDetails]:
    """What the library knows of a video, how it can be played, and the `etag` of what is said of it."""

    def read(response: httpx.Response) -> VideoDetails:
        return _READ_VIDEO(response).model_copy(update={"etag": response.headers.get("etag")})

    return Call("GET", _video(video_id), read)


def update_video(
    video_id: str, *, etag: str | None = None, **changes: Unpack[AnnotationChange]
) -> Call[Video]:
    """Change title, tags or note of a video: None removes, and what is not given stays.

    Args:
        video_id: the video.
        etag: of `video`: it is only changed if nobody else has changed it since (`ChangedError`).
        changes: see `AnnotationChange`.
    """
    # If the answer were lost, the same ETag would be refused.
    headers = {} if etag is None else {"if-match": etag}
    return Call(
        "PATCH", _video(video_id), reading(Video), body=changes, headers=headers, is_repeatable=etag is None
    )


def delete_video(video_id: str, *, media: bool = False) -> Call[None]:
    """Remove a video from the library; with `media`, its file too."""
    return Call(
        "DELETE",
        _video(video_id),
        lambda _response: None,
        params={"media": media or None},
        is_repeatable=False,
    )


def download_media(video_id: str, to: Path, *, progress: Progress | None = None) -> Call[Path]:
    """Save a video's file, and return its path.

    Args:
        video_id: the video.
        to: a file, which is replaced if it exists; or a folder, in which the file gets its own name.
        progress: is told the number of bytes that are done, and of all of them.

    Raises:
        OSError: the file cannot be written.
    """
    download = Download(to, video_id, progress)
    return Call("GET", f"{_video(video_id)}/media", download.path, download=download)


def download_clip(
    video_id: str, start: float, end: float, to: Path, *, progress: Progress | None = None
) -> Call[Path]:
    """Save the part of a video from `start` to `end`, in seconds, as an MP4 file; see `download_media`.

    Raises:
        OSError: the file cannot be written.
    """
    download = Download(to, f"{video_id}.mp4", progress)
    return Call(
        "GET",
        f"{_video(video_id)}/clip",
        download.path,
        params={"start": start, "end": end},
        download=download,
        answer_seconds=_CLIP_SECONDS,
    )


def frame(frame_id: str) -> Call[bytes]:
    """The thumbnail of a stored frame, as a JPEG image."""
    return Call("GET", f"/v1/frames/{quote(frame_id, safe='')}.jpg", lambda response: response.content)


def poster(video_id: str) -> Call[bytes]:
    """A picture of a video, as a JPEG image."""
    return Call("GET", f"{_video(video_id)}/poster.jpg", lambda response: response.content)


def folders(parent: str | None = None) -> Call[FolderLevel]:
    """The folders in a folder that have videos; None: in the deepest that all videos are in."""
    return Call("GET", "/v1/folders", reading(FolderLevel), params={"parent": parent})


def facets() -> Call[Facets]:
    """Codecs, containers, verdicts and reasons, with the number of videos of each."""
    return Call("GET", "/v1/facets", reading(Facets))


def tags(limit: int | None = None) -> Call[TagList]:
    """The tags that users gave, the most frequent first."""
    return Call("GET", "/v1/tags", reading(TagList), params={"limit": limit})


def library() -> Call[LibraryInfo]:
    """The snapshot and the bundle that are served."""
    return Call("GET", "/v1/library", reading(LibraryInfo))


def reload() -> Call[ReloadResult]:
    """Serve the newest snapshot."""
    return Call("POST", "/v1/library/reload", reading(ReloadResult), body={})


def random_moments(*, limit: int | None = None, seed: int | None = None) -> Call[RandomMoments]:
    """Moments drawn at random; the same seed draws the same ones of a snapshot."""
    return Call("GET", "/v1/moments/random", reading(RandomMoments), params={"limit": limit, "seed": seed})


def example_queries(limit: int | None = None) -> Call[ExampleQueries]:
    """Queries that fit the library."""
    return Call("GET", "/v1/examples", reading(ExampleQueries), params={"limit": limit})


def session() -> Call[SessionInfo]:
    """Who asks, by their key, and what they may do."""
    return Call("GET", "/v1/session", reading(SessionInfo))


def sign_url(url: str, *, expires_seconds: int = 3600) -> Call[SignedUrlAnswer]:
    """Let whoever has an address of a video's file or a frame get that, without a key, until it expires.

    Args:
        url: path and query, such as the `media_url` of a video.
        expires_seconds: for how long; the service has a maximum.
    """
    body = {"url": url, "expires_seconds": expires_seconds}
    return Call("POST", "/v1/signed-urls", reading(SignedUrlAnswer), body=body)


def health() -> Call[Health]:
    """Whether the service is alive."""
    return Call("GET", "/healthz", reading(Health))


def readiness() -> Call[Readiness]:
    """Whether searches are answered, and what does not work (`UnavailableError`: they are not)."""
    return Call("GET", "/readyz", reading(Readiness), is_repeatable=False)


def metrics() -> Call[str]:
    """The metrics, in the text format of Prometheus."""
    return Call("GET", "/metrics", lambda response: response.text)


def _searching(
    path: str, query: str | Query | None, image: Path | bytes | None, options: Mapping[str, Any]
) -> Call[SearchResponse]:
    asked = {"text": query} if isinstance(query, str) else query
    if asked is None and image is not None:
        asked = {"image": "upload"}
    return Call(
        "POST",
        path,
        reading(SearchResponse),
        body={**options} if asked is None else {"query": asked, **options},
        image=image.read_bytes() if isinstance(image, Path) else image,
    )


def _video(video_id: str) -> str:
    return f"/v1/videos/{quote(video_id, safe='')}"
