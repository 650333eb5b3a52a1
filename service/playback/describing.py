"""Reads what a file's header says of the streams that a player plays."""

from __future__ import annotations

from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from model.runtime.video.limits import ReadingLimits
from model.runtime.video.probe import open_container
from model.runtime.video.sound import pick_sound
from model.runtime.video.streams import pick_stream
from service.playback.playable import MediaDescription


def describe_file(path: Path, limits: ReadingLimits) -> MediaDescription:
    """Describe a file.

    Raises:
        VideoError: it cannot be read as a video.
    """
    with open_container(path, limits) as container:
        return describe(container, pick_stream(container, path, limits), pick_sound(container))


def describe(container: InputContainer, video: VideoStream, audio: AudioStream | None) -> MediaDescription:
    """Describe the streams of an open file that a player plays."""
    picture = video.codec_context
    sound = None if audio is None else audio.codec_context
    return MediaDescription(
        container=container.format.name,
        video_codec=picture.codec.canonical_name,
        video_profile=picture.profile,
        pixel_format=picture.pix_fmt,
        audio_codec=None if sound is None else sound.codec.canonical_name,
        audio_profile=None if sound is None else sound.profile,
    )
