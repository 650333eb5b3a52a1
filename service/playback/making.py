"""Makes streams and clips for whoever waits for them, or finds them in the cache.

Used in the event loop's thread. What blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from anyio.to_thread import run_sync

from service.errors import EncodersBusyError
from service.playback.cache import NewEntry, PlaybackCache, StoredFile
from service.playback.encoders import Encoders, Place
from service.playback.jobs import Bounds, ClipJob, DescribeJob, Job, StreamJob
from service.playback.playable import MediaDescription
from service.playback.process import MediaProcess
from service.settings import Settings

#: Changes with what streams and clips look like: what was stored before is not used any more.
_VERSION = 1
#: A process is given up when nothing comes from it for so long. A header takes no time to read.
_SILENCE_SECONDS, _HEADER_SECONDS = 60.0, 10.0
#: CPU time: for any job, and for each second of the video that is decoded and encoded.
_CPU_SECONDS, _CPU_PER_SECOND = 120, 30
#: Threads of a decoder and of an encoder.
_THREADS = 2
#: Descriptions that are remembered, and processes that read headers at the same time.
_MOST_DESCRIPTIONS, _MOST_READING = 4096, 2
_CLIP_TYPE = "video/mp4"
#: No clip is larger: a process that was taken over must not fill the disk.
_MOST_CLIP_BYTES = 4 << 30


@dataclass(frozen=True)
class Source:
    """The open file of a video.

    Attributes:
        descriptor: its file descriptor, which must stay open until a process has started.
        identity: says whether it is the same file as before: device, number, size, time.
        content: the checksum of its content; empty: not known.
        duration_seconds: its length.
    """

    descriptor: int
    identity: tuple[int, int, int, int]
    content: str
    duration_seconds: float


class MediaMaker:
    """Makes streams, clips and descriptions of files.

    Args:
        settings: the service's settings.
        show_encoders: is called with the number of encoders that run, whenever it changes.
    """

    def __init__(self, settings: Settings, show_encoders: Callable[[int], None]) -> None:
        self._settings = settings
        self._encoders = Encoders(settings.max_encoders, show_encoders)
        self._cache = PlaybackCache(settings.cache_folder, settings.cache_mb << 20)
        self._descriptions: OrderedDict[tuple[int, int, int, int], MediaDescription] = OrderedDict()
        self._reading = asyncio.Semaphore(_MOST_READING)

    def close(self) -> None:
        """End all that is being made."""
        self._encoders.end_all()

    async def describe(self, source: Source) -> MediaDescription:
        """What the file's header says. It is read once, as long as the file stays the same.

        Raises:
            MediaUnreadableError: it cannot be read.
            NoEncodersError: no process may read it.
        """
        known = self._descriptions.get(source.identity)
        if known is not None:
            self._descriptions.move_to_end(source.identity)
            return known
        async with self._reading:
            process = await self._start(DescribeJob(), source, 0.0, seconds=_HEADER_SECONDS)
            try:
                found = await process.description()
            finally:
                process.close()
        self._descriptions[source.identity] = found
        if len(self._descriptions) > _MOST_DESCRIPTIONS:
            self._descriptions.popitem(last=False)
        return found

    async def stream(
        self, source: Source, start_seconds: float, viewer: tuple[str, str] | None
    ) -> MadeStream | StoredFile:
        """A stream from a time on, which is made while it is read, or was made before.

        Args:
            source: the video's file.
            start_seconds: the time.
            viewer: whom it is for; what is made for them now ends. None: nobody who has asked before.

        Raises:
            EncodersBusyError: as much is being made as may be.
            MediaUnreadableError: no picture can be decoded from there on.
            NoEncodersError: nothing is made here.
        """
        job = StreamJob(start_seconds, source.duration_seconds, self._settings.stream_height)
        key = _key(source, job)
        stored = await run_sync(self._cache.open, key) if key else None
        if stored is not None:
            return stored
        place = self._encoders.take(viewer)
        process: MediaProcess | None = None
        try:
            process = await self._start(job, source, source.duration_seconds - start_seconds)
            place.stop = process.close
            if place.has_ended:
                raise EncodersBusyError("Another stream was asked for in place of this one.")
            media_type = await process.media_type()
            entry = await run_sync(self._cache.begin, key) if key and self._cache.max_bytes else None
        except BaseException:
            if process is not None:
                process.close()
            place.end()
            raise
        return MadeStream(media_type, process, place, entry)

    async def clip(self, source: Source, start_seconds: float, end_seconds: float) -> StoredFile:
        """A clip, which is made now, or was made before. It begins with the picture on display at its start.

        Args:
            source: the video's file.
            start_seconds: where it starts.
            end_seconds: where it ends.

        Raises:
            As `stream`.
            OSError: there is no place for it on any disk.
        """
        job = ClipJob(start_seconds, end_seconds, source.duration_seconds, self._settings.clip_height)
        key = _key(source, job)
        stored = await run_sync(self._cache.open, key) if key else None
        if stored is not None:
            return stored
        place = self._encoders.take(None)
        entry: NewEntry | None = None
        process: MediaProcess | None = None
        try:
            entry = await run_sync(self._cache.begin, key)
            process = await self._start(job, source, end_seconds - start_seconds, output=entry.file.fileno())
            place.stop = process.close
            size = await process.size()
            return await run_sync(entry.finish, size, _CLIP_TYPE)
        except BaseException:
            if entry is not None:
                entry.close()
            raise
        finally:
            if process is not None:
                process.close()
            place.end()

    async def _start(
        self,
        job: Job,
        source: Source,
        decoded_seconds: float,
        *,
        output: int = -1,
        seconds: float = _SILENCE_SECONDS,
    ) -> MediaProcess:
        bounds = Bounds(
            sandbox=self._settings.sandbox,
            memory_bytes=self._settings.encoder_memory_mb << 20,
            cpu_seconds=round(_CPU_SECONDS + _CPU_PER_SECOND * max(0.0, decoded_seconds)),
            output_bytes=_MOST_CLIP_BYTES if output >= 0 else 0,
            threads=_THREADS,
        )
        try:
            return await MediaProcess.start(
                job, source.descriptor, bounds, output=output, silence_seconds=seconds
            )
        except OSError as error:
            raise EncodersBusyError(
                f"The system starts no process for it ({error.strerror or error}). Try again in a moment."
            ) from error


class MadeStream:
    """A stream that is being made. Whoever has it calls `close`.

    Attributes:
        media_type: its content type, with its codecs.
    """

    def __init__(self, media_type: str, process: MediaProcess, place: Place, entry: NewEntry | None) -> None:
        self.media_type = media_type
        self._process = process
        self._place = place
        self._entry = entry

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stream, piece by piece. Once it has come to its end, it is stored.

        Raises:
            MediaUnreadableError: it ended too early.
        """
        num_bytes = 0
        async for chunk in self._process.chunks():
            num_bytes += len(chunk)
            if self._entry is not None and not await run_sync(self._entry.write, chunk):
                self._entry.close()
                self._entry = None
            yield chunk
        if self._entry is not None:
            entry, self._entry = self._entry, None
            try:
                stored = await run_sync(entry.finish, num_bytes, self.media_type)
            except OSError:
                entry.close()
            else:
                stored.file.close()

    def close(self) -> None:
        """End it."""
        self._process.close()
        self._place.end()
        if self._entry is not None:
            self._entry.close()
            self._entry = None


def _key(source: Source, job: Job) -> str | None:
    """Under which name the result of a job is stored; None where the content is not known."""
    if not source.content:
        return None
    _, _, size, _ = source.identity
    what = [_VERSION, type(job).__name__, source.content, size, asdict(job)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
