"""Encodes what the library holds as queries: a stored frame, a moment, a video.

Where a library stores the embeddings of frames (its bundle's saliences are embeddings), these are used: they
are of the whole picture, at index time. Otherwise a frame is its thumbnail, encoded again, which needs the
frame encoder; and a moment or a video is the mean of the stored embeddings of its segments.

Shapes: K segments, F frames, D joint space, S salience.
"""

import io
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.library.records import SegmentRecord, VideoRecord
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from model.runtime.messages import shorten
from service.errors import QueryError
from service.search.encoded_query import EncodedQuery
from service.search.picture_encoder import check_image_query, encode_pixels, of_frame, query_salience
from service.search.queries import FrameQuery, MomentQuery, VideoQuery
from service.search.span_frames import places_between

Value = TypeVar("Value", bound=np.generic)

# Of a longer example so many segments are read, evenly spread.
_MOST_SEGMENTS = 256


class _Example(NamedTuple):
    """Segments that stand for a moment or a video, how much each counts [K], and their frames."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    salience: NDArray[np.float32]


def encode_frame(
    bundle: Bundle,
    snapshot: Snapshot,
    frame: FrameQuery,
    *,
    images_allowed: bool,
    pointer: str = "/query",
) -> EncodedQuery:
    """Encode a stored frame: by its stored embedding, or where there is none by its thumbnail.

    A thumbnail is a JPEG with at most 320 pixels on its longer side, so the second way is less exact.

    Args:
        bundle: the snapshot's model.
        snapshot: holds the frame.
        frame: which frame.
        images_allowed: whether the settings allow that the frame encoder is opened.
        pointer: the JSON pointer of the query in the request.

    Raises:
        QueryError: there is no such frame.
        NoImageQueryError: no embedding is stored, and the thumbnail cannot be encoded.
        DamagedRowsError: the frame is damaged.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    row, place = _place_of(snapshot, frame, pointer)
    if _has_frame_embeddings(bundle):
        read = snapshot.segment_frames([row])
        salience = read.salience[0, place]
        return of_frame(bundle, salience[: bundle.manifest.embedding_dim], salience)
    check_image_query(bundle, is_allowed=images_allowed)
    thumbnail = snapshot.thumbnail(frame.frame_id) or b""
    with Image.open(io.BytesIO(thumbnail)) as image:
        return encode_pixels(bundle, np.array(image.convert("RGB")))


def encode_moment(
    bundle: Bundle,
    snapshot: Snapshot,
    moment: MomentQuery,
    pointer: str = "/query",
) -> EncodedQuery:
    """Encode a span of a video by its stored frames, as if it were a segment; for the arguments see above.

    Raises:
        QueryError: there is no such video, or the span lies outside of it.
        DamagedRowsError: a segment of it is damaged.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    rows = _spread(_rows_of_moment(snapshot, moment, pointer), _MOST_SEGMENTS)
    segments = snapshot.segments(rows)
    overlaps = [_overlap(segment, moment) for segment in segments]
    frames = [
        segment.frame_salience[places_between(segment, moment.start_seconds, moment.end_seconds)]
        for segment in segments
    ]
    if not sum(map(len, frames)):
        # Between two frames: those of the segments that it lies in stand for it.
        frames = [segment.frame_salience for segment in segments]
    example = _Example(rows, np.maximum(overlaps, 1e-9), np.concatenate(frames))
    if not _has_frame_embeddings(bundle):
        return _mean(bundle, snapshot, example)
    manifest = bundle.manifest
    chosen = _spread(example.salience, manifest.frames_per_segment)
    embeddings = np.ascontiguousarray(chosen[None, :, : manifest.embedding_dim])
    (embedding,) = bundle.encode_segments(embeddings, np.ones((1, len(chosen)), np.bool_))
    return EncodedQuery(embedding, query_salience(manifest, example.salience.mean(axis=0)))


def encode_video(
    bundle: Bundle,
    snapshot: Snapshot,
    video: VideoQuery,
    pointer: str = "/query",
) -> EncodedQuery:
    """Encode a video: the mean of the stored embeddings of its segments, by their seconds.

    For the arguments see above.

    Raises:
        QueryError: there is no such video, or it could not be indexed.
        DamagedRowsError: a segment of it is damaged.
        LibraryError: a table cannot be read.
    """
    _video(snapshot, video.video_id, pointer)
    segments = snapshot.segments(_spread(snapshot.segment_rows(video.video_id), _MOST_SEGMENTS))
    seconds = [max(segment.end_seconds - segment.start_seconds, 1e-9) for segment in segments]
    salience = np.concatenate([segment.frame_salience for segment in segments])
    rows = np.array([segment.row for segment in segments])
    return _mean(bundle, snapshot, _Example(rows, np.array(seconds), salience))


def example_rows(
    snapshot: Snapshot, example: FrameQuery | MomentQuery | VideoQuery | None
) -> NDArray[np.int64]:
    """The segments that an example is in, int64 [K], none for None.

    Raises:
        QueryError: it is not in the library.
    """
    match example:
        case FrameQuery():
            return np.array([_place_of(snapshot, example, "/query")[0]], np.int64)
        case MomentQuery():
            return _rows_of_moment(snapshot, example, "/query")
        case VideoQuery():
            return snapshot.segment_rows(example.video_id)
        case None:
            return np.empty(0, np.int64)


def _has_frame_embeddings(bundle: Bundle) -> bool:
    """Whether libraries of the bundle hold what its segment encoder reads of each frame."""
    return bundle.manifest.embedding_in_salience and not bundle.manifest.has_video_encoder


def _mean(bundle: Bundle, snapshot: Snapshot, example: _Example) -> EncodedQuery:
    """The weighted mean of segments' stored embeddings, and the mean of their frames' saliences."""
    stored = snapshot.segment_embeddings(example.rows)
    mean = example.weights @ stored
    embedding = np.zeros(bundle.manifest.embedding_dim, np.float32)
    # Where stored embeddings are cut, a query is compared by the same dimensions alone.
    embedding[: len(mean)] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return EncodedQuery(embedding, query_salience(bundle.manifest, example.salience.mean(axis=0)))


def _place_of(snapshot: Snapshot, frame: FrameQuery, pointer: str) -> tuple[int, int]:
    place = snapshot.frame_place(frame.frame_id)
    if place is None:
        raise QueryError(
            f"No stored frame has the id {shorten(frame.frame_id)}. The hits of a search list the ids; "
            "when a video is indexed again, its frames may get others.",
            f"{pointer}/frame_id",
        )
    return place


def _video(snapshot: Snapshot, video_id: str, pointer: str) -> VideoRecord:
    video = snapshot.video(video_id)
    if video is None:
        raise QueryError(
            f"No video has the id {shorten(video_id)}. GET /v1/videos lists the ids.", f"{pointer}/video_id"
        )
    if not video.num_segments:
        raise QueryError(
            f"The video {shorten(video_id)} could not be indexed ({video.verdict}: {video.reason}). Choose "
            "another one.",
            f"{pointer}/video_id",
        )
    return video


def _rows_of_moment(snapshot: Snapshot, moment: MomentQuery, pointer: str) -> NDArray[np.int64]:
    video = _video(snapshot, moment.video_id, pointer)
    rows = snapshot.segment_rows(moment.video_id, moment.start_seconds, moment.end_seconds)
    spans = snapshot.segment_spans(rows)
    # Those that only touch it hold nothing of it.
    rows = rows[(spans[:, 0] < moment.end_seconds) & (spans[:, 1] > moment.start_seconds)]
    if not len(rows):
        raise QueryError(
            f"Nothing of the video lies from {moment.start_seconds:g} s to {moment.end_seconds:g} s; it "
            f"lasts {video.duration_seconds:g} s. Choose a span of a hit.",
            f"{pointer}/start_seconds",
        )
    return rows


def _overlap(segment: SegmentRecord, moment: MomentQuery) -> float:
    start = max(segment.start_seconds, moment.start_seconds)
    return min(segment.end_seconds, moment.end_seconds) - start


def _spread(values: NDArray[Value], most: int) -> NDArray[Value]:
    """At most so many of the values, evenly spread."""
    if len(values) <= most:
        return values
    return values[((np.arange(most) + 0.5) * len(values) / most).astype(np.int64)]
