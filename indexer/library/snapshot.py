"""Reads a library: one published, immutable state of it. Many threads may use it at once."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.catalog import VideoCatalog, VideoLabel
from indexer.library.checked_rows import CheckedRows, RowNames
from indexer.library.checksums import CHECKSUMS, stored_checksums
from indexer.library.curation import NOTHING, CurationState
from indexer.library.errors import (
    REPAIR_REMEDY,
    VERIFY_REMEDY,
    LibraryError,
    opening_errors,
    storage_errors,
)
from indexer.library.lance_tables import reading
from indexer.library.leases import Lease, hold
from indexer.library.lines import SnapshotLines
from indexer.library.manifest import (
    SnapshotManifest,
    check_files,
    check_not_former,
    current_number,
    published_number,
    read_snapshot_manifest,
    snapshot_folder,
    tables_folder,
)
from indexer.library.records import (
    SegmentRecord,
    TextLine,
    Verdict,
    VideoRecord,
    frame_id_of,
    parse_frame_id,
)
from indexer.library.row_cache import RowCache
from indexer.library.schema import SHORT_COLUMNS, LineKind, floats_to_numpy, segment_checksum, short_rows
from indexer.library.tables import open_table, read_layout, table_path, whole_table
from indexer.library.vectors.base import VectorIndex
from indexer.library.vectors.registry import vector_backend
from model.runtime.ranking import cut_embeddings
from model.runtime.remote.path import media_path
from model.runtime.tokens import QuantisedTokens, dequantise


@dataclass(frozen=True, eq=False)
class SegmentFrames:
    """What is stored of the frames of K segments. N frames a segment at most, S the size of a salience.

    Attributes:
        rows: the segments, int64 [K].
        counts: how many frames each has, int64 [K]; what follows is 0 beyond them.
        pts_seconds: when each frame is shown, in seconds, [K, N].
        salience: the frames' salience vectors, float32 [K, N, S]; S is 0 where none are stored.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    salience: NDArray[np.float32]

    def at(self, places: Sequence[int]) -> "SegmentFrames":
        """Those at these places, in this order."""
        chosen = list(places)
        return SegmentFrames(
            self.rows[chosen], self.counts[chosen], self.pts_seconds[chosen], self.salience[chosen]
        )

    def places(self) -> "dict[int, tuple[SegmentFrames, int]]":
        """Where each row is: in these arrays, and at which place."""
        return {row: (self, place) for place, row in enumerate(self.rows.tolist())}


class Snapshot:
    """One published state of a library: it is opened once and never changes.

    Attributes:
        index: the segments' embeddings, see `SegmentVectors`; the key of one is its segment's row.
        hubness: float32 [num_segments], the hubness of each segment, see `Bundle.hubness`; None: the bundle
            corrects none.
        video_rows: int32 [num_segments], the row of each segment's video in the list of all videos.
        damaged_files: what was found wrong with files when the snapshot was opened, by their names relative
            to the library.
        num_videos: videos with segments. `videos` also lists failures, which do not count here.
        curation: what users say, and keep out; a `CuratedSnapshot` follows it.
    """

    curation: CurationState = NOTHING

    def __init__(
        self, library: Path, manifest: SnapshotManifest, index: VectorIndex, lease: Lease | None = None
    ) -> None:
        self.library = library
        self.manifest = manifest
        self.number = manifest.number
        self.created: datetime = manifest.created_at
        self.bundle_checksum = manifest.bundle_checksum
        self.num_videos = manifest.num_videos
        self.num_segments = manifest.num_segments
        self.media_roots: tuple[Path, ...] = tuple(media_path(root) for root in manifest.media_roots)
        self.index = index
        self.damaged_files: dict[str, str] = {}
        # Nothing of the snapshot is removed while this object lives.
        self._lease = lease
        folder = tables_folder(library, manifest.generation)
        self._tables = {name: open_table(folder, name, v) for name, v in manifest.tables.items()}
        self._layout = read_layout(folder, self._tables)
        with reading(), storage_errors(table_path(folder, "videos")):
            self._videos = VideoCatalog(
                whole_table(self._tables["videos"]), whole_table(self._tables["files"])
            )
        with storage_errors(table_path(folder, "segments")):
            light = _read_light(self._tables["segments"], table_path(folder, "segments"))
        self.video_rows: NDArray[np.int32] = self._videos.rows_of_ingests(light["ingest_id"])
        self._segment_index: NDArray[np.int32] = light["segment_index"].to_numpy()
        self._start: NDArray[np.float64] = light["start_seconds"].to_numpy()
        self._end: NDArray[np.float64] = light["end_seconds"].to_numpy()
        self.hubness: NDArray[np.float32] | None = None
        if "hubness" in light.column_names:
            self.hubness = floats_to_numpy(light["hubness"])
        counts = light["num_frames"].to_numpy().astype(np.int64)
        self._frame_offset: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        # The segment rows of one video, in time order, are a slice of `_by_video`, found by bisection.
        self._by_video = np.lexsort((self._start, self.video_rows))
        self._sorted_video_rows = self.video_rows[self._by_video]
        self._place = np.empty(len(self._by_video), np.int64)
        self._place[self._by_video] = np.arange(len(self._by_video))
        names = RowNames(self._videos, self.video_rows, self._segment_index, self._start, self._frame_offset)
        self._segments = CheckedRows(
            folder, "segments", self._tables["segments"], names.segment_seeds, names.segment
        )
        self._frames = CheckedRows(folder, "frames", self._tables["frames"], names.frame_seeds, names.frame)
        self._lines = SnapshotLines(folder, self._tables.get("texts"), self._videos)
        self._check_counts()

    @classmethod
    def open(
        cls, library_path: Path | str, number: int | None = None, *, accept_damage: bool = False
    ) -> "Snapshot":
        """Open a snapshot, by default the one that CURRENT names.

        Args:
            library_path: the library's folder.
            number: the snapshot's.
            accept_damage: open it also where data files of segments or frames are damaged: `damaged_files`
                says so, and damaged rows are refused when they are read.

        Raises:
            LibraryError: the library or the snapshot is missing, half-written or damaged; the message names
                the file and the remedy. For what is checked, see `check_files`.
        """
        library = Path(library_path)
        if number is not None:
            return cls._open(library, number, accept_damage)
        current = published_number(library)
        try:
            return cls._open(library, current, accept_damage)
        except LibraryError:
            newer = current_number(library)
            if newer in (None, current):
                raise
            # Another snapshot was published, and this one perhaps removed, after CURRENT was read.
            return cls._open(library, newer, accept_damage)

    @classmethod
    def _open(cls, library: Path, number: int, accept_damage: bool) -> "Snapshot":
        lease = hold(snapshot_folder(library, number))
        manifest = read_snapshot_manifest(library, number)
        # A damaged index file can crash its backend: check the files first.
        check_not_former(library, manifest)
        damaged = check_files(library, manifest)
        # In an object store, what can be held on this computer is the copy that is there now.
        lease = lease or hold(snapshot_folder(library, number))
        if damaged and not accept_damage:
            raise LibraryError(f"{next(iter(damaged.values()))}; {VERIFY_REMEDY}")
        snapshot = cls.of_checked(library, manifest, lease)
        if damaged:
            snapshot.damaged_files = damaged
            snapshot.distrust(damaged)
        return snapshot

    @classmethod
    def of_checked(cls, library: Path, manifest: SnapshotManifest, lease: Lease | None = None) -> "Snapshot":
        """Open the snapshot of a manifest whose files are known to be whole.

        Raises:
            LibraryError: tables or index do not fit the manifest.
        """
        folder = snapshot_folder(library, manifest.number)
        with opening_errors(folder):
            return cls(library, manifest, vector_backend(manifest.index_backend).open(folder), lease)

    @property
    def catalog(self) -> VideoCatalog:
        """All videos, failures included."""
        return self._videos

    @property
    def num_visible_segments(self) -> int:
        """How many segments there are that are not hidden."""
        return self.num_segments

    @property
    def embedding_dim(self) -> int:
        """The size of a stored embedding: D of the bundle, or fewer dimensions."""
        return self.manifest.embedding_dim

    @property
    def is_cut(self) -> bool:
        """Whether embeddings are cut to fewer dimensions than the bundle gives them."""
        return self._layout.full_embedding_dim is not None

    def cut(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of the bundle as the library compares them. [B, D] → [B, `embedding_dim`].

        Raises:
            ValueError: they have another shape.
        """
        expected = self._layout.full_embedding_dim or self.embedding_dim
        if embeddings.ndim != 2 or embeddings.shape[1] != expected:
            raise ValueError(
                f"embeddings of shape {embeddings.shape}, expected [B, {expected}]: "
                "encode the query with the library's bundle"
            )
        return cut_embeddings(embeddings, self.embedding_dim) if self.is_cut else embeddings

    @property
    def salience_dim(self) -> int:
        """S: the size of a frame's salience; 0: none is stored."""
        return self.manifest.salience_dim

    @property
    def tokens_per_frame(self) -> int:
        """P': stored tokens of a frame; 0: none are stored."""
        return self._layout.tokens_per_frame

    @property
    def hubness_weight(self) -> float:
        """The factor of the hubness that a search subtracts; 0: it subtracts none."""
        return self._layout.hubness_weight or 0.0

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
            embeddings: Shape [B, D], L2-normalised, as the bundle gives them.
            num_candidates: K, at least 1; cut to the number of segments.
            allowed: segment rows to search among, ascending and without repeats; None: all rows.

        Returns:
            Scores, best first, and segment rows, both [B, K]; rows are -1 where an approximate index found
            fewer. A score is the cosine less `hubness_weight` times the segment's hubness.

        Raises:
            ValueError: the embeddings have a wrong shape, K is not positive, or an allowed row does not
                exist.
            LibraryError: this kind of index cannot search among chosen rows.
        """
        embeddings = self.cut(embeddings)
        if num_candidates < 1:
            raise ValueError(f"num_candidates is {num_candidates}: it must be at least 1")
        if self.hubness is not None:
            # See `SegmentVectors`.
            embeddings = np.concatenate([embeddings, np.ones((len(embeddings), 1), np.float32)], axis=1)
        return self.index.search(embeddings, num_candidates, allowed=allowed)

    def scores_of(self, embedding: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores, as `search` gives them, of chosen segments for one query.

        Args:
            embedding: Shape [D], L2-normalised.
            rows: segment rows, without repeats, int64 [K].

        Returns:
            float32 [K]; -inf where an approximate index did not reach a segment.

        Raises:
            ValueError: the embedding has a wrong shape, or a row does not exist.
            LibraryError: the index cannot be read.
        """
        row_array = self._checked(rows)
        if not len(row_array):
            return np.empty(0, np.float32)
        vectors = self.index.vectors(row_array)
        if vectors is not None:
            (query,) = self.cut(embedding[None])
            query = query if self.hubness is None else np.append(query, np.float32(1))
            scores: NDArray[np.float32] = vectors @ query.astype(np.float32)
            return scores
        allowed = np.sort(row_array)
        found, found_rows = self.search(embedding[None], len(allowed), allowed=allowed)
        by_place = np.full(len(allowed), -np.inf, np.float32)
        is_row = found_rows[0] >= 0
        by_place[np.searchsorted(allowed, found_rows[0][is_row])] = found[0][is_row]
        return by_place[np.searchsorted(allowed, row_array)]

    def segment_frames(self, rows: Sequence[int] | NDArray[np.int64]) -> SegmentFrames:
        """What is stored of the frames of many segments, from which salient frames are chosen.

        Args:
            rows: int64, shape [K]: the segments.

        Raises:
            ValueError: a row does not exist.
            DamagedRowsError: some of the segments are damaged.
            LibraryError: the table cannot be read.
        """
        row_array = self._checked(rows)
        counts = self._frame_offset[row_array + 1] - self._frame_offset[row_array]
        most = self._layout.frames_per_segment
        shape = (len(row_array), most, self.salience_dim)
        if not len(row_array):
            return SegmentFrames(row_array, counts, np.zeros(shape[:2]), np.zeros(shape, np.float32))
        if not self.salience_dim:
            (pts,) = self._segments.take(row_array, "times")
            return SegmentFrames(row_array, counts, pts, np.zeros(shape, np.float32))
        pts, salience = self._segments.take(row_array, "times", "salience")
        return SegmentFrames(row_array, counts, pts, salience.reshape(shape).astype(np.float32))

    def segments(
        self, rows: Sequence[int] | NDArray[np.int64], known: SegmentFrames | None = None
    ) -> list[SegmentRecord]:
        """Fetch segments by row, in the order of `rows`; those that are in `known` are not read again.

        Raises:
            DamagedRowsError: some of them are damaged.
            LibraryError: the table cannot be read.
        """
        row_array = self._checked(rows)
        found = {} if known is None else known.places()
        missing = [row for row in row_array.tolist() if row not in found]
        if missing:
            found |= self.segment_frames(missing).places()
        records = []
        for row in row_array.tolist():
            frames, place = found[row]
            count = int(frames.counts[place])
            records.append(
                SegmentRecord(
                    row=row,
                    video_id=self._videos.id_at(int(self.video_rows[row])),
                    segment_index=int(self._segment_index[row]),
                    start_seconds=float(self._start[row]),
                    end_seconds=float(self._end[row]),
                    frame_pts_seconds=frames.pts_seconds[place, :count],
                    frame_salience=frames.salience[place, :count],
                    generation=self.manifest.generation,
                )
            )
        return records

    def frame_tokens(
        self,
        segment_rows: Sequence[int] | NDArray[np.int64],
        frame_indices: Sequence[int] | NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """The stored tokens of frames, in the order of the arguments, as a bundle reads them.

        Args:
            segment_rows: int64, shape [K]: each frame's segment; rows may repeat.
            frame_indices: int64, shape [K]: each frame's position within its segment.

        Returns:
            float32, shape [K, P', H].

        Raises:
            ValueError: a segment or a frame does not exist, or the arguments differ in length.
            DamagedRowsError: the tokens of some frames are damaged; `rows` are theirs in `frames`.
            LibraryError: the library stores no tokens, or the table cannot be read.
        """
        if not self.tokens_per_frame:
            raise LibraryError(
                f"the library at {self.library} stores no frame tokens: index into a new folder with a "
                "bundle that has a matcher or an answer head, without `--tokens none`"
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
        shape = (len(frames), self.tokens_per_frame, self._layout.token_dim)
        if not len(frames):
            return np.zeros(shape, np.float32)
        values, *scale = self._frames.take(first + frames, "tokens")
        if not scale:
            return values.reshape(shape)
        return dequantise(QuantisedTokens(values.reshape(shape), scale[0]))

    def keep_rows(self, cache: RowCache) -> None:
        """Keep rows of segments and the tokens of frames in memory once they were read."""
        self._segments.cache = self._frames.cache = cache

    def distrust(self, files: Iterable[str]) -> None:
        """Refuse the rows without checksums of damaged files, whose names are relative to the library.

        Rows with checksums are compared with those whenever they are read. A damaged index of words is not
        searched any more.
        """
        names = list(files)
        words = set(self.manifest.text_index_files)
        for name in words.intersection(names):
            where = self.library / name
            self._lines.damage = self.damaged_files.get(name, f"{where} is damaged")
        paths = [self.library / name for name in names]
        self._segments.distrust(paths)
        self._frames.distrust(paths)

    def _checked(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        row_array = np.asarray(rows, np.int64).reshape(-1)
        wrong = row_array[(row_array < 0) | (row_array >= self.num_segments)]
        if len(wrong):
            raise ValueError(f"segment row {wrong[0]} is not in 0..{self.num_segments - 1}")
        return row_array

    def segment_rows(
        self, video_id: str, start_seconds: float = -math.inf, end_seconds: float = math.inf
    ) -> NDArray[np.int64]:
        """The rows of a video's segments that touch a span, in time order; empty for an unknown video."""
        video_row = self._videos.row_of(video_id)
        if video_row is None:
            return np.empty(0, np.int64)
        first, end = np.searchsorted(self._sorted_video_rows, [video_row, video_row + 1])
        rows = self._by_video[first:end]
        return rows[(self._start[rows] <= end_seconds) & (self._end[rows] >= start_seconds)]

    def stretches(
        self, rows: Sequence[int] | NDArray[np.int64], reach: int, avoid: Iterable[int] = ()
    ) -> list[NDArray[np.int64]]:
        """Segments with those that come before and after them in their videos, as connected stretches.

        Args:
            rows: the segments.
            reach: how many segments before and after each belong to its stretch.
            avoid: segments that belong to no stretch, such as damaged ones.

        Returns:
            The rows of each stretch, in time order; the stretches are in the order of `rows`.

        Raises:
            ValueError: a row does not exist.
        """
        places = self._place[self._checked(rows)]
        around = (places[:, None] + np.arange(-reach, reach + 1)).clip(0, max(0, self.num_segments - 1))
        same = self._sorted_video_rows[around] == self._sorted_video_rows[places][:, None]
        wanted = np.unique(around[same])
        if left_out := list(avoid):
            wanted = wanted[~np.isin(wanted, self._place[self._checked(left_out)])]
        videos = self._sorted_video_rows[wanted]
        breaks = np.flatnonzero((np.diff(wanted) > 1) | (np.diff(videos) != 0)) + 1
        first_of_row = {place: number for number, place in reversed(list(enumerate(places.tolist())))}
        found = [
            part for part in np.split(wanted, breaks) if not first_of_row.keys().isdisjoint(part.tolist())
        ]
        found.sort(key=lambda part: min(first_of_row.get(place, len(places)) for place in part.tolist()))
        return [self._by_video[part] for part in found]

    def video_id_at(self, video_row: int) -> str:
        """The id of a video, by its row in the list of all videos."""
        return self._videos.id_at(video_row)

    def video_id_of(self, row: int) -> str:
        """The id of the video of a segment."""
        return self.video_id_at(int(self.video_rows[row]))

    def frame_id(self, row: int, place: int) -> str:
        """The id of a stored frame, by its segment and its place in that."""
        return frame_id_of(
            self.video_id_of(row), int(self._segment_index[row]), place, self.manifest.generation
        )

    def frame_ids(self, rows: Sequence[int], places: Sequence[int]) -> list[str]:
        """As `frame_id`, of many frames."""
        segments = {row: (self.video_id_of(row), int(self._segment_index[row])) for row in set(rows)}
        generation = self.manifest.generation
        return [
            frame_id_of(*segments[row], place, generation) for row, place in zip(rows, places, strict=True)
        ]

    def segment_span(self, row: int) -> tuple[float, float]:
        """Start and end of a segment, in seconds from the start of its video."""
        return float(self._start[row]), float(self._end[row])

    def segment_spans(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `segment_span`, of many segments: float64 [K, 2]."""
        return np.stack([self._start[rows], self._end[rows]], axis=1)

    def cuts(self, row: int) -> NDArray[np.float64] | None:
        """When shots of a segment's video begin, in seconds, rising, but for the first; None: not known."""
        return self._videos.cuts_at(int(self.video_rows[row]))

    def video(self, video_id: str) -> VideoRecord | None:
        """A video's record, failures included; None when it is not in the library."""
        return self._videos.record(video_id)

    def label(self, video_id: str) -> VideoLabel | None:
        """What a hit says of a video, ten times as fast as the record; None when it is not in the library."""
        return self._videos.label(video_id)

    def records(self, rows: NDArray[np.int64]) -> list[VideoRecord]:
        """The records of the videos in some rows of `catalog`, in this order."""
        return self._videos.records(rows)

    def videos(self, offset: int, limit: int, verdict: Verdict | None = None) -> list[VideoRecord]:
        """A page of the videos with `verdict`, or of all, failures included; ordered by path."""
        return self._videos.page(offset, limit, verdict)

    def count_videos(self, verdict: Verdict | None = None) -> int:
        """How many videos have `verdict`, or how many there are, failures included."""
        return self._videos.count(verdict)

    def stage_counts(self) -> dict[str, int]:
        """How many videos each stage has read, without those that it failed on, by its name."""
        return self._videos.stage_counts()

    def line_counts(self) -> dict[LineKind, int]:
        """How many lines of each kind there are. LibraryError when the table cannot be read."""
        return self._lines.counts()

    def find_lines(
        self,
        text: str,
        limit: int,
        kinds: Collection[LineKind] | None = None,
        least_coverage: float = 0.0,
        *,
        videos: NDArray[np.bool_] | None = None,
    ) -> list[TextLine]:
        """Find lines that are said or written in videos, and their names, by the words in them.

        A line is found by one word of the text; the more of its words it has, and the rarer they are, the
        higher is its score (BM25). Case and accents do not count. There are no operators: any text is words.

        Args:
            text: any text. Of a long one, the first 64 different words count.
            limit: how many lines, at most.
            kinds: the kinds of lines to search among; None: all.
            least_coverage: of the best lines, leave out those with a smaller share of the text's letters in
                their words.
            videos: of which videos the lines may be, bool, one a row of `catalog`; None: of all.

        Returns:
            The best lines, best first; none for a library without texts.

        Raises:
            ValueError: there is no such kind.
            DamagedRowsError: one of the lines is damaged.
            LibraryError: the table or its index cannot be read.
        """
        return self._lines.find(text, limit, kinds, least_coverage, videos)

    def lines_between(
        self,
        video_id: str,
        start_seconds: float = -math.inf,
        end_seconds: float = math.inf,
        text: str = "",
    ) -> list[TextLine]:
        """The lines of a video that touch a span, names included, in time order; none for an unknown video.

        They say what they have of `text`: its words in `matches`, and its share in `coverage`.

        Raises:
            DamagedRowsError: one of the video's lines is damaged.
            LibraryError: the table cannot be read.
        """
        return self._lines.between(video_id, start_seconds, end_seconds, text)

    def thumbnail(self, frame_id: str) -> bytes | None:
        """A stored frame as JPEG, at most 320 pixels on its longer side; None when there is no such frame.

        Raises:
            LibraryError: the frame is damaged or cannot be read; the message names it.
        """
        place = self.frame_place(frame_id)
        if place is None:
            return None
        row, frame_index = place
        return self._frames.take_bytes(int(self._frame_offset[row]) + frame_index, "thumbnail")

    def frame_place(self, frame_id: str) -> tuple[int, int] | None:
        """The segment of a stored frame and its place in that; None when there is no such frame."""
        parts = parse_frame_id(frame_id)
        if parts is None:
            return None
        video_id, segment_index, frame_index, generation = parts
        if generation != self.manifest.generation:
            # The segments of another generation may be of other times.
            return None
        for row in self.segment_rows(video_id).tolist():
            if self._segment_index[row] == segment_index:
                count = int(self._frame_offset[row + 1] - self._frame_offset[row])
                return (row, frame_index) if frame_index < count else None
        return None

    def segment_embeddings(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored embeddings of segments, in the order of `rows`, which may repeat.

        Returns:
            float32, shape [K, `embedding_dim`], of unit length.

        Raises:
            ValueError: a row does not exist.
            DamagedRowsError: some of the segments are damaged.
            LibraryError: the table cannot be read.
        """
        row_array = self._checked(rows)
        if not len(row_array):
            return np.empty((0, self.embedding_dim), np.float32)
        (embeddings,) = self._segments.take(row_array, "embedding")
        return embeddings.astype(np.float32, copy=False)

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
        dim = manifest.embedding_dim + (self.hubness is not None)
        if self.index.dim != dim:
            raise LibraryError(
                f"{where}: the index has {self.index.dim} dimensions, not {dim}; {VERIFY_REMEDY}"
            )
        if self.num_segments and int(self.video_rows.min()) < 0:
            raise LibraryError(f"{where}: segments without a video; {VERIFY_REMEDY}")


def _read_light(segments: lance.LanceDataset, where: Path) -> pa.Table:
    """The columns of `segments` that are held in memory. LibraryError when one of the rows is damaged."""
    columns = [name for name in (*SHORT_COLUMNS, CHECKSUMS) if name in segments.schema.names]
    with reading():
        light = whole_table(segments, columns).combine_chunks()
    if CHECKSUMS in columns:
        stored = stored_checksums("segments", light[CHECKSUMS], "row")
        for i, (row, checksum) in enumerate(zip(short_rows(light), stored, strict=True)):
            if checksum is not None and checksum != segment_checksum(*row):
                raise LibraryError(f"{where} is damaged: row {i} differs from its checksum; {REPAIR_REMEDY}")
    return light
