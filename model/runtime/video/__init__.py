"""Reads videos: their segments, and the frames played at given times."""

from model.runtime.errors import VideoError
from model.runtime.video.hardware import HwaccelName
from model.runtime.video.limits import ReadingLimits
from model.runtime.video.reader import VideoReader, probe
from model.runtime.video.sampling import middle_times, plan_segments
from model.runtime.video.types import DecoderName, Frame, FrameBatch, Segment, Span, VideoInfo

__all__ = [
    "DecoderName",
    "Frame",
    "FrameBatch",
    "HwaccelName",
    "ReadingLimits",
    "Segment",
    "Span",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "middle_times",
    "plan_segments",
    "probe",
]
