"""Whether browsers can play a file as it is: one table, and the rule that reads it.

"Playable" means that current versions of Chromium, with the codecs of Chrome, and of Firefox play picture and
sound of the file on any computer. What one of them plays with the help of some graphics cards alone, such as
HEVC, is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaDescription:
    """What a file's header says of the streams that a player plays.

    Attributes:
        container: FFmpeg's name of the format, such as "mov,mp4,m4a,3gp,3g2,mj2".
        video_codec: such as "h264".
        video_profile: such as "High"; None where the codec has none, or it is not known.
        pixel_format: as stored, such as "yuv420p".
        audio_codec: such as "aac"; None where there is no sound.
        audio_profile: such as "LC".
    """

    container: str
    video_codec: str
    video_profile: str | None
    pixel_format: str | None
    audio_codec: str | None = None
    audio_profile: str | None = None


@dataclass(frozen=True)
class _Container:
    """A container that browsers play, and the codecs that they play in it.

    Attributes:
        format: the first part of FFmpeg's name of the format.
        suffixes: with which names of files browsers take it for that; None: any.
        video: names of video codecs.
        audio: names of audio codecs.
    """

    format: str
    suffixes: frozenset[str] | None
    video: frozenset[str]
    audio: frozenset[str]


@dataclass(frozen=True)
class _Codec:
    """Of a video codec, the profiles and pixel formats that browsers play; None: any."""

    profiles: frozenset[str | None] | None
    pixel_formats: frozenset[str]


_EIGHT_BITS = frozenset({"yuv420p", "yuvj420p"})
#: FFmpeg decodes a stream without a profile; so do browsers.
_H264_PROFILES = frozenset({"Baseline", "Constrained Baseline", "Main", "Extended", "High", None})

_CONTAINERS = (
    _Container(
        "mov",
        None,
        frozenset({"h264", "av1", "vp9"}),
        frozenset({"aac", "mp3", "opus", "flac"}),
    ),
    # Matroska is WebM with more codecs, and FFmpeg calls both the same: browsers go by the name of the file.
    _Container(
        "matroska", frozenset({".webm"}), frozenset({"vp8", "vp9", "av1"}), frozenset({"opus", "vorbis"})
    ),
)
_VIDEO_CODECS = {
    "h264": _Codec(_H264_PROFILES, _EIGHT_BITS),
    "vp8": _Codec(None, frozenset({"yuv420p", "yuva420p"})),
    "vp9": _Codec(frozenset({"Profile 0", None}), frozenset({"yuv420p", "yuva420p"})),
    "av1": _Codec(frozenset({"Main"}), frozenset({"yuv420p", "yuv420p10le"})),
}
#: Of AAC, browsers play these; other codecs of the table have no profiles that they lack.
_AAC_PROFILES = frozenset({"LC", "HE-AAC", "HE-AACv2", None})


def why_not_playable(media: MediaDescription, suffix: str) -> str | None:
    """Why browsers cannot play a file as it is; None: they can.

    Args:
        media: its description.
        suffix: that of its name, such as ".mp4".
    """
    why = _why_not_decodable(media)
    if why is not None:
        return why
    name = media.container.split(",")[0]
    container = next((each for each in _CONTAINERS if each.format == name), None)
    if container is None or (container.suffixes is not None and suffix.lower() not in container.suffixes):
        return f"browsers do not play files of the format {name}"
    if media.video_codec not in container.video:
        return f"browsers do not play {media.video_codec} in files of the format {name}"
    if media.audio_codec is not None and media.audio_codec not in container.audio:
        return f"browsers do not play sound in {media.audio_codec} in files of the format {name}"
    return None


def _why_not_decodable(media: MediaDescription) -> str | None:
    """Why browsers cannot decode the picture or the AAC of any file; None: they can."""
    codec = _VIDEO_CODECS.get(media.video_codec)
    if codec is None:
        return f"browsers do not play {media.video_codec}"
    if codec.profiles is not None and media.video_profile not in codec.profiles:
        return f"browsers do not play {media.video_codec} of the profile {media.video_profile}"
    if media.pixel_format not in codec.pixel_formats:
        return f"browsers do not play {media.video_codec} with pixels as {media.pixel_format}"
    if media.audio_codec == "aac" and media.audio_profile not in _AAC_PROFILES:
        return f"browsers do not play AAC of the profile {media.audio_profile}"
    return None
