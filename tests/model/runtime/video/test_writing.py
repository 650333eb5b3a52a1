"""Written files are read back: as many frames, the same size and rate, nearly the same pixels."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from model.runtime.video.writing import write_h264


def test_frames_come_back(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    frames = [np.full((48, 64, 3), level, np.uint8) for level in range(20, 220, 20)]
    write_h264(path, iter(frames), 10, {"preset": "ultrafast", "crf": "10"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 10
        assert stream.codec_context.name == "h264"
    assert len(decoded) == len(frames)
    for written, read in zip(frames, decoded, strict=True):
        assert read.shape == written.shape
        assert np.abs(read.astype(int) - written).max() <= 6


def test_no_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_h264(tmp_path / "film.mp4", [], 10, {})
