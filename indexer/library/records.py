"""Ids of videos and frames, and the records that a snapshot returns."""

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.library.annotations import NO_ANNOTATION, Annotation
from model.runtime.captured import CapturedSource
from model.runtime.places import Place

Verdict = Literal["ok", "partial", "corrupt", "unsupported", "timed_out"]
VERDICTS: tuple[Verdict, ...] = ("ok", "partial", "corrupt", "unsupported", "timed_out")
#: Verdicts of videos with segments, which a search can find.
SEARCHABLE: tuple[Verdict, ...] = ("ok", "partial")

#: Hexadecimal digits of a video's id: so many that nobody finds two contents with the same id.
VIDEO_ID_DIGITS = 32
_FRAME_ID = re.compile(rf"([0-9a-f]{{{VIDEO_ID_DIGITS}}})-([0-9]{{5,9}})-([0-9]{{2}})(?:-([0-9a-f]{{12}}))?")


def video_id_of(sha256: str, path: bytes, size: int) -> str:
    """The id of a video: the beginning of its content's SHA-256.

    A file whose SHA-256 is not known, since it could not be read to its end, has an id of its path and size.

    Args:
        sha256: the content's checksum, 64 hexadecimal digits; empty where it is not known.
        path: where the file is.
        size: the file's size in bytes.
    """
    return content_id(sha256 or hashlib.sha256(b"%d:%b" % (size, path)).hexdigest())


def content_id(sha256: str) -> str:
    """The id of the video with a content, whose checksum is known."""
    return sha256[:VIDEO_ID_DIGITS]


def frame_id_of(video_id: str, segment_index: int, frame_index: int, generation: str = "") -> str:
    """The id of a stored frame: another one in each generation, whose segments may be of other times."""
    end = f"-{generation}" if generation else ""
    return f"{video_id}-{segment_index:05d}-{frame_index:02d}{end}"


def parse_frame_id(frame_id: str) -> tuple[str, int, int, str] | None:
    """Split a frame id into video id, segment index, frame index and generation; None when it is not one."""
    match = _FRAME_ID.fullmatch(frame_id)
    return (match[1], int(match[2]), int(match[3]), match[4] or "") if match else None


def stored_ns(time_ns: int) -> int:
    """A file's time as a signed 64-bit number, which reaches to the year 2262: later times wrap around.

    Only whether two times are equal matters, so any time that a file system has keeps its meaning.
    """
    return (time_ns + (1 << 63)) % (1 << 64) - (1 << 63)


def displayable(path: Path | bytes) -> str:
    """A path as valid Unicode: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


@dataclass(frozen=True)
class FileRecord:
    """A place where a video is, or was.

    Attributes:
        path: the path to open. Bytes that are not UTF-8 are surrogates in it.
        mtime_ns: when the file was modified, as `stored_ns` gives it.
        missing_since: since when it is not found there; None: it was there in the last run that looked.
    """

    path: Path
    mtime_ns: int
    missing_since: datetime | None = None


@dataclass(frozen=True)
class Recording:
    """How a video was recorded, as far as its file says.

    Attributes:
        captured_at: when it was taken, in its zone, or in UTC where that is not known; None: nothing says so.
        captured_source: what says so, see `Captured`.
        place: where it was taken; None: that is not known.
        camera: make and model; None: they are not known.
        has_sound: whether it has sound; None: nothing has looked.
        audio_codec: the sound's codec; None: it has none, or nothing has looked.
    """

    captured_at: datetime | None = None
    captured_source: CapturedSource | None = None
    place: Place | None = None
    camera: str | None = None
    has_sound: bool | None = None
    audio_codec: str | None = None


NO_RECORDING = Recording()


@dataclass(frozen=True)
class VideoRecord:
    """One video of the library. Seconds are as a player shows them; width and height are as displayed."""

    video_id: str
    files: tuple[FileRecord, ...]
    """Where it is, the first place first: one that is not missing, if there is any."""
    sha256: str
    bytes: int
    duration_seconds: float
    fps: float
    width: int
    height: int
    codec: str
    container: str
    title: str | None
    verdict: Verdict
    reason: str | None
    num_segments: int
    indexed_at: datetime
    container_start_seconds: float | None
    """The file's own time at second 0; None where it is not known."""
    recording: Recording = NO_RECORDING
    """How it was recorded."""
    annotation: Annotation = NO_ANNOTATION
    """What users say of it."""

    @property
    def file(self) -> Path:
        """The first place, to open. Bytes that are not UTF-8 are surrogates in it."""
        return self.files[0].path

    @property
    def path(self) -> str:
        """The first place, to show and to send: always valid Unicode."""
        return displayable(self.file)

    @property
    def missing(self) -> bool:
        """Whether it is in none of its places any more."""
        return self.files[0].missing_since is not None


@dataclass(frozen=True)
class SegmentRecord:
    """One segment with its n stored frames, in time order."""

    row: int
    video_id: str
    segment_index: int
    start_seconds: float
    end_seconds: float
    frame_pts_seconds: NDArray[np.float64]
    """Shape [n], seconds."""
    frame_salience: NDArray[np.float32]
    """Shape [n, S]; S is 0 where none is stored."""
    generation: str = ""
    """That of the snapshot, as in its manifest."""

    @property
    def frame_ids(self) -> list[str]:
        """The ids of the n frames."""
        return [
            frame_id_of(self.video_id, self.segment_index, i, self.generation)
            for i in range(len(self.frame_pts_seconds))
        ]


@dataclass(frozen=True)
class TextLine:
    """A line that is said or written in a video, or one of its names.

    Attributes:
        kind: "speech" for subtitles, "transcript" for what was heard, "screen" for what was read in the
            pictures, "name" for the file name and the title.
        start_seconds: when it begins; a name covers the whole video.
        end_seconds: when it ends.
        language: a code such as "en" or "pt-BR"; None: unknown.
        score: its BM25 score for a query; 0 where it was not found by one.
        matches: the ranges [start, end) of characters of the text that the query's words match, in order.
        coverage: the share of the query's letters that are in words of the text, each word once, from 0 to 1.
        by_user: whether it is the title and the tags that users gave the video.
    """

    video_id: str
    kind: Literal["speech", "name", "transcript", "screen"]
    start_seconds: float
    end_seconds: float
    language: str | None
    text: str
    score: float = 0.0
    matches: tuple[tuple[int, int], ...] = ()
    coverage: float = 0.0
    by_user: bool = False


@dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Attributes:
        files: the damaged files that were found.
        read_again: paths of the videos whose rows are removed, for the run to read their files again.
        left: paths of damaged videos whose files are not among those of the run: they stay as they are.
        moved: how many whole videos were moved out of damaged files.
        lost_rows: rows of the table of videos that are damaged themselves: the run finds their files as new.
        snapshots: numbers of the snapshots that need a damaged file.
    """

    files: tuple[Path, ...] = ()
    read_again: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    moved: int = 0
    lost_rows: int = 0
    snapshots: frozenset[int] = frozenset()
