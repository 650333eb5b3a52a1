"""Answers of the service about videos, the library and the service itself; see `search_answers`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from service.client.search_answers import Answer, Place


class VideoFile(Answer):
    """A place where a video is, or was."""

    path: str
    missing_since: datetime | None = None


class Video(Answer):
    """A video of the library: one content, however many copies it has."""

    video_id: str
    path: str
    files: list[VideoFile]
    missing: bool
    title: str | None = None
    file_title: str | None = None
    tags: list[str]
    note: str | None = None
    annotated_at: datetime | None = None
    captured_at: datetime | None = None
    captured_source: str | None = None
    place: Place | None = None
    camera: str | None = None
    has_sound: bool | None = None
    audio_codec: str | None = None
    verdict: str
    reason: str | None = None
    bytes: int
    sha256: str
    duration_seconds: float
    fps: float
    width: int
    height: int
    codec: str
    container: str
    num_segments: int
    indexed_at: datetime
    container_start_seconds: float | None = None


class VideoList(Answer):
    """A page of the library's videos."""

    videos: list[Video]
    total: int
    hours: float
    snapshot: int
    next_page_token: str | None = None


class VideoDetails(Video):
    """A video, and how it can be played."""

    playable: bool | None = None
    not_playable_because: str | None = None
    media_url: str
    stream_url: str
    clip_url: str
    #: The version of what is said of the video, for `update_video`; the header of the answer has it.
    etag: str | None = Field(None, exclude=True)


class FacetValue(Answer):
    """A value of a field."""

    value: str
    num_videos: int


class Failure(Answer):
    """A reason why videos cannot be searched, or not wholly."""

    verdict: str
    reason: str
    num_videos: int


class Facets(Answer):
    """What can be counted of the library's videos, up to 100 values each, the most frequent first."""

    num_videos: int
    values: dict[str, list[FacetValue]]
    failures: list[Failure]


class FolderInfo(Answer):
    """A folder with the videos in it, however deep."""

    path: str
    num_videos: int
    hours: float
    has_folders: bool


class FolderLevel(Answer):
    """A folder and those directly in it."""

    folder: FolderInfo
    folders: list[FolderInfo]


class Health(Answer):
    """The process is alive."""

    status: str = "alive"


class BundleInfo(Answer):
    """The bundle that is served."""

    name: str
    checksum: str
    licence: str
    languages: list[str] | None = None
    provenance: dict[str, Any]


class LibraryInfo(Answer):
    """The snapshot that is served."""

    snapshot: int
    created: datetime
    num_videos: int
    num_segments: int
    hours: float
    bundle: BundleInfo
    cannot_rerank: str | None = None
    cannot_answer: str | None = None
    cannot_query_image: str | None = None
    problem: str | None = None
    writes: bool
    jobs: bool


class Degradation(Answer):
    """One thing that does not work although searches are answered."""

    kind: str
    detail: str


class ScrubState(Answer):
    """How far the scrub is, which compares all files of the library with their checksums."""

    round_hours: float
    files: int
    files_checked: int
    bytes: int
    bytes_checked: int
    finished: datetime | None = None


class Readiness(Answer):
    """Searches are answered."""

    status: str
    snapshot: int
    degraded: list[Degradation]
    scrub: ScrubState | None = None


class ReloadResult(Answer):
    """The snapshot that is served after a reload."""

    snapshot: int
    changed: bool


class RandomMoment(Answer):
    """A moment that was drawn at random, with one frame."""

    video_id: str
    path: str
    title: str | None = None
    start_seconds: float
    end_seconds: float
    frame_id: str
    pts_seconds: float


class RandomMoments(Answer):
    """Moments that were drawn at random, of different videos as far as there are enough."""

    moments: list[RandomMoment]
    snapshot: int


class ExampleQueryText(Answer):
    """A query that fits the library."""

    text: str
    source: str


class ExampleQueries(Answer):
    """Queries that fit the library."""

    examples: list[ExampleQueryText]


class SessionInfo(Answer):
    """Who asks, and what they may do."""

    auth: str
    via: str | None = None
    name: str | None = None
    scopes: list[str]
    folder: str | None = None
    expires_at: datetime | None = None


class SignedUrlAnswer(Answer):
    """A signed address: path and query, before which the service's own address stands."""

    url: str
    expires_at: datetime


class TagCount(Answer):
    """A tag, as it is written most often."""

    tag: str
    num_videos: int


class TagList(Answer):
    """Tags, the most frequent first."""

    tags: list[TagCount]
    total: int
