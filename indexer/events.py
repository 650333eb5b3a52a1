"""The events and the summary that an indexing run reports."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from indexer.library.records import RepairReport, Verdict
from indexer.stages.base import StageName


@dataclass(frozen=True)
class Scanned:
    """The scan is done. `to_read` of the `files` are new, changed or tried again."""

    files: int
    to_read: int
    unchanged: int
    failed_before: int
    """How many of the unchanged files could not be read when they were tried."""
    problems: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class FileStarted:
    """A decoder has begun to read a file."""

    path: Path


@dataclass(frozen=True)
class SegmentEncoded:
    """A segment has been decoded and encoded."""

    path: Path
    seconds: float


@dataclass(frozen=True)
class FileDone:
    """A file is done. The verdict is None when its content has not changed."""

    path: Path
    verdict: Verdict | None
    reason: str | None
    duration_seconds: float
    num_segments: int


@dataclass(frozen=True)
class FileNotReached:
    """A file's place could not be reached, or went away while the file was read. What was indexed stays."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FileStillWritten:
    """A file was still being written at the end of the run. What was indexed of it stays."""

    path: Path


@dataclass(frozen=True)
class Published:
    """A snapshot is written, and served from now on unless it is staged."""

    number: int
    num_videos: int
    num_segments: int
    served: bool = True


@dataclass(frozen=True)
class Note:
    """Something the user should know; the run continues."""

    text: str


@dataclass(frozen=True)
class ReadingProblem:
    """A file of which texts, or what a stage looks for, were not, or only partly, read.

    Attributes:
        path: the subtitle file, or the video.
        verdict: None where it could not be reached, or has changed: the next run tries it again.
        reason: why.
    """

    path: Path
    verdict: Verdict | None
    reason: str


@dataclass(frozen=True)
class StageStarted:
    """A stage begins: so many videos lack it."""

    stage: StageName
    videos: int


@dataclass(frozen=True)
class StageFileStarted:
    """A stage begins to read a video."""

    stage: StageName
    path: Path


@dataclass(frozen=True)
class StageRead:
    """A stage has read on in a video, by so many seconds of it."""

    stage: StageName
    path: Path
    seconds: float


@dataclass(frozen=True)
class StageFileDone:
    """A stage is done with a video. `problem` says what is not, or only partly, read; None: all is."""

    stage: StageName
    path: Path
    problem: str | None


Event = (
    Scanned
    | FileStarted
    | SegmentEncoded
    | FileDone
    | FileNotReached
    | FileStillWritten
    | Published
    | Note
    | StageStarted
    | StageFileStarted
    | StageRead
    | StageFileDone
)


@dataclass
class StageSummary:
    """What a stage did in a run.

    Attributes:
        videos: how many videos it has read.
        done_before: how many it had read before, and did not read again.
        left: how many are left to read: the run was stopped, or they could not be reached.
        lines: lines of text that it found.
        cuts: cuts that it found.
        problems: videos that it has not, or only partly, read.
        video_seconds: the length of the videos that it has read.
        elapsed_seconds: how long it took.
    """

    videos: int = 0
    done_before: int = 0
    left: int = 0
    lines: int = 0
    cuts: int = 0
    problems: list[ReadingProblem] = field(default_factory=list)
    video_seconds: float = 0.0
    elapsed_seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A file that is not, or only partly, in the library."""

    path: Path
    verdict: Verdict
    reason: str


@dataclass
class IndexSummary:
    """What a run did.

    Attributes:
        files: how many files the scan found.
        unchanged: files that were skipped or have unchanged content; `failed_before` of them have no
            segments.
        verdicts: how many of the files read in this run have each verdict.
        failures: files of this run whose verdict is not `ok`.
        problems: folders and files that the scan could not look at, and why.
        passed_over: how many files the scan did not take for videos, by what they are; see `Scan`.
        passed_over_files: these files, and what they are, if they were asked for.
        not_reached: files that were found but could not be read because of their place, and why: nothing of
            them was changed, and the next run tries them again.
        still_written: files that were still being written: nothing of them was changed either, and the next
            run looks at them again.
        not_reached_searchable: how many files of these two kinds the library has segments of.
        repaired: what the repair did, if there was one.
        lines: lines of subtitles that this run has added.
        carried: videos whose texts or cuts were taken from the generation that is served, not read again.
        facts_read: videos indexed before of which it was read how they were recorded.
        text_problems: files whose texts could not be read, or only in part.
        stages: what each stage did that was asked for.
        recognised: unchanged contents that were found at a new path: they were renamed, moved or copied.
        moved: places that are forgotten because their videos are elsewhere now.
        removed: videos removed because all their files are gone or excluded.
        vanished: videos all of whose files are gone but that were not removed, without `prune`.
        left_out: files of the library that a rule leaves out now, and that were kept, without `prune`.
        video_seconds: total length of the videos read.
        interrupted: the run was stopped before its end, on request.
        snapshot: the number of the snapshot served at the end; of a generation that is not, its newest one.
        generation: the name of the generation that was written; None: there was nothing to write.
        served: whether it is the one that is served.
    """

    files: int = 0
    unchanged: int = 0
    failed_before: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    passed_over_files: list[tuple[Path, str]] = field(default_factory=list)
    not_reached: list[tuple[Path, str]] = field(default_factory=list)
    still_written: list[Path] = field(default_factory=list)
    not_reached_searchable: int = 0
    repaired: RepairReport | None = None
    recognised: int = 0
    moved: int = 0
    removed: int = 0
    vanished: int = 0
    left_out: int = 0
    segments: int = 0
    frames: int = 0
    lines: int = 0
    carried: int = 0
    facts_read: int = 0
    text_problems: list[ReadingProblem] = field(default_factory=list)
    stages: dict[StageName, StageSummary] = field(default_factory=dict)
    video_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    interrupted: bool = False
    snapshot: int | None = None
    generation: str | None = None
    served: bool = True
    published: bool = False
    num_videos: int = 0
    num_segments: int = 0

    @property
    def searchable(self) -> int:
        """How many of the files found are in the library, from this run or before."""
        before = self.unchanged - self.failed_before + self.not_reached_searchable
        return before + self.verdicts["ok"] + self.verdicts["partial"]
