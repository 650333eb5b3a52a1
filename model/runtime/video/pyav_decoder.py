"""Decodes the frames played at given times with PyAV.

Packets are read ahead of the decoder until it is certain which of them holds the wanted frame. Packets before
the last usable key frame are then dropped, and of the rest only those are decoded that other frames refer to,
where the codec can tell. Where a stream has no presentation times, or its frames differ from what its packets
announce, every frame is decoded in order: the plain way, with which the tests compare the short one.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

from model.runtime.errors import VideoError
from model.runtime.video.codec import AT_END, FrameDecoder, TimedFrame
from model.runtime.video.demux import PacketSource
from model.runtime.video.extent import SHORTFALL_SECONDS, frame_ticks, measure_extent
from model.runtime.video.facts import read_facts
from model.runtime.video.hardware import HwaccelName
from model.runtime.video.limits import CpuBudget, LimitReachedError, ReadingLimits
from model.runtime.video.lookahead import Lookahead
from model.runtime.video.probe import check_file, reason_of
from model.runtime.video.render import Renderer
from model.runtime.video.text_tracks import text_tracks
from model.runtime.video.track_header import TrackHeader, read_track_header
from model.runtime.video.types import Frame, VideoInfo

Route = Literal["auto", "seek", "read"]

# A decoder that has not returned a frame this many packets after the frame's own never will.
MAX_DELAY_PACKETS = 128
MAX_SEEKS = 6
# Frames tried until one can be shown.
TRIES_FOR_FIRST = 16
DEFAULT_LIMITS = ReadingLimits()
# Key frames tried for an undamaged start before a damaged one is accepted.
TRIES_FOR_WHOLE = 2


class PyavDecoder:
    """Reads one video file from its start to its end.

    Args:
        path: the file.
        max_side: pixels on the longer side of the frames, at most; None keeps the native size.
        threads: threads of the decoder; 0: by the size of the pictures.
        route: for tests and measurements: "seek" seeks to every time, "read" decodes every frame in order.
        limits: what reading may take.
        hwaccel: decodes what it can, to the same frames; None: software does.

    Raises:
        VideoError: the file cannot be read as a video.
    """

    def __init__(
        self,
        path: Path,
        max_side: int | None,
        threads: int = 0,
        route: Route = "auto",
        limits: ReadingLimits = DEFAULT_LIMITS,
        hwaccel: HwaccelName | None = None,
    ) -> None:
        self._path = path
        self._hwaccel = hwaccel
        self._route = route
        self._limits = limits
        check_file(path)
        self._budget = CpuBudget(limits, path)
        with self._budget.counting():
            try:
                self._open(max_side, threads)
            except LimitReachedError as limit:
                raise VideoError(f"{path}: no frame was decoded: {limit}", "corrupt") from limit

    def _open(self, max_side: int | None, threads: int) -> None:
        path = self._path
        self._extent = measure_extent(path, self._limits, self._budget)
        picked = self._extent.stream_index
        self._source = PacketSource(
            path, threads, self._extent.breaks, picked, self._limits, self._budget, self._hwaccel
        )
        try:
            header = read_track_header(path, self._source.container, self._source.stream)
            if header.encrypted:
                raise VideoError(f"{path}: encrypted", "unsupported")
            self._bad: set[int] = set()
            self._refused: set[int] = set()
            self._not_shown: dict[int, str] = {}
            self._limit: str | None = None
            self._times: list[int] | None = None
            self._stopped_at: float | None = None
            self._plain = self._route == "read"
            self._start_decoder(-float("inf"))
            first, self.renderer = self._first_shown(max_side, header)
            # Earlier frames cannot be decoded where a recording starts between two key frames.
            self._ahead.first_ticks = first.ticks
            self._ahead.drop_before(first.ticks)
            self._plain = self._plain or self._ahead.untimed
            self.info = self._describe(first)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """Free the file and the decoder."""
        self._source.close()

    @property
    def damage(self) -> str | None:
        """What could not be read so far, or None."""
        parts = [self._extent.damage] if self._extent.damage else []
        if self._source.failures:
            parts.append(f"{len(self._source.failures)} reads failed ({self._source.failures[0]})")
        if self._stopped_at is not None:
            parts.append(f"no frame after {self._stopped_at:.1f} s of {self._extent.end_seconds:.1f} s")
        if self._bad:
            parts.append(f"damaged packets or frames: {len(self._bad)}")
        if self._refused:
            parts.append(f"pictures left out: {len(self._refused)} ({self._why_refused})")
        if self._not_shown:
            first = next(iter(self._not_shown.values()))
            parts.append(f"frames that cannot be converted: {len(self._not_shown)} ({first})")
        if self._limit is not None:
            parts.append(self._limit)
        return ", ".join(parts) or None

    @property
    def stream_index(self) -> int | None:
        """The stream that is read."""
        return self._extent.stream_index

    @property
    def is_continuous(self) -> bool:
        """Whether the stream's clock runs from start to end without starting again."""
        return not self._extent.breaks

    @property
    def is_exact(self) -> bool:
        """Whether no frame so far depends on where reading began: nothing is damaged, and all were found by
        the times of their packets, and shown as the first one is.
        """
        in_order = self.is_continuous and not self._plain
        return in_order and self.damage is None and not self.renderer.has_other_signals

    @property
    def end_seconds(self) -> float:
        """Where the video ends, in seconds, as far as is known by now."""
        return self._extent.end_seconds if self._stopped_at is None else self._stopped_at

    def get_frames_played_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame played at each of the times, seconds, which must not decrease.

        A time before the first frame gives the first, a time past the end the last. Where the rest of the
        file cannot be decoded, fewer frames than times are yielded.

        Raises:
            VideoError: nothing can be decoded.
            ValueError: the times decrease.
        """
        if self._times is not None:  # a second call
            self._rewind()
        self._times = [self._clock.ticks(time) for time in times]
        if any(after < before for before, after in pairwise(self._times)):
            raise ValueError("times must not decrease")
        frame: Frame | None = None
        shown: TimedFrame | None = None
        num_missed = 0
        for ticks in self._times:
            with self._budget.counting():
                try:
                    decoded = self._show(ticks)
                except LimitReachedError as limit:
                    self._limit = str(limit)
                    self._stopped_at = self._end_of(frame, ticks)
                    return
                if self._gave_up(decoded, ticks):
                    return
                if frame is None or decoded is not shown:
                    frame, shown = self._render(decoded) or frame, decoded
            if frame is None:  # the first ones cannot be shown: the next stands for them
                num_missed += 1
                continue
            for _ in range(num_missed + 1):
                yield frame
            num_missed = 0

    def _describe(self, first: TimedFrame) -> VideoInfo:
        container, stream = self._source.container, self._source.stream
        tags = {name.lower(): text for name, text in container.metadata.items()}
        return VideoInfo(
            duration_seconds=self._extent.end_seconds,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            width=self.renderer.size[0],
            height=self.renderer.size[1],
            rotation=self.renderer.orientation.rotation,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.image.format.name,
            container=container.format.name,
            start_seconds=self._clock.seconds(first.ticks),
            title=tags.get("title") or None,
            container_start_seconds=float(self._clock.origin),
            text_tracks=len(text_tracks(container)),
            facts=read_facts(container, stream, datetime.now(UTC)),
        )

    def _first_shown(self, max_side: int | None, header: TrackHeader) -> tuple[TimedFrame, Renderer]:
        """The first frame that can be decoded and shown, and the renderer for it and those that follow."""
        aspect = self._source.stream.sample_aspect_ratio
        why = ""
        for _ in range(TRIES_FOR_FIRST):
            first = self._decode_next()
            if first is None:
                break
            try:
                return first, Renderer(first.image, aspect, max_side, header)
            except Exception as error:
                self._not_shown[first.ticks] = why = reason_of(error)
                self._ready.popleft()
        if self._refused and not why:
            raise VideoError(f"{self._path}: no picture is taken: {self._why_refused}", "unsupported")
        raise VideoError(f"{self._path}: no frame could be decoded{why and f' ({why})'}", "corrupt")

    @property
    def _why_refused(self) -> str:
        return f"damaged, or more than {self._limits.max_pixels} pixels (--max-pixels)"

    def _end_of(self, frame: Frame | None, ticks: int) -> float:
        """Where the video ends that was read, if nothing is known after `frame`, the last one shown."""
        if frame is None:
            return 0.0
        return min(frame.pts_seconds + frame.duration_seconds, self._clock.seconds(ticks))

    def _render(self, frame: TimedFrame) -> Frame | None:
        """A frame as it is shown, or None where it cannot be converted."""
        try:
            data = self.renderer(frame.image)
        except Exception as error:
            self._not_shown[frame.ticks] = reason_of(error)
            return None
        start = self._clock.seconds(frame.ticks)
        following = self._following(frame.ticks)
        if following is None and (self._bad or self._refused):
            following = frame.ticks + self._step
        end = self._extent.end_seconds if following is None else self._clock.seconds(following)
        return Frame(data, start, max(0.0, end - start))

    def _gave_up(self, frame: TimedFrame, ticks: int) -> bool:
        """Whether everything after `frame` is damaged, so that it would be repeated until the end."""
        lost = (self._bad or self._refused) and self._drained and not self._ready
        if not lost or (ticks - frame.ticks) * self._clock.time_base <= SHORTFALL_SECONDS:
            return False
        self._stopped_at = self._clock.seconds(frame.ticks + self._step)
        return True

    def _following(self, ticks: int) -> int | None:
        """The time of the frame after the one at `ticks`; None at the end."""
        if not self._plain:
            return self._ahead.following(ticks)
        while True:
            later = [frame.ticks for frame in self._ready if frame.ticks > ticks]
            if later or self._drained:
                return min(later, default=None)
            self._advance()

    # The state of source and decoder

    def _start_decoder(self, first_ticks: float) -> None:
        self._clock = self._source.clock
        self._step = frame_ticks(self._source.stream, self._clock)
        self._decoder = FrameDecoder(
            self._source.stream, self._step, self._bad, self._limits.max_pixels, self._refused
        )
        self._ahead = Lookahead(self._source, first_ticks, tracks=not self._plain)
        self._leave()
        self._stale = False

    def _leave(self) -> None:
        """Forget what was read and decoded: the source has moved to another place."""
        self._ahead.leave()
        self._ready: deque[TimedFrame] = deque()  # decoded, not yet shown
        self._shown: TimedFrame | None = None
        self._drained = False
        self._stale = True  # the decoder must be flushed before its next packet

    def _rewind(self) -> None:
        self._source.rewind()
        self._start_decoder(self._ahead.first_ticks)

    def _seek(self, ticks: int) -> Iterator[None]:
        """Go to key frames ever further before `ticks`, and at last to the start; yield at each."""
        back = 0
        for _ in range(MAX_SEEKS):
            if not self._source.seek(ticks - back):
                break
            self._leave()
            yield
            back = max(2 * back, self._ahead.key_gap, round(1 / self._clock.time_base))
        self._rewind()
        yield

    def _advance(self) -> None:
        """Feed the next packet to the decoder, or signal the end."""
        if self._stale:
            self._decoder.flush()
            self._stale = False
        packet = self._ahead.pop()
        if packet is not None:
            skip = self._times is not None and not self._ahead.is_needed(packet, self._times)
            self._ready.extend(self._decoder.feed(packet, skip))
        elif not self._drained:
            self._ready.extend(self._decoder.feed(None))
            self._drained = True
            in_order = self._plain or self._times is None
            if self._decoder.lost_last and in_order and self._source.stream.codec_context.thread_count != 1:
                self._source.threads = 1  # decode again without pictures in flight
                self._refused.discard(AT_END)
                self._rewind()

    def _pass(self, ticks: int) -> None:
        """Show the decoded frames that are due by `ticks`."""
        while self._ready and self._ready[0].ticks <= ticks:
            frame = self._ready.popleft()
            if self._shown is None or frame.ticks >= self._shown.ticks:
                self._shown = frame

    def _decode_next(self) -> TimedFrame | None:
        while not self._ready and not self._drained:
            self._advance()
        return self._ready[0] if self._ready else None

    def _show(self, ticks: int) -> TimedFrame:
        frame = None if self._plain else self._show_target(ticks)
        if frame is None and not self._plain:  # the frames are not those that the packets announce
            self._plain = True
            for attempt, _ in enumerate(self._seek(ticks)):
                self._ahead.tracks = False
                first = self._decode_next()
                if first is None or first.ticks > ticks:
                    continue
                if attempt >= TRIES_FOR_WHOLE or not first.image.is_corrupt:
                    break
        return frame or self._show_plain(ticks)

    # The plain way: decode every frame

    def _show_plain(self, ticks: int) -> TimedFrame:
        self._pass(ticks)
        while not self._ready and not self._drained:
            self._advance()
            self._pass(ticks)
        if self._shown is None and not self._ready:
            raise VideoError(f"{self._path}: no frame could be decoded a second time", "corrupt")
        return self._shown or self._ready[0]

    # The short way: decode only what the frame needs

    def _show_target(self, ticks: int) -> TimedFrame | None:
        if self._route == "seek" or self._source.worth_seeking(ticks, self._ahead.key_gap):
            for _ in self._seek(ticks):
                self._ahead.read_key_frame()
                self._read_ahead(ticks)
                target = self._ahead.target(ticks)
                if target is not None and target <= ticks:
                    break
        self._read_ahead(ticks)
        target = self._ahead.target(ticks)
        if self._ahead.untimed or target is None:
            return None
        for _ in range(len(self._ahead) + MAX_DELAY_PACKETS):
            self._pass(target)
            if self._ready or self._drained or (self._shown is not None and self._shown.ticks == target):
                break
            self._advance()
        self._pass(target)
        if self._shown is None or self._shown.ticks != target or self._shown.image.is_corrupt:
            return None
        self._ahead.drop_before(target)
        return self._shown

    def _read_ahead(self, ticks: int) -> None:
        while not self._ahead.is_certain(ticks):
            if self._ahead.read_for(ticks, idle=self._stale):
                self._ready.clear()
                self._shown = None
                self._stale = True
            while self._ahead.is_full:
                self._advance()
                self._pass(ticks)
