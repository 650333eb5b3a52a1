"""Figure 4 of the LGDN paper: frames of a video with their relevance for a text, the salient ones in red.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.arrays import Array, Frames
from model.families.encoder import Encoder
from model.runtime.errors import InputError
from model.runtime.files import replacing
from model.runtime.ranking import relevance, select_salient
from model.runtime.video import VideoReader

_WIDTH, _TALLEST, _GAP, _MARGIN, _FRAME = 248, 260, 14, 28, 6
_INK, _GREY, _RED, _PAPER = (28, 28, 30), (120, 120, 126), (206, 32, 41), (255, 255, 255)
_LINE = (226, 226, 230)
_MOST_LINES = 3


@dataclass(frozen=True)
class FigureRow:
    """One row of the figure: a text and frames of its video.

    Attributes:
        text: the query.
        frames: uint8 [N, h, w, 3].
        relevance: of each frame for the text, [N].
        salient: which frames are salient, bool [N].
        times: of the frames, in seconds.
        caption: written small below the text.
    """

    text: str
    frames: Frames
    relevance: Array
    salient: NDArray[np.bool_]
    times: Sequence[float] = ()
    caption: str = ""


def choose_segment(
    encoder: Encoder,
    text: str,
    path: Path,
    *,
    frames: int = 5,
    num_salient: int | None = None,
    caption: str = "",
) -> FigureRow:
    """The best segment of a video for a text, sampled at the middle of equal parts, and its salient frames.

    Args:
        encoder: estimates relevance.
        text: the query.
        path: the video.
        frames: number of frames to show.
        num_salient: number of frames to mark; None: as many as the model re-ranks by.
        caption: written below the text.

    Raises:
        InputError: `frames` is below 1 or above the model's frames a segment.
        VideoError: the video cannot be decoded.
    """
    profile = encoder.profile
    if not 1 <= frames <= profile.frames_per_segment:
        raise InputError(f"{frames} frames in a figure: show 1 to {profile.frames_per_segment}")
    query = encoder.texts([text])
    candidates: list[tuple[float, FigureRow]] = []
    with VideoReader(path) as reader:
        for segment in reader.segments(profile.segment_seconds, frames):
            data = segment.frames.data
            encoding = encoder.frames(profile.resizing.frames(data))
            whole = encoder.segments(encoding.embedding[None], np.ones((1, len(data)), np.float32))
            relevant = relevance(encoding.salience[None], query.salience[0])
            index, mask = select_salient(
                relevant, np.array([len(data)]), num_salient or profile.num_salient_frames
            )
            salient = np.zeros(len(data), np.bool_)
            salient[index[mask]] = True
            times = tuple(float(t) for t in segment.frames.pts_seconds)
            row = FigureRow(text, data, relevant[0], salient, times, caption)
            candidates.append((float(whole[0] @ query.embedding[0]), row))
    return max(candidates, key=lambda pair: pair[0])[1]


def draw_figure(rows: Sequence[FigureRow], note: str = "") -> Image.Image:
    """Draw the rows below each other, and `note` below them.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("a figure without rows: pass at least one")
    most = max(len(row.frames) for row in rows)
    width = 2 * _MARGIN + most * (_WIDTH + 2 * _FRAME) + (most - 1) * _GAP
    texts = [_wrapped(row.text, width - 2 * _MARGIN) for row in rows]
    heights = [_height(row, len(lines)) for row, lines in zip(rows, texts, strict=True)]
    bottom = 40 if note else 0
    image = Image.new("RGB", (width, _MARGIN + sum(heights) + bottom), _PAPER)
    pen = ImageDraw.Draw(image)
    top = _MARGIN
    for i, (row, lines) in enumerate(zip(rows, texts, strict=True)):
        if i:
            pen.line((_MARGIN, top - 16, width - _MARGIN, top - 16), _LINE, 1)
        _draw_row(image, pen, row, lines, top)
        top += heights[i]
    if note:
        pen.text((_MARGIN, top - 8), note, _GREY, _font(15))
    return image


def save_figure(rows: Sequence[FigureRow], path: Path, note: str = "") -> None:
    """Draw to a file, whose suffix names the format.

    Raises:
        ValueError: there is no row.
        InputError: the suffix is unknown, or the file cannot be written.
    """
    image = draw_figure(rows, note)
    try:
        with replacing(path) as temporary:
            image.save(temporary)
    except (OSError, ValueError) as error:
        raise InputError(f"the figure cannot be written to {path}: {error}") from error


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _drawn_size(frames: Frames) -> tuple[int, int]:
    """Width and height of a whole frame within its column."""
    height, width = frames.shape[1:3]
    scale = min(_WIDTH / width, _TALLEST / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _height(row: FigureRow, lines: int) -> int:
    caption = 24 if row.caption else 0
    return lines * 30 + caption + 8 + _drawn_size(row.frames)[1] + 2 * _FRAME + 34 + 36


def _wrapped(text: str, width: int) -> list[str]:
    """The text in quotes, broken into lines; what exceeds the last line is left out."""
    font = _font(23)
    lines = [""]
    for word in f"“{' '.join(text.split())}”".split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} …”"]
    return lines


def _draw_row(
    image: Image.Image, pen: ImageDraw.ImageDraw, row: FigureRow, lines: Sequence[str], top: int
) -> None:
    for line in lines:
        pen.text((_MARGIN, top), line, _INK, _font(23))
        top += 30
    if row.caption:
        pen.text((_MARGIN, top + 2), row.caption, _GREY, _font(15))
        top += 24
    top += 8
    width, height = _drawn_size(row.frames)
    for i, frame in enumerate(row.frames):
        left = _MARGIN + i * (_WIDTH + 2 * _FRAME + _GAP)
        drawn = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
        if row.salient[i]:
            box = (left, top, left + width + 2 * _FRAME - 1, top + height + 2 * _FRAME - 1)
            pen.rounded_rectangle(box, radius=6, fill=_RED)
        image.paste(drawn, (left + _FRAME, top + _FRAME))
        below = top + height + 2 * _FRAME + 5
        colour = _RED if row.salient[i] else _INK
        value = f"{row.relevance[i]:.2f}".replace("-", "−")
        pen.text((left + _FRAME, below), value, colour, _font(21))
        if len(row.times):
            time = f"{row.times[i]:.1f} s"
            place = left + _FRAME + max(width, 110) - _font(15).getlength(time)
            pen.text((place, below + 5), time, _GREY, _font(15))
