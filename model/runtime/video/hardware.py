"""Decoding by a GPU, through FFmpeg's `hwaccel` in PyAV: the frames are those of software, bit by bit."""

from typing import Literal, get_args

import av
from av.codec.context import CodecContext
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from model.runtime.messages import first_line

#: "cuda": NVDEC of an NVIDIA GPU.
HwaccelName = Literal["cuda"]
HWACCEL_NAMES: tuple[HwaccelName, ...] = get_args(HwaccelName)
#: Codecs whose standard says each bit of a frame, and whose decoder in FFmpeg does in software what the GPU
#: cannot. (FFmpeg's own decoder of AV1 cannot; MPEG-2 and MPEG-4 leave the rounding open.)
EXACT_CODECS = ("h264", "hevc", "vp8", "vp9")
#: What comes from a GPU, and what software gives for the same stream.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p016le": "yuv420p12le"}
_PLANAR_FULL_RANGE = {"nv12": "yuvj420p"}


def hwaccel_settings(name: HwaccelName) -> HWAccel:
    """PyAV's settings: frames come back to the memory of the CPU; what the GPU cannot, software does."""
    return HWAccel(name, allow_software_fallback=True)


def why_unavailable(name: HwaccelName) -> str | None:
    """Why nothing can be decoded by this hardware here; None: it can."""
    try:
        context = CodecContext.create("h264", "r", hwaccel=hwaccel_settings(name))
    except (av.FFmpegError, OSError) as error:
        return f"FFmpeg cannot open {name}: {error.strerror or first_line(error)}"
    return None if context.is_hwaccel else f"this FFmpeg is built without {name}"


def as_software(frame: VideoFrame) -> VideoFrame:
    """A frame from a GPU in software's pixel format, with the same values; any other frame as it is."""
    full = frame.color_range == ColorRange.JPEG
    planar = (_PLANAR_FULL_RANGE if full else {}).get(frame.format.name) or _PLANAR.get(frame.format.name)
    if planar is None:
        return frame
    # The range is said on both sides, so that nothing is scaled.
    range_ = ColorRange.JPEG if full else ColorRange.MPEG
    same = VideoReformatter().reformat(
        frame, format=planar, src_color_range=range_, dst_color_range=range_, threads=1
    )
    same.color_range = frame.color_range
    return same
