"""Makes a stream or an encoded clip of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from model.runtime.errors import VideoError
from model.runtime.video.limits import ReadingLimits
from model.runtime.video.onward import OnwardReader
from service.playback.jobs import ClipJob, StreamJob
from service.playback.mp4 import Mp4Writer, Output
from service.playback.pictures import read_pictures
from service.playback.sound_track import RATE, Block, has_sound, silence, sound_blocks


def encode(
    path: Path,
    job: StreamJob | ClipJob,
    limits: ReadingLimits,
    threads: int,
    output: Output,
    announce: Callable[[str], None],
) -> None:
    """Decode a part of a video and encode it.

    Args:
        path: the file.
        job: which part, and how.
        limits: what reading may take.
        threads: of the decoder and of the encoder, each.
        output: where to write.
        announce: is called with the content type before the first byte is written.

    Raises:
        VideoError: no picture of the part can be decoded.
    """
    end = job.end_seconds if isinstance(job, ClipJob) else None
    reader = OnwardReader(path, limits, job.known_seconds, threads)
    try:
        pictures = read_pictures(reader, job.start_seconds, end, job.max_height)
        first = next(pictures, None)
        if first is None:
            raise VideoError("there is no picture in this part of the video", "corrupt")
        with_sound = has_sound(path, limits)
        writer = Mp4Writer(
            output,
            (first.image.width, first.image.height),
            reader.fps,
            with_sound=with_sound,
            is_stream=isinstance(job, StreamJob),
            threads=threads,
        )
        announce(writer.media_type)
        sound: Iterator[Block] = iter(())
        if with_sound:
            sound = sound_blocks(path, limits, reader.extent, job.start_seconds, end)
        writer.pictures.add(first)
        reached = first.seconds
        for picture in pictures:
            _add_sound(writer, sound, picture.seconds)
            writer.pictures.add(picture)
            reached = picture.seconds
        stop = reader.extent.end_seconds if end is None else min(end, reader.extent.end_seconds)
        length = max(reached, stop - job.start_seconds)
        _add_sound(writer, sound, None)
        if writer.sound is not None:
            # Players stop, or wait, where one of two tracks has ended.
            for block in silence(round((length - writer.sound.seconds) * RATE)):
                writer.sound.add(block)
        writer.close(length)
    finally:
        reader.close()


def _add_sound(writer: Mp4Writer, sound: Iterator[Block], until_seconds: float | None) -> None:
    """Encode the sound up to a time; None: up to its end."""
    while writer.sound is not None and (until_seconds is None or writer.sound.seconds < until_seconds):
        block = next(sound, None)
        if block is None:
            return
        writer.sound.add(block)
