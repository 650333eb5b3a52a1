"""Frames on display at given times, decoded by PyAV."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import VideoError
from model.runtime.video.probe import clock_of, describe, open_container, pick_stream


@dataclass(frozen=True)
class Picture:
    """One decoded frame: RGB uint8 [h, w, 3], and when it is on display."""

    data: NDArray[np.uint8]
    pts_seconds: float
    duration_seconds: float


class PyavDecoder:
    """Reads one video file from its start to its end."""

    def __init__(self, path: Path, max_side: int | None) -> None:
        self._path = path
        self._max_side = max_side
        self._container = open_container(path)
        try:
            self._stream = pick_stream(self._container, path)
            self._stream.thread_type = "AUTO"
            self._clock = clock_of(self._container, self._stream)
            self.info = describe(self._container, self._stream)
        except BaseException:
            self._container.close()
            raise
        self.damage: str | None = None

    def close(self) -> None:
        """Free the file and the decoder."""
        self._container.close()

    def pictures(self, times: Iterable[float]) -> Iterator[Picture]:
        """Give the picture on display at each of the (never decreasing) times.

        Raises:
            VideoError: nothing could be decoded.
        """
        frames = self._frames()
        current = next(frames, None)
        if current is None:
            raise VideoError(f"{self._path}: no frame could be decoded", "corrupt")
        following = next(frames, None)
        picture: Picture | None = None
        for time in times:
            while following is not None and self._clock.seconds(following.pts) <= time + 1e-6:
                current, following, picture = following, next(frames, None), None
            if picture is None:
                picture = self._convert(current, following)
            yield picture

    def _frames(self) -> Iterator[av.VideoFrame]:
        try:
            for frame in self._container.decode(self._stream):
                if frame.pts is not None:
                    yield frame
        except av.FFmpegError as error:
            self.damage = f"decoding stopped: {error}"

    def _convert(self, frame: av.VideoFrame, following: av.VideoFrame | None) -> Picture:
        scale = min(1.0, (self._max_side or 10**9) / max(frame.width, frame.height))
        width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
        pts = self._clock.seconds(frame.pts)
        end = self._clock.seconds(following.pts) if following else max(pts, self.info.duration_seconds)
        data = np.rot90(rgb.to_ndarray(), (frame.rotation // 90) % 4)
        return Picture(np.ascontiguousarray(data), pts, end - pts)
