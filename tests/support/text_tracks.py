"""Videos with text tracks, muxed by PyAV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.toy_bundle import COLOURS

#: Start and end in seconds, and the text.
Cue = tuple[float, float, str]


def make_video_with_text(
    path: Path, codec: str, tracks: Mapping[str, Sequence[Cue]], *, colour: str = "red", seconds: float = 2.0
) -> Path:
    """Write a video of one colour with a text track for each language, by its code of three letters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=10)
        assert isinstance(picture, av.VideoStream)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        streams = {}
        for language in tracks:
            stream = container.add_mux_stream(codec)
            stream.time_base = Fraction(1, 1000)
            stream.metadata["language"] = language
            streams[language] = stream
        for language, cues in tracks.items():
            for start, end, text in cues:
                packet = av.Packet(_content(codec, text))
                packet.stream = streams[language]
                packet.time_base = Fraction(1, 1000)
                packet.pts = packet.dts = round(start * 1000)
                packet.duration = round((end - start) * 1000)
                container.mux(packet)
        pixels = np.full((48, 64, 3), COLOURS[colour], np.uint8)
        for _ in range(round(seconds * 10)):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode(None))
    return path


def _content(codec: str, text: str) -> bytes:
    """A text as the packets of a codec hold it."""
    data = text.encode()
    if codec == "mov_text":
        return len(data).to_bytes(2, "big") + data
    if codec == "ass":
        return b"0,0,Default,,0,0,0,," + data
    return data
