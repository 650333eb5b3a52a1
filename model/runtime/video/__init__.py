"""Reading videos: segments, and the frames on display at given times, with the times a player shows."""

from model.runtime.errors import VideoError
from model.runtime.video.reader import VideoReader, probe
from model.runtime.video.sampling import middle_times, plan_segments
from model.runtime.video.types import DecoderName, FrameBatch, Picture, Segment, Span, VideoInfo

__all__ = [
    "DecoderName",
    "FrameBatch",
    "Picture",
    "Segment",
    "Span",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "middle_times",
    "plan_segments",
    "probe",
]
