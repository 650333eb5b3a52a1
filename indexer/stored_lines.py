"""What the library stores of a video's texts: its names, the lines that were read, and what stages found."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexer.file_texts import FileTexts
from indexer.library.facts import storable
from indexer.library.records import displayable
from indexer.library.schema import LineKind, LineRow, VideoRow
from indexer.stages.base import StageName, StageResult, with_source
from model.runtime.timed_text import name_lines, plain_text

#: The kind of lines that a stage gives.
KIND_OF: dict[StageName, LineKind | None] = {"speech": "transcript", "screen": "screen", "shots": None}


def with_lines(
    video: VideoRow, path: bytes, texts: FileTexts | None, kept: Sequence[LineRow] = ()
) -> tuple[VideoRow, list[LineRow]]:
    """A video's row that names new lines, and these lines.

    Args:
        video: its row.
        path: its first place.
        texts: what was read; None: nothing, so that it has its names alone.
        kept: lines of stages, which have nothing to do with what was read.
    """
    video = storable(video)
    lines = _name_lines(video, path)
    seen: set[tuple[float, float, str]] = set()
    for part in () if texts is None else texts.parts:
        for line in part.lines:
            # The same subtitles are often beside a video and in it.
            key = (round(line.start_seconds, 1), round(line.end_seconds, 1), line.text)
            if key not in seen:
                seen.add(key)
                times = float(line.start_seconds), float(line.end_seconds)
                lines.append(LineRow("speech", *times, part.language, line.text))
    lines += kept
    return replace(_naming(video, lines), text_sources=None if texts is None else texts.sources), lines


def with_names(
    video: VideoRow, path: bytes, before: Sequence[LineRow]
) -> tuple[VideoRow, list[LineRow]] | None:
    """A video's row that names its lines with the names of another place; None where the names are the same.

    Args:
        video: its row.
        path: its first place.
        before: all its lines.
    """
    names = _name_lines(video, path)
    if names == [line for line in before if line.kind == "name"]:
        return None
    lines = [*names, *(line for line in before if line.kind != "name")]
    return _naming(video, lines), lines


def _name_lines(video: VideoRow, path: bytes) -> list[LineRow]:
    names = [
        plain_text(name, resolve=False) for name in name_lines(Path(displayable(path)).stem, video.title)
    ]
    return [LineRow("name", 0.0, video.duration_seconds, None, name) for name in names if name]


def with_stage(
    video: VideoRow, stage: StageName, source: str, result: StageResult, before: Sequence[LineRow]
) -> tuple[VideoRow, list[LineRow]]:
    """A video's row with what a stage has found in it, and its lines if they are other ones than before.

    Cuts stand in the row itself.

    Args:
        video: its row.
        stage: the stage.
        source: its key.
        result: what it has found; lines that the stage found in an earlier run are replaced.
        before: all lines of the video.
    """
    row = with_source(video, stage, source)
    if result.cut_seconds is not None:
        row = replace(row, cut_seconds=result.cut_seconds)
    kind = KIND_OF[stage]
    found = sorted(result.lines, key=lambda line: (line.start_seconds, line.end_seconds))
    lines = [*(line for line in before if line.kind != kind), *found]
    if lines == before:
        return row, []
    return _naming(row, lines), lines


def _naming(video: VideoRow, lines: Sequence[LineRow]) -> VideoRow:
    return replace(video, texts_ingest_id=secrets.token_hex(8), num_lines=len(lines))
