"""Chooses the stream that a player shows, where a file has several of pictures."""

from pathlib import Path

from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from model.runtime.errors import VideoError
from model.runtime.video.limits import ReadingLimits
from model.runtime.video.probe import open_container

# Beside a film, a stream of these codecs holds its thumbnails or its cover.
PICTURE_CODECS = ("mjpeg", "mjpegb", "jpegls", "jpegxl", "png", "apng", "bmp", "gif", "tiff", "webp")
# Read to find out whether a stream has a second picture, at most.
MAX_PACKETS = 2000
MAX_BYTES = 32 << 20


def film_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of pictures, without those that the file calls attached."""
    return [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]


def pick_stream(
    container: InputContainer, path: Path, limits: ReadingLimits, picked: int | None = None
) -> VideoStream:
    """Choose the video stream that a player shows, and have FFmpeg leave out all others.

    Films come before single pictures and thumbnails, then default streams before others, then the first: mpv,
    VLC and Chromium take the first too, not the largest.

    Args:
        container: the file, open.
        path: the file.
        limits: how large pictures may be.
        picked: the index of the stream, where it was chosen before.

    Raises:
        VideoError: there is no video stream, no decoder for it, or its pictures are too large.
    """
    videos = film_streams(container)
    if not videos:
        kind = "audio only" if container.streams.audio else "no video stream"
        raise VideoError(f"{path}: {kind}", "unsupported")
    streams = [s for s in videos if s.codec_context is not None]
    if not streams:
        raise VideoError(f"{path}: no decoder is installed for its video stream", "unsupported")
    again = [s for s in streams if s.index == picked]
    if again:
        stream = again[0]
    else:
        stills = _single_pictures(path, streams, limits) if len(streams) > 1 else set()
        stream = max(streams, key=lambda s: (_film_rank(s, s.index in stills), _is_default(s), -s.index))
    if stream.width * stream.height > limits.max_pixels:
        raise VideoError(
            f"{path}: {stream.width}x{stream.height} is more than {limits.max_pixels} pixels (--max-pixels)",
            "unsupported",
        )
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


def _is_default(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.default)


def _film_rank(stream: VideoStream, single: bool) -> int:
    """3 for a film; less for thumbnails, for a single picture, and where no picture was found at all."""
    kinds = stream.disposition
    if not stream.width:
        return 0
    if single or kinds & (kinds.timed_thumbnails | kinds.still_image):
        return 1
    return 2 if stream.codec_context.codec.canonical_name in PICTURE_CODECS else 3


def _single_pictures(path: Path, streams: list[VideoStream], limits: ReadingLimits) -> set[int]:
    """The indices of the streams that hold one picture: by their header, else by their packets."""
    known = {stream.index for stream in streams if stream.frames == 1}
    unknown = [stream.index for stream in streams if not stream.frames]
    if not unknown:
        return known
    counts = dict.fromkeys(unknown, 0)
    num_packets = num_bytes = 0
    with open_container(path, limits) as container:
        for packet in container.demux([container.streams[index] for index in unknown]):
            num_packets += 1
            num_bytes += packet.size
            counts[packet.stream_index] += packet.size > 0
            if min(counts.values()) > 1 or num_packets > MAX_PACKETS or num_bytes > MAX_BYTES:
                break
    return known | {index for index, count in counts.items() if count <= 1}
