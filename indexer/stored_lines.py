"""What the library stores of a video's texts: its names, and the lines that were read."""

import os
import secrets
from dataclasses import replace
from pathlib import Path

from indexer.file_texts import FileTexts
from indexer.library.facts import storable
from indexer.library.records import displayable
from indexer.library.schema import LineRow, VideoRow
from model.runtime.timed_text import name_lines, plain_text


def with_lines(video: VideoRow, texts: FileTexts | None) -> tuple[VideoRow, list[LineRow]]:
    """A video's row that names new lines, and these lines.

    Args:
        video: its row.
        texts: what was read; None: nothing, so that it has its names alone.
    """
    video = storable(video)
    stem = Path(displayable(Path(os.fsdecode(video.path)))).stem
    names = [plain_text(name, resolve=False) for name in name_lines(stem, video.title)]
    lines = [LineRow("name", 0.0, video.duration_seconds, None, name) for name in names if name]
    seen: set[tuple[float, float, str]] = set()
    for part in () if texts is None else texts.parts:
        for line in part.lines:
            # The same subtitles are often beside a video and in it.
            key = (round(line.start_seconds, 1), round(line.end_seconds, 1), line.text)
            if key not in seen:
                seen.add(key)
                times = float(line.start_seconds), float(line.end_seconds)
                lines.append(LineRow("speech", *times, part.language, line.text))
    row = replace(
        video,
        texts_ingest_id=secrets.token_hex(8),
        num_lines=len(lines),
        text_sources=None if texts is None else texts.sources,
    )
    return row, lines
