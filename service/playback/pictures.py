"""The pictures of a video from a time on, as they are to be encoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av

from model.runtime.errors import VideoError
from model.runtime.video.interlacing import Deinterlacer
from model.runtime.video.onward import OnwardFrame, OnwardReader
from model.runtime.video.probe import reason_of
from model.runtime.video.render import Renderer

#: How wide a picture may be for its height before its width is what counts.
_WIDEST = 16 / 9
#: Times are rounded.
_ROUNDING = 1e-6
#: Frames tried until one can be shown.
_TRIES_FOR_FIRST = 16


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, upright, as `Renderer.to_yuv` gives it. All of a video have the same size.

    `seconds` is when it appears, counted from the chosen time.
    """

    seconds: float
    image: av.VideoFrame


def encoded_size(width: int, height: int, max_height: int) -> tuple[int, int]:
    """The size to encode a picture in, as it is displayed; never larger, and even, as H.264 wants it.

    Args:
        width: columns.
        height: rows.
        max_height: of a picture that is wider than high, the most rows, and 16/9 of it the most columns; of
            one that is higher than wide, the other way around.
    """
    shorter, longer = sorted((width, height))
    scale = min(1.0, max_height / shorter, max_height * _WIDEST / longer)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def read_pictures(
    reader: OnwardReader, start_seconds: float, end_seconds: float | None, max_height: int
) -> Iterator[Picture]:
    """Yield the picture that is played at a time, as if it appeared then, and those that follow, each later.

    Args:
        reader: reads the frames.
        start_seconds: the time.
        end_seconds: what appears from here on is left out; None: nothing.
        max_height: see `encoded_size`.

    Raises:
        VideoError: no frame can be decoded or shown.
    """
    renderer: Renderer | None = None
    failures: list[str] = []
    is_shown = False
    for frame in _progressive(reader.frames(start_seconds)):
        if is_shown and end_seconds is not None and frame.pts_seconds >= end_seconds - _ROUNDING:
            return
        try:
            renderer = renderer or _renderer(reader, frame, max_height)
            image = renderer.to_yuv(frame.image)
        except Exception as error:
            # Decoders give frames that cannot be converted where a file is damaged.
            failures.append(reason_of(error))
            if not is_shown and len(failures) >= _TRIES_FOR_FIRST:
                break
            continue
        yield Picture(frame.pts_seconds - start_seconds if is_shown else 0.0, image)
        is_shown = True
    if not is_shown:
        raise VideoError(
            f"no frame could be shown ({failures[0] if failures else 'there is none'})", "corrupt"
        )


def _renderer(reader: OnwardReader, frame: OnwardFrame, max_height: int) -> Renderer:
    aspect = reader.stream.sample_aspect_ratio
    native = Renderer(frame.image, aspect, None, reader.header)
    return Renderer(
        frame.image, aspect, None, reader.header, encoded_size(*native.size, max_height), quick=True
    )


def _progressive(frames: Iterator[OnwardFrame]) -> Iterator[OnwardFrame]:
    """The frames, de-interlaced if the first is of two fields."""
    first = next(frames, None)
    if first is None:
        return
    if not first.image.interlaced_frame:
        yield first
        yield from frames
        return
    deinterlacer = Deinterlacer()
    times = [first.pts_seconds]
    for image in deinterlacer.add(first.image):
        yield OnwardFrame(times.pop(0), image)
    for frame in frames:
        times.append(frame.pts_seconds)
        for image in deinterlacer.add(frame.image):
            yield OnwardFrame(times.pop(0), image)
    for image in deinterlacer.rest():
        yield OnwardFrame(times.pop(0), image)
