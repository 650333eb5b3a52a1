"""Decodes the frames played at given times with decord (package `decord2`).

decord addresses frames by number, rebases their times, and gives wrong frames without an error. Version 3.4,
compared with the ffmpeg program:

- It loses the first frames of MPEG transport and program streams.
- It miscounts after a seek in FLV and AVI, and in other formats after a seek to a key frame that is not an
  instantaneous refresh (open groups of pictures, intra refresh).
- It counts the frames that an edit list hides.
- It fills damaged places with neighbouring frames.
- It takes the largest of several video streams.
- It takes a clock that starts again for frames shown at the same time.
- It ignores mirroring, what the container crops, transparency and high dynamic range, weaves moving fields,
  and assumes BT.601 for every unnamed colour matrix.

So this module reads the times from the packets, seeks only where that is safe, and refuses a file that decord
would decode wrongly. Nor has decord a limit for the size of a picture: this module first decodes the key
frames with PyAV, and refuses a file whose pictures change their size there. (VP9 and AV1 may elsewhere.)
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from model.runtime.errors import VideoError
from model.runtime.messages import first_line
from model.runtime.video.demux import PacketSource
from model.runtime.video.limits import CpuBudget, LimitReachedError, ReadingLimits
from model.runtime.video.probe import check_file
from model.runtime.video.pyav_decoder import DEFAULT_LIMITS, PyavDecoder
from model.runtime.video.refreshing import refreshes
from model.runtime.video.streams import film_streams
from model.runtime.video.timeline import StreamPacket
from model.runtime.video.types import Frame

SEEKING_FORMATS = ("mov", "matroska")
REFUSED_FORMATS = ("mpegts", "mpeg", "mpegvideo")
# Otherwise decord's FFmpeg writes to the terminal.
decord.logging.set_level(decord.logging.QUIET)
# Treat any frame that decord fills in from its neighbours as an error.
FAULT_TOLERANCE = 1e-9


class DecordDecoder:
    """Reads one video file from its start to its end.

    Attributes:
        is_exact: False: long videos are read by one reader.

    Raises:
        VideoError: the file cannot be read as a video, or not correctly by decord ("use decoder pyav").
    """

    def __init__(
        self, path: Path, max_side: int | None, threads: int = 0, limits: ReadingLimits = DEFAULT_LIMITS
    ) -> None:
        self._path = path
        self._limits = limits
        self.is_exact = False
        check_file(path)
        self._budget = CpuBudget(limits, path)
        self._stored_sizes: set[tuple[int, int]] = set()
        described = PyavDecoder(path, max_side, threads=1, limits=limits)
        described.close()
        self.info = described.info
        self._picked = described.stream_index
        self.damage = described.damage
        self.end_seconds = described.end_seconds
        self._size = described.renderer.output_size
        if not described.is_continuous:
            raise self._refusal("its clock starts again")
        if described.renderer.orientation.mirrored:
            raise self._refusal("it is mirrored")
        if described.renderer.assumes_matrix:
            raise self._refusal("it names no colour matrix that can be used")
        if described.renderer.tone_mapping:
            raise self._refusal("it is of high dynamic range")
        if described.renderer.cropper.active:
            raise self._refusal("its container crops it")
        if described.renderer.interlaced:
            raise self._refusal("it is interlaced")
        if described.renderer.transparent:
            raise self._refusal("it is transparent")
        try:
            with self._budget.counting():
                self._scan()
        except LimitReachedError as limit:
            raise VideoError(f"{path}: no frame was decoded: {limit}", "corrupt") from limit
        self._threads = threads
        self._reader: Any = None
        self._open()

    def close(self) -> None:
        """Free the file and the decoder."""
        self._reader = None

    def get_frames_played_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame played at each of the times, seconds, which must not decrease.

        A time before the first frame gives the first, a time past the end the last.

        Raises:
            VideoError: decord fails ("use decoder pyav").
        """
        if self._position:
            self._open()
        frame: Frame | None = None
        shown = -1
        for time in times:
            number = max(0, bisect_right(self._ticks, self._clock.ticks(time)) - 1)
            if frame is None or number != shown:
                if self._budget.is_spent():
                    self.end_seconds = min(time, self._clock.seconds(self._ticks[shown + 1]))
                    self.damage = ", ".join(filter(None, [self.damage, self._budget.reason]))
                    return
                with self._budget.counting():
                    frame, shown = self._frame(number), number
            yield frame

    def _frame(self, number: int) -> Frame:
        start = self._clock.seconds(self._ticks[number])
        last = number + 1 == len(self._ticks)
        end = self.end_seconds if last else self._clock.seconds(self._ticks[number + 1])
        return Frame(self._decode(number), start, max(0.0, end - start))

    def _refusal(self, reason: str) -> VideoError:
        return VideoError(
            f"{self._path}: decord cannot read it correctly, {reason}: use decoder pyav", "unsupported"
        )

    def _scan(self) -> None:
        """Read all packets: take the times of the frames, and refuse what decord decodes wrongly."""
        source = PacketSource(self._path, 1, (), self._picked, self._limits, self._budget)
        try:
            if source.container.format.name in REFUSED_FORMATS:
                raise self._refusal(f"it is a stream of the kind {source.container.format.name}")
            if len(film_streams(source.container)) > 1:
                raise self._refusal("it has several video streams")
            self._clock = source.clock
            context = source.stream.codec_context
            context.skip_frame = "NONKEY"
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
                    self._check_size(context, packet)
                    newest_key = packet.pts
                    self._seeks = self._seeks and refreshes(packet, source.stream)
                elif newest_key is not None and packet.pts < newest_key:
                    self._seeks = False
            self._check_size(context, None)
        finally:
            source.close()
        self._ticks = sorted(ticks)

    def _check_size(self, context: VideoCodecContext, packet: StreamPacket | None) -> None:
        """Decode a key frame, and refuse a file whose pictures change their size."""
        try:
            frames = context.decode(packet)
        except av.ArgumentError as error:
            raise self._refusal(
                f"a picture is damaged, or more than {self._limits.max_pixels} pixels"
            ) from error
        except av.FFmpegError:
            return
        for frame in frames:
            self._stored_sizes.add((frame.width, frame.height))
        if len(self._stored_sizes) > 1:
            raise self._refusal("its pictures change their size")

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
            raise self._refusal(_message(error)) from error
        offsets = np.array([self._clock.seconds(t - self._ticks[0]) for t in self._ticks])
        offsets -= offsets[0]
        if len(starts) != len(offsets) or np.abs(starts - starts[0] - offsets).max() > 1e-3:
            raise self._refusal("it does not count the same frames as the file has")
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
                f"{self._path}: decord failed ({_message(error)}): use decoder pyav", "corrupt"
            ) from error
        self._position = number + 1
        # For some widths decord leaves the padding at the end of each row.
        rows = raw.reshape(height, -1)
        if raw.shape[0] != height or rows.shape[1] < 3 * width:
            raise self._refusal(f"it gives frames of {raw.shape} instead of {height}x{width}")
        return np.ascontiguousarray(rows[:, : 3 * width].reshape(height, width, 3))


def _message(error: Exception) -> str:
    """The first line of decord's message, without the place in its source and the stack."""
    said = first_line(error)
    return re.sub(r"\[[^\]]*\]\s*|\S+\.(cc|h):\d+:\s*", "", said).strip() or type(error).__name__
