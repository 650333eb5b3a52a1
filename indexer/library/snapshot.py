"""Reads a library: one published, immutable state of it. Many threads may use it at once."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.catalog import VideoCatalog, VideoLabel
from indexer.library.errors import VERIFY_REMEDY, LibraryError, opening_errors, storage_errors
from indexer.library.manifest import (
    SnapshotManifest,
    check_files,
    current_number,
    published_number,
    read_snapshot_manifest,
    snapshot_folder,
)
from indexer.library.records import SegmentRecord, Verdict, VideoRecord, parse_frame_id
from indexer.library.tables import open_table, read_layout, table_path, take_fixed, take_tokens
from indexer.library.vectors.base import VectorIndex
from indexer.library.vectors.registry import vector_backend

#: The columns of `segments` that a snapshot holds in memory.
_LIGHT_COLUMNS = ["video_id", "segment_index", "start_seconds", "end_seconds", "num_frames"]


class Snapshot:
    """One published state of a library: it is opened once and never changes.

    Attributes:
        index: the segments' embeddings; the key of an embedding is its segment's row.
        video_rows: int32 [num_segments], the row of each segment's video in the list of all videos.
        num_videos: videos with segments. `videos` also lists failures, which do not count here.
    """

    def __init__(self, library: Path, manifest: SnapshotManifest, index: VectorIndex) -> None:
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
        self._layout = read_layout(library, self._tables)
        with storage_errors(table_path(library, "videos")):
            self._videos = VideoCatalog(self._tables["videos"].to_table())
        with storage_errors(table_path(library, "segments")):
            light = self._tables["segments"].to_table(columns=_LIGHT_COLUMNS).combine_chunks()
        self.video_rows: NDArray[np.int32] = self._videos.rows_of(light["video_id"])
        self._segment_index: NDArray[np.int32] = light["segment_index"].to_numpy()
        self._start: NDArray[np.float64] = light["start_seconds"].to_numpy()
        self._end: NDArray[np.float64] = light["end_seconds"].to_numpy()
        counts = light["num_frames"].to_numpy().astype(np.int64)
        self._frame_offset: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        # The segment rows of one video are a slice of `_by_video`, found by bisection.
        self._by_video = np.argsort(self.video_rows, kind="stable")
        self._sorted_video_rows = self.video_rows[self._by_video]
        self._check_counts()

    @classmethod
    def open(cls, library_path: Path | str, number: int | None = None) -> "Snapshot":
        """Open a snapshot, by default the one that CURRENT names.

        Raises:
            LibraryError: the library or the snapshot is missing, half-written or damaged; the message names
                the file and the remedy. The size of every file is checked, and the SHA-256 of the files of
                the vector index and of others up to 64 MiB in all.
        """
        library = Path(library_path)
        if number is not None:
            return cls._open(library, number)
        current = published_number(library)
        try:
            return cls._open(library, current)
        except LibraryError:
            newer = current_number(library)
            if newer in (None, current):
                raise
            # Another snapshot was published, and this one perhaps removed, after CURRENT was read.
            return cls._open(library, newer)

    @classmethod
    def _open(cls, library: Path, number: int) -> "Snapshot":
        manifest = read_snapshot_manifest(library, number)
        # A damaged index file can crash its backend: check the files first.
        check_files(library, manifest)
        return cls.of_checked(library, manifest)

    @classmethod
    def of_checked(cls, library: Path, manifest: SnapshotManifest) -> "Snapshot":
        """Open the snapshot of a manifest whose files are known to be whole.

        Raises:
            LibraryError: tables or index do not fit the manifest.
        """
        folder = snapshot_folder(library, manifest.number)
        with opening_errors(folder):
            return cls(library, manifest, vector_backend(manifest.index_backend).open(folder))

    @property
    def embedding_dim(self) -> int:
        """D: the size of an embedding."""
        return self.manifest.embedding_dim

    @property
    def salience_dim(self) -> int:
        """S: the size of a frame's salience."""
        return self.manifest.salience_dim

    @property
    def tokens_per_frame(self) -> int:
        """P': stored tokens of a frame; 0: none are stored."""
        return self._layout.tokens_per_frame

    @property
    def hours(self) -> float:
        """Hours of video that a search can find."""
        return self._videos.hours

    def search(
        self,
        embeddings: NDArray[np.float32],
        num_candidates: int,
        *,
        allowed: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the segments nearest to each query embedding.

        Args:
            embeddings: Shape [B, D], L2-normalised.
            num_candidates: K, at least 1; cut to the number of segments.
            allowed: segment rows to search among, ascending and without repeats; None: all rows.

        Returns:
            Scores (cosines), best first, and segment rows, both [B, K]; rows are -1 where an approximate
            index found fewer.

        Raises:
            ValueError: the embeddings have a wrong shape, K is not positive, or an allowed row does not
                exist.
            LibraryError: this kind of index cannot search among chosen rows.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(
                f"embeddings of shape {embeddings.shape}, expected [B, {self.embedding_dim}]: "
                "encode the query with the library's bundle"
            )
        if num_candidates < 1:
            raise ValueError(f"num_candidates is {num_candidates}: it must be at least 1")
        return self.index.search(embeddings, num_candidates, allowed=allowed)

    def segments(self, rows: Sequence[int] | NDArray[np.int64]) -> list[SegmentRecord]:
        """Fetch segments by row, in the order of `rows`. LibraryError when the table cannot be read."""
        row_array = self._checked(rows)
        if not len(row_array):
            return []
        columns = ["frame_pts_seconds", "frame_salience"]
        pts, stored = take_fixed(
            self._tables["segments"], table_path(self.library, "segments"), row_array, columns
        )
        salience = stored.reshape(*pts.shape, -1).astype(np.float32)
        records = []
        for i, row in enumerate(row_array.tolist()):
            count = int(self._frame_offset[row + 1] - self._frame_offset[row])
            records.append(
                SegmentRecord(
                    row=row,
                    video_id=self._videos.id_at(int(self.video_rows[row])),
                    segment_index=int(self._segment_index[row]),
                    start_seconds=float(self._start[row]),
                    end_seconds=float(self._end[row]),
                    frame_pts_seconds=pts[i, :count],
                    frame_salience=salience[i, :count],
                )
            )
        return records

    def candidate_salience(
        self, rows: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The frames' salience vectors of many segments, from which salient frames are chosen.

        Args:
            rows: int64, shape [K]: the segments.

        Returns:
            Salience vectors, float32 [K, N, S], zero beyond a segment's frames, and the number of frames of
            each segment, int64 [K].

        Raises:
            ValueError: a row does not exist.
            LibraryError: the table cannot be read.
        """
        row_array = self._checked(rows)
        counts = self._frame_offset[row_array + 1] - self._frame_offset[row_array]
        shape = (len(row_array), self._layout.frames_per_segment, self.salience_dim)
        if not len(row_array):
            return np.zeros(shape, np.float32), counts
        where = table_path(self.library, "segments")
        (salience,) = take_fixed(self._tables["segments"], where, row_array, ["frame_salience"])
        return salience.reshape(shape).astype(np.float32), counts

    def frame_tokens(
        self,
        segment_rows: Sequence[int] | NDArray[np.int64],
        frame_indices: Sequence[int] | NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """The stored tokens of frames, in the order of the arguments, as the matcher reads them.

        Args:
            segment_rows: int64, shape [K]: each frame's segment; rows may repeat.
            frame_indices: int64, shape [K]: each frame's position within its segment.

        Returns:
            float32, shape [K, P', H].

        Raises:
            ValueError: a segment or a frame does not exist, or the arguments differ in length.
            LibraryError: the library stores no tokens, or the table cannot be read.
        """
        if not self.tokens_per_frame:
            raise LibraryError(
                f"the library at {self.library} stores no frame tokens: index into a new folder with a "
                "bundle that has a matcher, without `--tokens none`"
            )
        segments = self._checked(segment_rows)
        frames = np.asarray(frame_indices, np.int64).reshape(-1)
        if len(frames) != len(segments):
            raise ValueError(f"{len(frames)} frame indices for {len(segments)} segment rows")
        first, end = self._frame_offset[segments], self._frame_offset[segments + 1]
        for i in np.flatnonzero((frames < 0) | (frames >= end - first))[:1]:
            raise ValueError(
                f"frame {frames[i]} of segment row {segments[i]} is not in 0..{end[i] - first[i] - 1}"
            )
        where = table_path(self.library, "frames")
        return take_tokens(self._tables["frames"], where, first + frames, self._layout)

    def _checked(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        row_array = np.asarray(rows, np.int64).reshape(-1)
        wrong = row_array[(row_array < 0) | (row_array >= self.num_segments)]
        if len(wrong):
            raise ValueError(f"segment row {wrong[0]} is not in 0..{self.num_segments - 1}")
        return row_array

    def segment_rows(self, video_id: str) -> NDArray[np.int64]:
        """The rows of a video's segments, in any order; empty for an unknown video."""
        video_row = self._videos.row_of(video_id)
        if video_row is None:
            return np.empty(0, np.int64)
        first, end = np.searchsorted(self._sorted_video_rows, [video_row, video_row + 1])
        return self._by_video[first:end]

    def video(self, video_id: str) -> VideoRecord | None:
        """A video's record, failures included; None when it is not in the library."""
        return self._videos.record(video_id)

    def label(self, video_id: str) -> VideoLabel | None:
        """What a hit says of a video, ten times as fast as the record; None when it is not in the library."""
        return self._videos.label(video_id)

    def videos(self, offset: int, limit: int, verdict: Verdict | None = None) -> list[VideoRecord]:
        """A page of the videos with `verdict`, or of all, failures included; ordered by path."""
        return self._videos.page(offset, limit, verdict)

    def count_videos(self, verdict: Verdict | None = None) -> int:
        """How many videos have `verdict`, or how many there are, failures included."""
        return self._videos.count(verdict)

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
                with storage_errors(table_path(self.library, "frames")):
                    table = self._tables["frames"].take([frame_row], columns=["thumbnail"])
                thumbnail: bytes = table["thumbnail"][0].as_py()
                return thumbnail
        return None

    def _check_counts(self) -> None:
        """Raise a LibraryError unless tables and index have as many rows as the manifest states."""
        where, manifest = snapshot_folder(self.library, self.number), self.manifest
        for what, count, expected in (
            ("index rows", self.index.num_rows, manifest.num_segments),
            ("segments", len(self.video_rows), manifest.num_segments),
            ("frames named by segments", int(self._frame_offset[-1]), manifest.num_frames),
            ("frames", self._tables["frames"].count_rows(), manifest.num_frames),
        ):
            if count != expected:
                raise LibraryError(f"{where}: {count} {what}, expected {expected}; {VERIFY_REMEDY}")
        if self.index.dim != manifest.embedding_dim:
            raise LibraryError(
                f"{where}: the index has {self.index.dim} dimensions, not {manifest.embedding_dim}; "
                f"{VERIFY_REMEDY}"
            )
        if self.num_segments and int(self.video_rows.min()) < 0:
            raise LibraryError(f"{where}: segments without a video; {VERIFY_REMEDY}")
