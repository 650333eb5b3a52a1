"""What is stored of how a video was recorded: what its container says, or else its name and its time.

Videos that were indexed before anything looked for that are read again: their headers alone, from a confined
process, after the new files.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from indexer.decode import DecodeSpec, FileUnreached
from indexer.library.records import SEARCHABLE, stored_ns
from indexer.library.schema import VideoRow
from indexer.media import FactsRead, MediaJob
from indexer.stages.run import MediaReader, StageVideo
from model.runtime.captured import captured_in_file_time, captured_in_name
from model.runtime.video.facts import NO_FACTS, VideoFacts

#: What is read, and how: another number lets the next run read it again.
FACTS_VERSION = 1


class FactSink(Protocol):
    """Receives what is read; see `LibrarySink`."""

    def add_facts(self, video_id: str, facts: VideoFacts | None, path: Path, mtime_ns: int) -> None:
        """Add what the header of a video's file says; None: it cannot be read."""

    def close_stages(self) -> None:
        """Commit and publish all of it."""


def with_facts(row: VideoRow, facts: VideoFacts | None, path: Path, mtime_ns: int) -> VideoRow:
    """A video's row with what its file says of the recording.

    Args:
        row: the row.
        facts: what the container says; None: it cannot be read.
        path: where the file is: its name may say when it was taken.
        mtime_ns: its time of modification, which is the last resort.
    """
    now = datetime.now(UTC)
    said = facts or NO_FACTS
    captured = said.captured or captured_in_name(path.name, now) or captured_in_file_time(mtime_ns / 1e9, now)
    place = said.place
    return replace(
        row,
        captured_at=None if captured is None else datetime.fromtimestamp(captured.seconds, UTC),
        captured_offset_minutes=None if captured is None else captured.offset_minutes,
        captured_source=None if captured is None else captured.source,
        latitude=None if place is None else place.latitude,
        longitude=None if place is None else place.longitude,
        altitude_metres=None if place is None else place.altitude_metres,
        camera=said.camera,
        has_sound=None if facts is None else facts.has_sound,
        audio_codec=said.audio_codec,
        facts_version=FACTS_VERSION,
    )


def lacking_facts(videos: Mapping[str, VideoRow], found: Sequence[StageVideo]) -> list[StageVideo]:
    """Of the videos found, those of which nothing has read how they were recorded."""
    rows = ((video, videos.get(video.video_id)) for video in found)
    return [
        video
        for video, row in rows
        if row is not None and row.verdict in SEARCHABLE and row.facts_version != FACTS_VERSION
    ]


def read_lacking_facts(
    due: Sequence[StageVideo],
    spec: DecodeSpec,
    open_reader: Callable[[], AbstractContextManager[MediaReader]],
    sink: FactSink,
    stop: threading.Event,
) -> int:
    """Read the headers of videos that were indexed before, and publish what they say. → How many were read.

    Args:
        due: the videos, as `lacking_facts` gives them.
        spec: how the index reads videos.
        open_reader: opens what reads media.
        sink: receives what is read.
        stop: when set, no further video is read.
    """
    count = 0
    with open_reader() as reader:
        for video in due:
            if stop.is_set():
                break
            facts: VideoFacts | None = None
            is_reached = _is_same(video)
            if is_reached:
                job = MediaJob(os.fsencode(video.path), "facts", device=video.device, reading=spec.reading)
                with closing(reader.read_media(job)) as messages:
                    for message in messages:
                        if isinstance(message, FactsRead):
                            facts = message.facts
                        is_reached = is_reached and not isinstance(message, FileUnreached)
            if is_reached and not stop.is_set():
                sink.add_facts(video.video_id, facts, video.path, video.mtime_ns)
                count += 1
    sink.close_stages()
    return count


def _is_same(video: StageVideo) -> bool:
    """Whether a file can be reached and has not changed since it was found."""
    try:
        return stored_ns(video.path.stat().st_mtime_ns) == video.mtime_ns
    except OSError:
        return False
