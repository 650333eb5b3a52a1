"""The read side of a library: one published, immutable state of it. Safe for many threads at once."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.errors import LibraryError
from indexer.files import sha256_of
from indexer.manifest import INDEX_FILE, SnapshotManifest, current_number, read_manifest, snapshot_folder
from indexer.records import SegmentRecord, Verdict, VideoRecord, displayable, parse_frame_id
from indexer.schema import fixed_to_numpy
from indexer.store import VERIFY_REMEDY, lance_errors, open_table, table_path

#: Files are hashed at opening until so many bytes are read, `segments.faiss` always; `verify` hashes all.
_HASHED_AT_OPENING = 64 << 20

_ALL_THREADS: int = faiss.omp_get_max_threads()
_LIGHT = ["video_id", "segment_index", "start_seconds", "end_seconds", "num_frames"]
_HIDDEN_VIDEO_COLUMNS = ("ingest_id", "mtime_ns", "num_frames", "path")


class Snapshot:
    """One published state of a library: opened once, never changed.

    Attributes:
        index: inner-product FAISS index; its row is the segment's row.
        video_rows: int32 [num_segments], the row of each segment's video in the list of all videos.
        num_videos: videos with segments; failures are listed by `videos` too, but not counted here.
    """

    def __init__(self, library: Path, manifest: SnapshotManifest, index: faiss.Index) -> None:
        self.library = library
        self.manifest = manifest
        self.number = manifest.number
        self.created: datetime = manifest.created_at
        self.bundle_checksum = manifest.bundle_checksum
        self.num_videos = manifest.num_videos
        self.num_segments = manifest.num_segments
        self.media_roots: tuple[Path, ...] = tuple(Path(root) for root in manifest.media_roots)
        self.index = index
        self._tables = {name: open_table(library, name, v) for name, v in manifest.tables.items()}
        with lance_errors(table_path(library, "videos")):
            videos = self._tables["videos"].to_table()
        # Listed by path: an order that stays as videos come and go.
        self._videos = videos.take(pc.sort_indices(videos["path"].combine_chunks())).combine_chunks()
        self._video_ids: list[str] = self._videos["video_id"].to_pylist()
        self._row_of_video = {video_id: row for row, video_id in enumerate(self._video_ids)}
        with lance_errors(table_path(library, "segments")):
            light = self._tables["segments"].to_table(columns=_LIGHT).combine_chunks()
        rows = pc.fill_null(pc.index_in(light["video_id"], self._videos["video_id"].combine_chunks()), -1)
        self.video_rows: NDArray[np.int32] = rows.to_numpy().astype(np.int32)
        self._segment_index: NDArray[np.int32] = light["segment_index"].to_numpy()
        self._start: NDArray[np.float64] = light["start_seconds"].to_numpy()
        self._end: NDArray[np.float64] = light["end_seconds"].to_numpy()
        counts = light["num_frames"].to_numpy().astype(np.int64)
        self._frame_offset: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        # Rows of one video's segments: a slice of `_by_video`, found by bisection.
        self._by_video = np.argsort(self.video_rows, kind="stable")
        self._sorted_video_rows = self.video_rows[self._by_video]
        self._check_counts()

    @classmethod
    def open(cls, library_path: Path | str, number: int | None = None) -> "Snapshot":
        """Open a snapshot, by default the one that CURRENT names.

        Raises:
            LibraryError: the library or the snapshot is missing, half-written or damaged; names the file
                and the remedy. Every file must be there in its size; `segments.faiss` and, up to 64 MiB
                in all, the other files must have their SHA-256.
        """
        library = Path(library_path)
        if number is not None:
            return cls._open(library, number)
        current = current_number(library)
        if current is None:
            raise LibraryError(_nothing_published(library))
        try:
            return cls._open(library, current)
        except LibraryError:
            newer = current_number(library)
            if newer in (None, current):
                raise
            # It was replaced, and perhaps removed, after CURRENT was read.
            return cls._open(library, newer)

    @classmethod
    def _open(cls, library: Path, number: int) -> "Snapshot":
        manifest = read_manifest(library, number)
        # An index file is hostile input to FAISS until its checksum is known to be ours.
        check_files(library, manifest)
        with lance_errors(library / manifest.index_name):
            index = faiss.read_index(str(snapshot_folder(library, number) / INDEX_FILE))
        return cls(library, manifest, index)

    @property
    def embedding_dim(self) -> int:
        """D: the size of an embedding."""
        return self.manifest.embedding_dim

    @property
    def salience_dim(self) -> int:
        """S: the size of a frame's salience."""
        return self.manifest.salience_dim

    @property
    def hours(self) -> float:
        """Hours of video that can be found."""
        searchable = self._videos.filter(pc.greater(self._videos["num_segments"], 0))
        return float(pc.sum(searchable["duration_seconds"]).as_py() or 0.0) / 3600

    def search(
        self, embeddings: NDArray[np.float32], num_candidates: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the segments nearest to each query embedding.

        Args:
            embeddings: Shape [B, D], L2-normalised.
            num_candidates: K, at least 1; more than there are segments is cut down to that number.

        Returns:
            Scores (cosines), best first, and segment rows, both [B, K]; rows are -1 where an approximate
            index found fewer.

        Raises:
            ValueError: the embeddings have another size, or K is not positive.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(
                f"embeddings of shape {embeddings.shape}, expected [B, {self.embedding_dim}]: "
                "encode the query with the library's bundle"
            )
        if num_candidates < 1:
            raise ValueError(f"num_candidates is {num_candidates}, must be at least 1")
        k = min(num_candidates, self.num_segments)
        if k == 0:
            empty = (len(embeddings), 0)
            return np.empty(empty, np.float32), np.empty(empty, np.int64)
        # OpenMP keeps this number for each calling thread. The service searches from several threads at
        # once, and on busy cores the threads of one query wait for each other longer than they work.
        faiss.omp_set_num_threads(1 if len(embeddings) == 1 else _ALL_THREADS)
        scores, rows = self.index.search(np.ascontiguousarray(embeddings, np.float32), k)
        return scores, rows

    def segments(self, rows: Sequence[int] | NDArray[np.int64]) -> list[SegmentRecord]:
        """Fetch segments by row, in the order of `rows`. LibraryError when the table cannot be read."""
        wanted = [int(row) for row in rows]
        for row in wanted:
            if not 0 <= row < self.num_segments:
                raise ValueError(f"segment row {row} is not in 0..{self.num_segments - 1}")
        if not wanted:
            return []
        with lance_errors(table_path(self.library, "segments")):
            table = self._tables["segments"].take(wanted, columns=["frame_pts_seconds", "frame_salience"])
        pts = fixed_to_numpy(table["frame_pts_seconds"]).astype(np.float64)
        salience = fixed_to_numpy(table["frame_salience"]).reshape(*pts.shape, -1).astype(np.float32)
        records = []
        for i, row in enumerate(wanted):
            count = int(self._frame_offset[row + 1] - self._frame_offset[row])
            records.append(
                SegmentRecord(
                    row=row,
                    video_id=self._video_ids[self.video_rows[row]],
                    segment_index=int(self._segment_index[row]),
                    start_seconds=float(self._start[row]),
                    end_seconds=float(self._end[row]),
                    frame_pts_seconds=pts[i, :count],
                    frame_salience=salience[i, :count],
                )
            )
        return records

    def segment_rows(self, video_id: str) -> NDArray[np.int64]:
        """Rows of a video's segments, in no promised order; empty for an unknown video."""
        video_row = self._row_of_video.get(video_id, -1)
        if video_row < 0:
            return np.empty(0, np.int64)
        first, end = np.searchsorted(self._sorted_video_rows, [video_row, video_row + 1])
        return self._by_video[first:end]

    def video(self, video_id: str) -> VideoRecord | None:
        """A video's record, failures included; None when it is not in the library."""
        row = self._row_of_video.get(video_id)
        return None if row is None else self._records(self._videos.slice(row, 1))[0]

    def label(self, video_id: str) -> tuple[str, str | None] | None:
        """A video's path and title as its record shows them, in a tenth of the time a record takes."""
        row = self._row_of_video.get(video_id)
        if row is None:
            return None
        path = Path(os.fsdecode(self._videos["path"][row].as_py()))
        return displayable(path), self._videos["title"][row].as_py()

    def video_at(self, row: int) -> VideoRecord:
        """The record at a row of the list of all videos, as in `video_rows`."""
        return self._records(self._videos.slice(row, 1))[0]

    def videos(self, offset: int, limit: int, verdict: Verdict | None = None) -> list[VideoRecord]:
        """A page of all videos ordered by path, failures included unless a verdict is asked for."""
        return self._records(self._with_verdict(verdict).slice(offset, limit))

    def count_videos(self, verdict: Verdict | None = None) -> int:
        """How many videos there are, failures included unless a verdict is asked for."""
        return int(self._with_verdict(verdict).num_rows)

    def thumbnail(self, frame_id: str) -> bytes | None:
        """A stored frame as JPEG, at most 320 pixels on its longer side; None when there is no such frame."""
        parts = parse_frame_id(frame_id)
        if parts is None:
            return None
        video_id, segment_index, frame_index = parts
        for row in self.segment_rows(video_id):
            if self._segment_index[row] == segment_index:
                frame_row = int(self._frame_offset[row]) + frame_index
                if frame_row >= self._frame_offset[row + 1]:
                    return None
                with lance_errors(table_path(self.library, "frames")):
                    table = self._tables["frames"].take([frame_row], columns=["thumbnail"])
                thumbnail: bytes = table["thumbnail"][0].as_py()
                return thumbnail
        return None

    def _with_verdict(self, verdict: Verdict | None) -> pa.Table:
        if verdict is None:
            return self._videos
        return self._videos.filter(pc.equal(self._videos["verdict"], verdict))

    def _records(self, table: pa.Table) -> list[VideoRecord]:
        records = []
        for row in table.to_pylist():
            file = Path(os.fsdecode(row["path"]))
            kept = {k: v for k, v in row.items() if k not in _HIDDEN_VIDEO_COLUMNS}
            kept["indexed_at"] = kept["indexed_at"].astimezone(UTC)
            records.append(VideoRecord(file=file, **kept))
        return records

    def _check_counts(self) -> None:
        segments, frames = len(self.video_rows), int(self._frame_offset[-1])
        found = {
            "index rows": self.index.ntotal,
            "segments": segments,
            "frames named by segments": frames,
            "frames": self._tables["frames"].count_rows(),
        }
        expected = dict.fromkeys(("index rows", "segments"), self.num_segments)
        expected |= dict.fromkeys(("frames named by segments", "frames"), self.manifest.num_frames)
        where = snapshot_folder(self.library, self.number)
        for what, count in found.items():
            if count != expected[what]:
                raise LibraryError(f"{where}: {count} {what}, expected {expected[what]}; {VERIFY_REMEDY}")
        if self.index.d != self.embedding_dim:
            raise LibraryError(
                f"{where}: the index has {self.index.d} dimensions, not {self.embedding_dim}; {VERIFY_REMEDY}"
            )
        if segments and int(self.video_rows.min()) < 0:
            raise LibraryError(f"{where}: segments without a video; {VERIFY_REMEDY}")


def check_files(library: Path, manifest: SnapshotManifest, hash_bytes: int = _HASHED_AT_OPENING) -> None:
    """Check that a snapshot's files are there in their sizes, and hash some, the index first.

    Raises:
        LibraryError: a file is missing or differs.
    """
    hashed = 0
    # The index always comes first, then the small tables' files, so that the budget covers the most files.
    ordered = sorted(manifest.files.items(), key=lambda item: (item[0] != manifest.index_name, item[1].bytes))
    for name, stamp in ordered:
        path = library / name
        try:
            size = path.stat().st_size
            if size != stamp.bytes:
                raise LibraryError(
                    f"{path} is damaged: {size} bytes, expected {stamp.bytes}; {VERIFY_REMEDY}"
                )
            if name == manifest.index_name or hashed + size <= hash_bytes:
                hashed += size
                if sha256_of(path) != stamp.sha256:
                    raise LibraryError(f"{path} is damaged: its SHA-256 differs; {VERIFY_REMEDY}")
        except OSError as error:
            raise LibraryError(f"{path} cannot be read: {error.strerror}; {VERIFY_REMEDY}") from error


def _nothing_published(library: Path) -> str:
    if not library.exists():
        return f"no library at {library}: create one with `reelfind index PATH --library {library}`"
    if not library.is_dir():
        return f"{library} is not a folder: --library names the folder that `reelfind index` writes"
    if (library / "videos.lance").exists():
        return (
            f"the library at {library} has no published snapshot: its first run was cut short; "
            "run `reelfind index` again, it continues"
        )
    return f"{library} is not a library: create one with `reelfind index PATH --library {library}`"
