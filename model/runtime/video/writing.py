"""Writes H.264 files for the demo, the benchmark and the tests. Shapes: h rows, w columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_h264(
    path: Path, frames: Iterable[NDArray[np.uint8]], frames_per_second: int, options: Mapping[str, str]
) -> None:
    """Write frames as H.264 in MP4.

    Args:
        path: the file to write, whatever its suffix.
        frames: uint8, shape [h, w, 3] each, RGB; h and w are even and the same for all frames.
        frames_per_second: the constant rate.
        options: x264's, such as {"preset": "veryfast", "crf": "23"}.

    Raises:
        ValueError: `frames` is empty.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream: av.VideoStream | None = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=frames_per_second, options=dict(options))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.time_base = Fraction(1, frames_per_second)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is None:
            raise ValueError(f"no frame for {path}: pass at least one")
        container.mux(stream.encode(None))
