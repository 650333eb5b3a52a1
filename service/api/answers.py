"""Makes what goes over the wire from what the search and the library answer."""

from pydantic import TypeAdapter

from indexer.library.records import VideoRecord
from service.api import schemas
from service.live import LiveLibrary, ReloadOutcome
from service.search.results import SearchResult

_SEARCH_RESULT = TypeAdapter(SearchResult)


def search_body(result: SearchResult) -> bytes:
    """The answer of a search for a text, as JSON that `schemas.SearchResponse` describes.

    It is written from the result itself, without a model in between: the fields are the same, and an answer
    can have thousands of frames.
    """
    return _SEARCH_RESULT.dump_json(result)


def video(record: VideoRecord) -> schemas.Video:
    """A file of the library."""
    return schemas.Video.model_validate(record, from_attributes=True)


def library_info(live: LiveLibrary) -> schemas.LibraryInfo:
    """What is served now.

    Raises:
        NotReadyError: nothing is.
    """
    searcher = live.searcher
    snapshot, manifest = searcher.snapshot, searcher.bundle.manifest
    return schemas.LibraryInfo(
        snapshot=snapshot.number,
        created=snapshot.created,
        num_videos=snapshot.num_videos,
        num_segments=snapshot.num_segments,
        hours=round(snapshot.hours, 4),
        bundle=schemas.BundleInfo(
            name=manifest.name,
            checksum=searcher.bundle.checksum,
            licence=manifest.licence,
            provenance=manifest.provenance.model_dump(mode="json"),
        ),
        cannot_rerank=searcher.cannot_rerank,
        problem=live.problem,
    )


def reload_result(outcome: ReloadOutcome) -> schemas.ReloadResult:
    """What became of a reload."""
    return schemas.ReloadResult(snapshot=outcome.snapshot, changed=outcome.changed)
