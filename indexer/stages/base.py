"""The protocol of a stage: it reads a video's sound or pictures once more, and finds something in them.

    registry ─▶ stages ─▶ run: for each video that lacks one ─▶ media reader ─chunks─▶ Stage.read ─▶ library

The media are read where the engine reads videos, since they are not trusted. A stage runs in the indexer's
own process, and sees nothing but numbers. The library stores the stage's `key` with each video, so that
another program, model or version runs again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar, get_args

from indexer.library.schema import STAGE_FAILED, LineRow, VideoRow
from indexer.media import MediaKind, PictureChunk, SoundChunk

StageName = Literal["speech", "screen", "shots"]
#: In the order in which they run.
STAGES: tuple[StageName, ...] = get_args(StageName)

C_contra = TypeVar("C_contra", SoundChunk, PictureChunk, contravariant=True)


@dataclass(frozen=True)
class StageResult:
    """What a stage has found in a video.

    Attributes:
        lines: of the kind that the stage gives, in the order of their times; these are seconds from the start
            of the video. None of them is empty or longer than `MAX_LINE_CHARACTERS`; see `plain_text`.
        cut_seconds: where a shot begins after a cut, in order, in seconds; None: the stage looks for none.
        problems: what went wrong with this video, in words; what is in this result counts nonetheless.
    """

    lines: tuple[LineRow, ...] = ()
    cut_seconds: tuple[float, ...] | None = None
    problems: tuple[str, ...] = ()


class Stage(Protocol[C_contra]):
    """One stage, opened once for a run. Used by one thread.

    Making one checks all that can be checked before the first video: that its package is installed and that
    its model is there; InputError names the option and a remedy. What takes time or memory waits for `read`.

    Attributes:
        name: which stage it is.
        key: names program, model and version in one line, such as "faster-whisper 1.2.1 base". Short.
        media: what it reads.
        max_side: of sampled pictures, the pixels on the longer side, at most; else it does not matter.
    """

    name: StageName
    key: str
    media: MediaKind
    max_side: int

    def read(self, video: VideoRow, chunks: Iterator[C_contra]) -> StageResult:
        """Find what there is in one video.

        Args:
            video: its row; the library knows its length and its frame rate.
            chunks: what it reads, in the order of the times; memory must not grow with their number. Where
                the rest of a file is damaged, they end early. When the run is asked to stop, or the file
                cannot be reached any more, this iterator raises an error, which must pass through.

        Raises:
            ReelfindError: the stage cannot work at all: the run ends with this error. Any other error counts
                as a problem of the video, and the run continues.
        """

    def close(self) -> None:
        """Free the model. The stage is not used again."""


AnyStage = Stage[SoundChunk] | Stage[PictureChunk]


def source_of(video: VideoRow, stage: StageName) -> str | None:
    """The key that is stored for a stage, perhaps after `STAGE_FAILED`; None: it has not read the video."""
    source: str | None = getattr(video, f"{stage}_source")
    return source


def with_source(video: VideoRow, stage: StageName, source: str) -> VideoRow:
    """The video's row with a key stored for a stage."""
    column: dict[str, Any] = {f"{stage}_source": source}
    return replace(video, **column)


def is_due(video: VideoRow, stage: AnyStage, *, retry_failed: bool) -> bool:
    """Whether a stage has not read a video yet, with the same program, model and version.

    Args:
        video: its row.
        stage: the stage.
        retry_failed: read it also where the same stage has failed on it.
    """
    source = source_of(video, stage.name)
    return source != stage.key and (retry_failed or source != STAGE_FAILED + stage.key)
