"""What a container's header says of a video stream that FFmpeg does not pass on."""

from dataclasses import dataclass
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from model.runtime.video.cropping import NOTHING, Crop
from model.runtime.video.ebml import read_video_track
from model.runtime.video.isobmff import read_sample_entry


@dataclass(frozen=True)
class TrackHeader:
    """What is said of one video stream.

    Attributes:
        crop: the edges that are not to be shown.
    """

    crop: Crop = NOTHING


def read_track_header(path: Path, container: InputContainer, stream: VideoStream) -> TrackHeader:
    """Read the header of a stream; a container that says nothing gives the defaults.

    Raises:
        OSError: the file cannot be read.
    """
    kind = container.format.name.split(",")[0]
    if kind == "mov":
        entry = read_sample_entry(path, stream.id)
        return TrackHeader(entry.crop) if entry else TrackHeader()
    if kind == "matroska":
        track = read_video_track(path, list(container.streams.video).index(stream))
        return TrackHeader(track.crop) if track else TrackHeader()
    return TrackHeader()
