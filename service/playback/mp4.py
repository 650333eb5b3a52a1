"""Writes pictures and sound as MP4 with H.264 and AAC. Shapes: n samples."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray

from service.playback.pictures import Picture
from service.playback.sound_track import CHANNELS, RATE, Block

if TYPE_CHECKING:
    Encoded = av.Packet[VideoStream] | av.Packet[AudioStream]

#: Ticks a second of the pictures' times: the clock of MPEG, in which all usual frame rates are whole.
TICKS = 90000
#: A picture that needs no other comes at least so often: where a player can go to.
_KEY_SECONDS = 2.0
#: Samples of one frame of AAC.
_SOUND_FRAME = 1024
_BT709 = 1
#: The kind of H.264's units that hold the parameters of a sequence.
_PARAMETERS = 7
#: Fragments of a stream, in microseconds.
_FRAGMENT = 500_000
#: A stream can be read from its first byte on, and its times are as they are: see `Mp4Writer`.
_STREAM_OPTIONS = MappingProxyType(
    {
        "movflags": "empty_moov+default_base_moof+frag_keyframe",
        "frag_duration": str(_FRAGMENT),
        "avoid_negative_ts": "disabled",
        "flush_packets": "1",
    }
)
_FILE_OPTIONS: Mapping[str, str] = MappingProxyType({})
#: x264's options. A stream must not be larger than networks at home carry.
_STREAM_PICTURES = MappingProxyType({"preset": "veryfast", "crf": "23", "maxrate": "5M", "bufsize": "10M"})
_FILE_PICTURES = MappingProxyType({"preset": "veryfast", "crf": "18"})
#: Bits a second of sound.
STREAM_SOUND, FILE_SOUND = 128_000, 192_000


class Output(Protocol):
    """Where to write. For a file, it has `seek` and `tell` as well."""

    def write(self, data: bytes) -> int:
        """Write all of the bytes."""


class PictureEncoder:
    """Encodes pictures as H.264 into a stream of a container, without reordering them.

    Args:
        container: what is written.
        size: columns and rows, both even.
        fps: the usual number of pictures a second.
        options: x264's.
        threads: of the encoder.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        size: tuple[int, int],
        fps: float,
        options: Mapping[str, str],
        threads: int,
    ) -> None:
        self._container = container
        rate = Fraction(min(max(fps, 1.0), 240.0)).limit_denominator(1001)
        self.stream: VideoStream = container.add_stream("libx264", rate=rate, options=dict(options))
        context = self.stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.profile = "High"
        context.time_base = Fraction(1, TICKS)
        context.max_b_frames = 0
        context.gop_size = max(1, round(_KEY_SECONDS * float(rate)))
        context.thread_count = threads
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._last: int | None = None
        self._last_key: int | None = None
        #: The last packet that came out. How long it stays is known with the next one.
        self._held: Encoded | None = None

    def add(self, picture: Picture) -> None:
        """Encode the next picture. It must appear later than the one before, else it is left out."""
        ticks = round(picture.seconds * TICKS)
        if self._last is not None and ticks <= self._last:
            return
        self._last = ticks
        frame = picture.image
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        # It may still say how the file's own encoder has made it.
        frame.pict_type = PictureType.NONE
        # Where pictures are far apart, counting them would let the next key picture wait for minutes.
        if self._last_key is None or ticks - self._last_key >= _KEY_SECONDS * TICKS:
            frame.pict_type = PictureType.I
            self._last_key = ticks
        for packet in self.stream.encode(frame):
            self._mux(packet)

    def close(self, end_seconds: float) -> None:
        """Encode the rest; the last picture stays until `end_seconds`."""
        for packet in self.stream.encode(None):
            self._mux(packet)
        if self._held is not None and self._held.pts is not None:
            self._held.duration = max(1, round(end_seconds * TICKS) - self._held.pts)
            self._container.mux(self._held)

    def _mux(self, packet: Encoded) -> None:
        if self._held is not None and self._held.pts is not None and packet.pts is not None:
            self._held.duration = packet.pts - self._held.pts
            self._container.mux(self._held)
        self._held = packet


class SoundEncoder:
    """Encodes sound as AAC into a stream of a container.

    AAC's first frame lies before the first sample, since each frame needs the one before. A stream that is
    played from its first byte on has no place for it: it begins with the frame at time 0.

    Args:
        container: what is written.
        bit_rate: bits a second.
        from_zero: leave out what lies before time 0.
    """

    def __init__(self, container: av.container.OutputContainer, bit_rate: int, *, from_zero: bool) -> None:
        self._container = container
        self._from_zero = from_zero
        self.stream: AudioStream = container.add_stream("aac", rate=RATE, layout="stereo")
        self.stream.codec_context.bit_rate = bit_rate
        self._waiting: NDArray[np.int16] = np.empty((0, CHANNELS), np.int16)
        self._num_encoded = 0

    @property
    def seconds(self) -> float:
        """How much sound was taken so far."""
        return (self._num_encoded + len(self._waiting)) / RATE

    def add(self, block: Block) -> None:
        """Encode more samples, int16 [n, 2]."""
        samples = np.concatenate([self._waiting, block])
        whole = len(samples) // _SOUND_FRAME * _SOUND_FRAME
        for first in range(0, whole, _SOUND_FRAME):
            self._encode(samples[first : first + _SOUND_FRAME])
        self._waiting = samples[whole:]

    def close(self) -> None:
        """Encode the rest."""
        if len(self._waiting):
            self._encode(self._waiting)
        self._mux(self.stream.encode(None))

    def _encode(self, samples: Block) -> None:
        planes = np.ascontiguousarray(samples.T, np.float32) / np.float32(32768)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._num_encoded, Fraction(1, RATE)
        self._num_encoded += len(samples)
        self._mux(self.stream.encode(frame))

    def _mux(self, packets: list[Encoded]) -> None:
        for packet in packets:
            if not self._from_zero or (packet.pts is not None and packet.pts >= 0):
                self._container.mux(packet)


class Mp4Writer:
    """Writes one video as MP4: as a stream, or as a file.

    A stream is fragmented, so that it can be played while it is made. The times in it are exactly those that
    were given: the encoders neither reorder pictures nor begin before time 0, so nothing has to be moved.

    Args:
        output: where to write; for a file it must be able to seek.
        size: columns and rows of the pictures, both even.
        fps: the usual number of pictures a second.
        with_sound: whether there will be sound.
        is_stream: whether to write a stream.
        threads: of the encoder.
    """

    def __init__(
        self,
        output: Output,
        size: tuple[int, int],
        fps: float,
        *,
        with_sound: bool,
        is_stream: bool,
        threads: int,
    ) -> None:
        options = _STREAM_OPTIONS if is_stream else _FILE_OPTIONS
        self._container = av.open(output, "w", format="mp4", options=dict(options))
        pictures = _STREAM_PICTURES if is_stream else _FILE_PICTURES
        self.pictures = PictureEncoder(self._container, size, fps, pictures, threads)
        self.sound: SoundEncoder | None = None
        if with_sound:
            rate = STREAM_SOUND if is_stream else FILE_SOUND
            self.sound = SoundEncoder(self._container, rate, from_zero=is_stream)
        self.pictures.stream.codec_context.open()

    @property
    def media_type(self) -> str:
        """The content type, with the codecs."""
        profile = _profile_of(self.pictures.stream.codec_context.extradata or b"")
        codecs = [f"avc1.{profile}", *(["mp4a.40.2"] if self.sound else [])]
        return f'video/mp4; codecs="{", ".join(codecs)}"'

    def close(self, end_seconds: float) -> None:
        """Write the rest; the last picture stays until `end_seconds`."""
        self.pictures.close(end_seconds)
        if self.sound is not None:
            self.sound.close()
        self._container.close()


def _profile_of(setup: bytes) -> str:
    """Profile, constraints and level of H.264 as browsers name them, from its sequence parameters."""
    units = setup.split(b"\0\0\1")
    return next(unit[1:4].hex() for unit in units if unit and unit[0] & 31 == _PARAMETERS)
