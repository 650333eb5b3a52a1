"""Converts search results and library records to the wire format."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter
from starlette.datastructures import Headers
from starlette.responses import Response

from indexer.library.records import VideoRecord, displayable
from service.api import schemas
from service.api.media import is_fresh
from service.api.principal import Principal
from service.live import LiveLibrary, ReloadOutcome
from service.readiness import Degradation, DegradationKind
from service.scrub import Scrub
from service.search.answering import why_no_answers
from service.search.picture_encoder import why_no_image_query
from service.search.results import (
    ALL_PARTS,
    AnswerResult,
    HitPart,
    LibraryWarningKind,
    SearchResult,
)
from service.search.views import PathNames

Told = TypeVar("Told", SearchResult, AnswerResult)
#: Ends the ETag of a video whose file could not be looked at.
_UNREAD = "-unread"
_SEARCH_RESULT = TypeAdapter(SearchResult)
_ANSWER_RESULT = TypeAdapter(AnswerResult)

#: What those are told who are no administrators: the full text names files.
_WARNINGS: Mapping[LibraryWarningKind, str] = {
    "damaged_segments": "Segments of the library are damaged, and left out.",
    "unreadable_tokens": "Nothing is re-ranked, because a part of the library is damaged.",
    "unreadable_texts": "No text was searched, because a part of the library is damaged.",
    "unreadable_curation": "What users say of videos, and keep out, may be out of date: it cannot be read.",
}
_DEGRADATIONS: Mapping[DegradationKind, str] = {
    "snapshot_refused": "A newer snapshot cannot be served.",
    "not_reranked": "No search is re-ranked.",
    "damaged_files": "A file of the library is damaged.",
    "damaged_rows": "A part of the library is damaged.",
    "media_missing": "A folder of videos is not there.",
}


def search_body(result: SearchResult, parts: frozenset[HitPart] = ALL_PARTS) -> bytes:
    """The result of a search for a text as JSON, which `schemas.SearchResponse` describes.

    Hits and moments have only these parts.

    The result is serialised without an instance of that schema: its fields are the same, and an answer can
    have thousands of frames.
    """
    left_out = ALL_PARTS - parts
    if not left_out:
        return _SEARCH_RESULT.dump_json(result)
    of_moment: dict[str, Any] = dict.fromkeys(left_out - {"moments"}, True)
    of_moments = True if "moments" in left_out else {"__all__": of_moment}
    of_steps = {"__all__": {"moment": of_moment}} if of_moment else set()
    of_hit = {**of_moment, "moments": of_moments, "steps": of_steps}
    return _SEARCH_RESULT.dump_json(result, exclude={"hits": {"__all__": of_hit}})


def answer_body(result: AnswerResult) -> bytes:
    """The answer to a question as JSON, which `schemas.AnswerResponse` describes."""
    return _ANSWER_RESULT.dump_json(result)


def as_told(result: Told, principal: Principal) -> Told:
    """A result with warnings that tell somebody no more than they may know."""
    if principal.is_admin:
        return result
    told = [replace(warning, message=_WARNINGS[warning.kind]) for warning in result.library_warnings]
    return replace(result, library_warnings=told)


def video(record: VideoRecord, names: PathNames) -> schemas.Video:
    """A video of the library; `names` says how paths look to whoever asks."""
    said, recording = record.annotation, record.recording
    files = [
        schemas.VideoFile(path=names.shown(displayable(file.path)), missing_since=file.missing_since)
        for file in record.files
    ]
    shown: dict[str, Any] = {
        "path": files[0].path,
        "files": files,
        "title": said.title or record.title,
        "file_title": record.title,
        "tags": list(said.tags),
        "note": said.note,
        "annotated_at": said.updated_at,
        "captured_at": recording.captured_at,
        "captured_source": recording.captured_source,
        "place": None if recording.place is None else schemas.Place(**asdict(recording.place)),
        "camera": recording.camera,
        "has_sound": recording.has_sound,
        "audio_codec": recording.audio_codec,
    }
    values = {name: getattr(record, name) for name in schemas.Video.model_fields.keys() - shown.keys()}
    return schemas.Video(**values, **shown)


def video_etag(record: VideoRecord, names: PathNames) -> str:
    """The ETag of a video: another one whenever anything that is said of it changes."""
    return f'"{hashlib.sha256(video(record, names).model_dump_json().encode()).hexdigest()[:32]}"'


def video_etags(record: VideoRecord, names: PathNames) -> tuple[str, str]:
    """The ETags of what is said of a video now, by users and by the library: with its file read, and not."""
    etag = video_etag(record, names)
    return etag, f'{etag[:-1]}{_UNREAD}"'


def changed_video(record: VideoRecord, names: PathNames) -> Response:
    """A video that was changed, with its new ETag."""
    headers = {"etag": video_etag(record, names), "cache-control": "private, no-cache"}
    return Response(video(record, names).model_dump_json(), media_type="application/json", headers=headers)


def video_response(
    record: VideoRecord,
    names: PathNames,
    playable: bool | None,
    why_not: str | None,
    url: str,
    request: Headers,
) -> Response:
    """A video with its ETag and how it can be played, or 304 where the client's copy is up to date.

    `url` is the video's own.
    """
    etag = video_etags(record, names)[playable is None]
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if is_fresh(request, etag):
        return Response(status_code=304, headers=headers)
    details = schemas.VideoDetails(
        **video(record, names).model_dump(),
        playable=playable,
        not_playable_because=why_not,
        media_url=f"{url}/media",
        stream_url=f"{url}/stream",
        clip_url=f"{url}/clip",
    )
    return Response(details.model_dump_json(), media_type="application/json", headers=headers)


def library_info(live: LiveLibrary, principal: Principal, *, writes: bool, jobs: bool) -> schemas.LibraryInfo:
    """The snapshot and the bundle that are served.

    `writes` and `jobs` tell whether the settings let clients change the library, and start indexing runs.

    Raises:
        NotReadyError: no snapshot is served.
    """
    searcher = live.searcher.seen_by(principal.view)
    snapshot, manifest = searcher.snapshot, searcher.bundle.manifest
    return schemas.LibraryInfo(
        snapshot=snapshot.number,
        created=snapshot.created,
        num_videos=snapshot.num_videos,
        num_segments=snapshot.num_visible_segments,
        hours=round(snapshot.hours, 4),
        bundle=schemas.BundleInfo(
            name=manifest.name,
            checksum=searcher.bundle.checksum,
            licence=manifest.licence,
            languages=None if manifest.text.languages is None else list(manifest.text.languages),
            # Its recipe may name folders.
            provenance=manifest.provenance.model_dump(mode="json") if principal.is_admin else {},
        ),
        cannot_rerank=searcher.cannot_rerank,
        cannot_answer=why_no_answers(searcher.bundle, snapshot),
        cannot_query_image=why_no_image_query(searcher.bundle, is_allowed=searcher.images_allowed),
        writes=writes and "index" in principal.scopes,
        jobs=jobs and "index" in principal.scopes,
        problem=live.problem
        if principal.is_admin or live.problem is None
        else _DEGRADATIONS["snapshot_refused"],
    )


def readiness(
    snapshot: int, degraded: Sequence[Degradation], scrub: Scrub | None, principal: Principal | None
) -> schemas.Readiness:
    """Searches are answered, and what is degraded, as `principal` may know it; None: a stranger."""
    is_admin = principal is not None and principal.is_admin
    may_count = principal is not None and "metrics" in principal.scopes
    kinds = dict.fromkeys(each.kind for each in degraded)
    shown = degraded if is_admin else [Degradation(kind, _DEGRADATIONS[kind]) for kind in kinds]
    return schemas.Readiness(
        status="degraded" if degraded else "ready",
        snapshot=snapshot,
        degraded=[schemas.Degradation(kind=each.kind, detail=each.detail) for each in shown],
        scrub=None
        if scrub is None or not may_count
        else schemas.ScrubState.model_validate(scrub.state, from_attributes=True),
    )


def reload_result(outcome: ReloadOutcome) -> schemas.ReloadResult:
    """The outcome of a reload."""
    return schemas.ReloadResult(snapshot=outcome.snapshot, changed=outcome.changed)
