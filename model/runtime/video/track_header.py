"""What a container's header says of a video stream that FFmpeg does not pass on."""

from dataclasses import dataclass
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from model.runtime.video.cropping import NOTHING, Crop
from model.runtime.video.ebml import read_video_track
from model.runtime.video.isobmff import read_sample_entries
from model.runtime.video.scrambling import is_scrambled


@dataclass(frozen=True)
class TrackHeader:
    """What is said of one video stream.

    Attributes:
        crop: the edges that are not to be shown.
        encrypted: its frames are encrypted, all or some of them.
        dolby_vision: its profile of Dolby Vision, or None.
    """

    crop: Crop = NOTHING
    encrypted: bool = False
    dolby_vision: int | None = None


def read_track_header(path: Path, container: InputContainer, stream: VideoStream) -> TrackHeader:
    """Read the header of a stream; a container that says nothing gives the defaults.

    Raises:
        OSError: the file cannot be read.
    """
    kind = container.format.name.split(",")[0]
    if kind == "mov":
        entries = read_sample_entries(path, stream.id)
        if not entries:
            return TrackHeader()
        encrypted = any(entry.encrypted for entry in entries)
        return TrackHeader(entries[0].crop, encrypted, entries[0].dolby_vision)
    if kind == "matroska":
        track = read_video_track(path, list(container.streams.video).index(stream))
        return TrackHeader(track.crop, track.encrypted, track.dolby_vision) if track else TrackHeader()
    return TrackHeader(encrypted=is_scrambled(path, kind, stream.id, _tag(stream)[0]))


def _tag(stream: VideoStream) -> bytes:
    """The four bytes of a stream's tag; PyAV decodes them as ASCII."""
    try:
        return stream.codec_tag.encode()
    except UnicodeDecodeError as error:
        return error.object
