"""Reads all texts of a video: those of the subtitle files beside it, and of the text tracks in it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from indexer.decode import DecodeSpec, FileKnown, FileOutcome, FileUnreached
from indexer.events import ReadingProblem
from indexer.library.records import SEARCHABLE, content_id
from indexer.place import unreached
from indexer.plan import IndexTask
from indexer.texts import MAX_LINES, TOO_MANY, SourceLines, SourceMessage, SourceRead, TextJob


@dataclass(frozen=True)
class FileTexts:
    """The texts of one video.

    Attributes:
        sources: what they were read from, as in `IndexTask`; None: some of it could not be reached, so that
            what the library has stays.
        parts: the lines.
        problems: files of which not all could be read.
    """

    sources: str | None
    parts: tuple[SourceLines, ...] = ()
    problems: tuple[ReadingProblem, ...] = ()


def kept_outcome(task: IndexTask) -> FileOutcome:
    """The outcome of a task that decodes nothing: the library has its pictures already."""
    lost = unreached(task.path, task.device)
    if lost is not None or task.kept_mtime_ns is None:
        return FileUnreached(lost or "cannot be read: it is not in the library")
    return FileKnown(task.known_sha256[0], task.kept_mtime_ns)


def read_texts(
    task: IndexTask,
    outcome: FileOutcome,
    spec: DecodeSpec,
    read: Callable[[TextJob], Iterator[SourceMessage]],
) -> FileTexts | None:
    """Read all texts of a file that is decoded, or that the library has.

    Args:
        task: the file.
        outcome: of decoding it.
        spec: how it was decoded.
        read: reads one source, as `read_source` does.

    Returns:
        None where there is nothing to read: the file has no segments, cannot be reached, or its texts are
        known or not asked for.
    """
    if task.text_sources is None or isinstance(outcome, FileUnreached):
        return None
    if isinstance(outcome, FileKnown) and (
        task.text_sources == task.kept_text_sources or task.video_id != content_id(outcome.sha256)
    ):
        # The library has them; or the place is new, and the next run reads them if it is the first place.
        return None
    fps, has_tracks = task.fps, True
    if not isinstance(outcome, FileKnown):
        if outcome.verdict not in SEARCHABLE or outcome.info is None:
            return None
        fps, has_tracks = outcome.info.fps, outcome.info.text_tracks > 0
    jobs = [
        TextJob(os.fsencode(s.path), "subtitles", s.language, fps, s.bytes, spec.reading)
        for s in task.subtitles
    ]
    if has_tracks:
        jobs.append(TextJob(os.fsencode(task.path), "tracks", None, fps, task.size, spec.reading))
    parts: list[SourceLines] = []
    problems: list[ReadingProblem] = []
    sources: str | None = task.text_sources
    left = MAX_LINES
    for job in jobs:
        for message in read(job):
            if isinstance(message, SourceLines):
                parts.append(replace(message, lines=message.lines[:left]))
                if len(message.lines) > left > 0:
                    problems.append(ReadingProblem(job.file, "partial", TOO_MANY))
                left -= min(left, len(message.lines))
            elif isinstance(message, SourceRead) and message.verdict != "ok":
                problems.append(ReadingProblem(job.file, message.verdict, message.reason or ""))
            elif isinstance(message, FileUnreached):
                problems.append(ReadingProblem(job.file, None, message.reason))
                sources = None
    return FileTexts(sources, tuple(parts) if sources is not None else (), tuple(problems))
