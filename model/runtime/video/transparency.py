"""Transparent pictures, shown over black as players show them."""

from functools import cache
from typing import cast

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from model.runtime.video.colour import matrix_of

# FFmpeg's own decoders of these codecs leave out the alpha that Matroska stores beside each frame.
DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# Worked on at a time: a whole picture would take ten times its memory.
ROWS = 64


def decoder_with_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder that gives a stream's transparency where the usual one does not; else None."""
    name = DECODERS_WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    context = cast(VideoCodecContext, CodecContext.create(name, "r"))
    context.extradata = stream.codec_context.extradata
    context.thread_count = stream.codec_context.thread_count
    context.options = dict(stream.codec_context.options)
    return context


def over_black(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in RGB over black, of the same size; an opaque frame as it is."""
    if not _may_be_transparent(frame.format.name):
        return frame
    matrix = matrix_of(frame)
    converted = VideoReformatter().reformat(
        frame,
        format="rgba",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    pixels = converted.to_ndarray()
    alpha = pixels[..., 3:]
    # Old codecs leave the palette's alpha at 0 where they mean nothing by it.
    if alpha.min() == 255 or (frame.format.has_palette and alpha.max() == 0):
        return frame
    colours = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), ROWS):
        rows = slice(top, top + ROWS)
        colours[rows] = (pixels[rows, :, :3] * alpha[rows].astype(np.uint16) + 127) // 255
    return av.VideoFrame.from_ndarray(colours, format="rgb24")


@cache
def _may_be_transparent(name: str) -> bool:
    form = VideoFormat(name)
    return form.has_palette or any(part.is_alpha for part in form.components)
