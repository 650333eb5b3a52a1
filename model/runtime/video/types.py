"""What decoding returns: frames with their times, spans and segments. Shapes: N frames, h rows, w columns."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.runtime.video.facts import NO_FACTS, VideoFacts

DecoderName = Literal["pyav", "decord"]


@dataclass(frozen=True)
class VideoInfo:
    """One video file as a player shows it.

    Attributes:
        duration_seconds: when the last frame ends, in seconds from the container's start.
        fps: average frame rate; 0.0 when the file does not state it.
        width: columns as displayed, after rotation and sample aspect ratio.
        height: rows as displayed.
        rotation: degrees clockwise (0, 90, 180 or 270) by which the stored frames are turned for display.
        codec: short name, such as "h264".
        pixel_format: as stored, such as "yuv420p10le".
        container: short name of the format, such as "mov,mp4,m4a,3gp,3g2,mj2".
        start_seconds: when the first frame appears, in seconds from the container's start.
        title: the title in the file's metadata, or None.
        container_start_seconds: the file's own time at the container's start, where all other seconds are 0.
        text_tracks: how many tracks of text it has, such as subtitles; see `text_tracks`.
        facts: what its tags say of the recording, and its sound.
    """

    duration_seconds: float
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    pixel_format: str
    container: str
    start_seconds: float
    title: str | None
    container_start_seconds: float
    text_tracks: int = 0
    facts: VideoFacts = NO_FACTS


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Decoded frames in display order.

    Attributes:
        data: uint8 [N, h, w, 3], RGB, upright.
        pts_seconds: float64 [N], when each frame appears; 0 is the container's start.
        duration_seconds: float64 [N], how long each frame stays.

    Raises:
        ValueError: the shapes or types do not fit together.
    """

    data: NDArray[np.uint8] = field(repr=False)
    pts_seconds: NDArray[np.float64] = field(repr=False)
    duration_seconds: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or self.data.shape[3] != 3 or self.data.dtype != np.uint8:
            raise ValueError(
                f"data must be uint8 [N, h, w, 3], got {self.data.dtype} {list(self.data.shape)}"
            )
        for name in ("pts_seconds", "duration_seconds"):
            values: NDArray[np.float64] = getattr(self, name)
            if values.shape != self.data.shape[:1] or values.dtype != np.float64:
                raise ValueError(
                    f"{name} must be float64 [{len(self.data)}], got {values.dtype} {list(values.shape)}"
                )

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        times = ", ".join(f"{t:.3f}" for t in self.pts_seconds)
        return f"FrameBatch(data uint8 {list(self.data.shape)}, pts_seconds [{times}])"


@dataclass(frozen=True)
class Span:
    """A part of a video, in seconds from the container's start."""

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds <= self.end_seconds < float("inf"):
            raise ValueError(f"span {self.start_seconds}..{self.end_seconds} must satisfy 0 <= start <= end")


@dataclass(frozen=True, eq=False)
class Segment:
    """One unit of retrieval: a span of a video and the frames sampled from it."""

    index: int
    span: Span
    frames: FrameBatch


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: RGB uint8 [h, w, 3], upright.

    `pts_seconds` is when it appears, counted from the container's start, `duration_seconds` how long it
    stays.
    """

    data: NDArray[np.uint8] = field(repr=False)
    pts_seconds: float
    duration_seconds: float
