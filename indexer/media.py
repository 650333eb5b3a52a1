"""Reads the sound or the pictures of a video for a stage, in chunks.

As with pictures for the index, an engine decides where it runs: where a file may do no harm. This module
imports neither Lance, FAISS nor ONNX Runtime, so that a decoding process starts fast.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.decode import OUT_OF_MEMORY, Alive, FileUnreached
from indexer.place import place_error, unreached
from indexer.texts import SourceRead
from model.runtime.errors import VideoError
from model.runtime.faults import checkpoint
from model.runtime.remote.path import media_path
from model.runtime.video import DecoderName, ReadingLimits, VideoReader
from model.runtime.video.facts import VideoFacts, read_facts
from model.runtime.video.limits import LimitReachedError
from model.runtime.video.probe import open_container
from model.runtime.video.small_frames import SmallFrameReader
from model.runtime.video.sound import RATE, SoundReader

#: What is read of a video: its sound; the pictures that the index samples; all frames, very small; or what
#: its header says of the recording.
MediaKind = Literal["audio", "pictures", "small_pictures", "facts"]
#: Samples of one chunk of sound, at most: a minute.
MAX_SAMPLES = 60 * RATE
#: Bytes of pictures in one chunk, at most; one picture may be larger.
MAX_PICTURE_BYTES = 4 << 20


@dataclass(frozen=True)
class MediaJob:
    """What to read of one video.

    Attributes:
        path: the file's path in bytes, which need not be UTF-8.
        kind: what of it.
        decoder: the library that reads sampled pictures.
        segment_seconds: of sampled pictures, as for the index: the longest segment.
        frames_per_segment: and how many pictures are sampled from it, at most.
        max_side: pixels on the longer side of sampled pictures, at most.
        device: the device (`st_dev`) that the file was on when it was found; None: any.
        size: the file's size in bytes; 0: unknown.
        duration_seconds: the video's length; 0: unknown.
        reading: what reading may take.
    """

    path: bytes
    kind: MediaKind
    decoder: DecoderName = "pyav"
    segment_seconds: float = 32.0
    frames_per_segment: int = 16
    max_side: int = 960
    device: int | None = None
    size: int = 0
    duration_seconds: float = 0.0
    reading: ReadingLimits = field(default_factory=ReadingLimits)

    @property
    def file(self) -> Path:
        """The file's path."""
        return media_path(self.path)


@dataclass(frozen=True, eq=False)
class SoundChunk:
    """Sound without a gap in it.

    Attributes:
        start_seconds: when its first sample is heard, in seconds from the start of the video, as those of
            frames; never before the end of the chunk before, and later than that where sound is missing.
        samples: one channel at `RATE` samples a second, int16 [n].
    """

    start_seconds: float
    samples: NDArray[np.int16]

    @property
    def end_seconds(self) -> float:
        """When its last sample ends."""
        return self.start_seconds + len(self.samples) / RATE


@dataclass(frozen=True, eq=False)
class PictureChunk:
    """Pictures in the order of their times.

    Attributes:
        pts_seconds: when each appears, in seconds from the start of the video, float64 [n].
        data: uint8 RGB, upright, [n, h, w, 3]; h and w are the same in all chunks of a video. Very small
            pictures are squeezed to `SMALL_SIZE`.
        end_seconds: until when the part of the video lasts that they are from: the last picture stands for
            it. A picture that stands still comes once.
    """

    pts_seconds: NDArray[np.float64]
    data: NDArray[np.uint8]
    end_seconds: float


@dataclass(frozen=True)
class FactsRead:
    """What the header of a video says of the recording."""

    facts: VideoFacts


Chunk = SoundChunk | PictureChunk
#: What comes from reading media: chunks, then how it ended. `Alive` may come at any time before.
MediaMessage = Alive | SoundChunk | PictureChunk | FactsRead | SourceRead | FileUnreached


def read_media(job: MediaJob) -> Iterator[MediaMessage]:
    """Read what a job asks for. No file makes it raise an error: a failure becomes the verdict.

    Yields:
        Chunks in the order of their times, then one `SourceRead` or `FileUnreached`. A file without sound
        gives no chunk of sound and the verdict "ok".
    """
    checkpoint(f"media.{job.file.name}")
    try:
        device = job.file.stat().st_dev if job.device is None else job.device
        lost = unreached(job.file, device)
        if lost is None:
            end = yield from _read(job)
            # Libraries report a share that goes away as the end of the file, or as damage.
            lost = unreached(job.file, device)
        yield FileUnreached(lost) if lost is not None else end
    except OSError as error:
        yield FileUnreached(f"cannot be read: {place_error(error)}")


def _read(job: MediaJob) -> Generator[MediaMessage, None, SourceRead]:
    try:
        damage = yield from _READERS[job.kind](job)
    except LimitReachedError as limit:
        return SourceRead("partial", str(limit))
    except VideoError as error:
        return SourceRead(error.verdict, str(error).removeprefix(f"{job.file}: "))
    except MemoryError:
        return SourceRead("corrupt", OUT_OF_MEMORY)
    except OSError:
        raise
    except Exception as error:
        # Decoders may raise any error on unusual input: it becomes the verdict, and the run continues.
        return SourceRead("corrupt", f"the reader failed: {type(error).__name__}: {error}")
    return SourceRead("ok" if damage is None else "partial", damage)


_Chunks = Generator[MediaMessage, None, str | None]
"""Gives chunks; its result says what is damaged, or None."""


def _sound(job: MediaJob) -> _Chunks:
    reader = SoundReader(job.file, job.reading)
    for part in reader.read():
        yield Alive() if part is None else SoundChunk(part.start_seconds, part.samples)
    return reader.damage


def _pictures(job: MediaJob) -> _Chunks:
    with VideoReader(job.file, job.decoder, max_side=job.max_side, limits=job.reading) as reader:
        reached = 0.0
        for segment in reader.steps(job.segment_seconds, job.frames_per_segment):
            if segment is None:
                yield Alive()
                continue
            # The times of damaged files may go back.
            times = np.maximum.accumulate(np.maximum(segment.frames.pts_seconds, reached))
            end = reached = max(segment.span.end_seconds, float(times[-1]))
            data = segment.frames.data
            step = max(1, MAX_PICTURE_BYTES // data[0].nbytes)
            for first in range(0, len(data), step):
                stop = first + step
                following = float(times[stop]) if stop < len(data) else end
                yield PictureChunk(times[first:stop], data[first:stop], following)
        return reader.damage


def _small_pictures(job: MediaJob) -> _Chunks:
    reader = SmallFrameReader(job.file, job.reading)
    for part in reader.read():
        yield Alive() if part is None else PictureChunk(part.pts_seconds, part.data, part.end_seconds)
    return reader.damage


def _facts(job: MediaJob) -> _Chunks:
    with open_container(job.file, job.reading) as container:
        if not container.streams.video:
            return "it has no pictures"
        yield FactsRead(read_facts(container, container.streams.video[0], datetime.now(UTC)))
    return None


_READERS: dict[MediaKind, Callable[[MediaJob], _Chunks]] = {
    "audio": _sound,
    "pictures": _pictures,
    "small_pictures": _small_pictures,
    "facts": _facts,
}
