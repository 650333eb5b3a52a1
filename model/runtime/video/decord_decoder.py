"""The pictures on display at given times, decoded by decord (package `decord2`).

decord names frames by number and rebases their times, and where it is wrong it does not say so. Measured
with version 3.4 against the ffmpeg program: it loses the first pictures of MPEG transport and program
streams; counts wrong after a seek in FLV and AVI, and elsewhere after a seek to a key frame that is not an
instantaneous refresh (open groups of pictures, intra refresh); counts the pictures that an edit list hides;
fills damaged places with neighbouring pictures; ignores mirroring; and takes BT.601 for every unnamed
matrix. So times are read from the packets here, it seeks only where that is safe and reads on elsewhere,
and a file that it would get wrong is refused.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import decord
import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import VideoError
from model.runtime.video.demux import PacketSource, StreamPacket
from model.runtime.video.pyav_decoder import PyavDecoder
from model.runtime.video.types import Picture

SEEKING_FORMATS = ("mov", "matroska")
REFUSED_FORMATS = ("mpegts", "mpeg", "mpegvideo")
# Their key frames always start anew.
REFRESHING_CODECS = ("vp8", "vp9", "av1", "gif")
# Kinds of NAL units that are instantaneous refreshes, and where the kind stands in the unit's first byte.
REFRESHING_UNITS = {"h264": (frozenset({5}), 0, 0x1F), "hevc": (frozenset({19, 20}), 1, 0x3F)}
# Its FFmpeg would write to the terminal.
decord.logging.set_level(decord.logging.QUIET)
# Any picture made up from its neighbours is an error.
FAULT_TOLERANCE = 1e-9


class DecordDecoder:
    """Reads one video file from its start to its end.

    Raises:
        VideoError: the file is not a video that can be read, or not by decord ("use decoder pyav").
    """

    def __init__(self, path: Path, max_side: int | None, threads: int = 0) -> None:
        self._path = path
        described = PyavDecoder(path, max_side, threads=1)
        described.close()
        self.info = described.info
        self.damage = described.damage
        self.end_seconds = described.end_seconds
        self._size = described.renderer.picture_size
        if described.renderer.orientation.mirrored:
            raise self._refusal("it is mirrored")
        if described.renderer.guesses_matrix:
            raise self._refusal("its colour matrix is not named")
        self._scan()
        self._threads = threads
        self._reader: Any = None
        self._open()

    def close(self) -> None:
        """Free the file and the decoder."""
        self._reader = None

    def pictures(self, times: Sequence[float]) -> Iterator[Picture]:
        """Give the picture on display at each of the times, which must not decrease.

        Times before the first picture get the first, times past the end the last.

        Raises:
            VideoError: decord fails ("use decoder pyav").
        """
        if self._position:
            self._open()
        picture: Picture | None = None
        shown = -1
        for time in times:
            number = max(0, bisect_right(self._ticks, self._clock.ticks(time)) - 1)
            if picture is None or number != shown:
                picture, shown = self._picture(number), number
            yield picture

    def _picture(self, number: int) -> Picture:
        start = self._clock.seconds(self._ticks[number])
        last = number + 1 == len(self._ticks)
        end = self.end_seconds if last else self._clock.seconds(self._ticks[number + 1])
        return Picture(self._decode(number), start, max(0.0, end - start))

    def _refusal(self, reason: str) -> VideoError:
        return VideoError(
            f"{self._path}: decord cannot read it rightly, {reason}: use decoder pyav", "unsupported"
        )

    def _scan(self) -> None:
        """Read all packets for the times of the frames, and for what decord gets wrong."""
        source = PacketSource(self._path)
        try:
            if source.container.format.name in REFUSED_FORMATS:
                raise self._refusal(f"it is a stream of the kind {source.container.format.name}")
            self._clock = source.clock
            ticks: list[int] = []
            newest_key: int | None = None
            self._seeks = source.container.format.name.split(",")[0] in SEEKING_FORMATS
            while (packet := source.read()) is not None:
                if packet.pts is None:
                    raise self._refusal("it has no presentation times")
                if packet.is_discard:
                    raise self._refusal("its edit list hides frames")
                if packet.is_corrupt:
                    raise self._refusal("it is damaged")
                ticks.append(packet.pts)
                if packet.is_keyframe:
                    newest_key = packet.pts
                    self._seeks = self._seeks and _refreshes(packet, source)
                elif newest_key is not None and packet.pts < newest_key:
                    self._seeks = False
        finally:
            source.close()
        self._ticks = sorted(ticks)

    def _open(self) -> None:
        width, height = self._size
        try:
            self._reader = decord.VideoReader(
                str(self._path.absolute()),
                ctx=decord.cpu(0),
                width=width,
                height=height,
                num_threads=self._threads,
                fault_tol=FAULT_TOLERANCE,
            )
            starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except UnicodeEncodeError as error:
            raise self._refusal("its name is not UTF-8") from error
        except (decord.DECORDError, RuntimeError, AssertionError) as error:
            raise self._refusal(_words(error)) from error
        mine = np.array([self._clock.seconds(t - self._ticks[0]) for t in self._ticks])
        mine -= mine[0]
        if len(starts) != len(mine) or np.abs(starts - starts[0] - mine).max() > 1e-3:
            raise self._refusal("it counts other frames than the file has")
        self._position = 0

    def _decode(self, number: int) -> NDArray[np.uint8]:
        width, height = self._size
        try:
            if self._seeks:
                raw = self._reader[number].asnumpy()
            else:
                while self._position < number:
                    self._reader.next()
                    self._position += 1
                raw = self._reader.next().asnumpy()
        except (decord.DECORDError, RuntimeError, AssertionError, StopIteration) as error:
            raise VideoError(
                f"{self._path}: decord failed ({_words(error)}): use decoder pyav", "corrupt"
            ) from error
        self._position = number + 1
        # Some widths come with the padding at the end of the rows.
        rows = raw.reshape(height, -1)
        if raw.shape[0] != height or rows.shape[1] < 3 * width:
            raise self._refusal(f"it gives frames of {raw.shape} instead of {height}x{width}")
        return np.ascontiguousarray(rows[:, : 3 * width].reshape(height, width, 3))


def _words(error: Exception) -> str:
    """Give the sentence of decord's message, without its own source's place and stack."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[[^\]]*\]\s*|\S+\.(cc|h):\d+:\s*", "", lines[0]).strip() or type(error).__name__


def _refreshes(packet: StreamPacket, source: PacketSource) -> bool:
    """Tell whether decoding can start at a key frame without any memory of what came before."""
    codec = source.stream.codec_context.codec
    if codec.intra_only or codec.canonical_name in REFRESHING_CODECS:
        return True
    if codec.canonical_name not in REFRESHING_UNITS:
        return False
    kinds, shift, mask = REFRESHING_UNITS[codec.canonical_name]
    return any((unit >> shift) & mask in kinds for unit in _unit_heads(packet, source))


def _unit_heads(packet: StreamPacket, source: PacketSource) -> Iterator[int]:
    """Give the first byte of every NAL unit in a packet."""
    data, setup = bytes(packet), source.stream.codec_context.extradata or b""
    if not setup.startswith(b"\x01"):  # units follow start codes
        for code in re.finditer(b"\x00\x00\x01", data):
            yield from data[code.end() : code.end() + 1]
        return
    width = (setup[4] if source.stream.codec_context.codec.canonical_name == "h264" else setup[21]) % 4 + 1
    place = 0
    while place + width < len(data):
        yield data[place + width]
        place += width + int.from_bytes(data[place : place + width], "big")
