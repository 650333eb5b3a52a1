"""DiDeMo (Hendricks et al., 2017): 10,464 clips of up to 30 seconds in chunks of 5, with described moments.

Files: `train_data.json`, `val_data.json`, `test_data.json`.
"""

from __future__ import annotations

from pathlib import Path

from model.data.datasets.records import Annotated, Entry, SpanSeconds, entries_of, read_annotation_json
from model.runtime.errors import InputError

CHUNK_SECONDS = 5.0


def read_didemo(folder: Path, split: str) -> list[Annotated]:
    """One split for retrieval: a clip's sentences joined to one paragraph, in the file's order.

    Raises:
        InputError: a missing or malformed file.
    """
    path = folder / f"{split}_data.json"
    if not path.is_file():
        raise InputError(f"no {path.name} in {folder}: set data.annotations to the folder that holds it")
    return read_paragraphs(path)


def read_paragraphs(path: Path) -> list[Annotated]:
    """As `read_didemo`, of one file. What was described is the clip's first `num_segments` chunks.

    Raises:
        InputError: a missing or malformed file.
    """
    sentences: dict[str, list[str]] = {}
    lengths: dict[str, float] = {}
    for row in entries_of(path, read_annotation_json(path)):
        name = row.text("video")
        sentences.setdefault(name, []).append(row.text("description"))
        lengths[name] = max(lengths.get(name, 0.0), _chunks(row) * CHUNK_SECONDS)
    return [Annotated(name, (paragraph(s),), (0.0, lengths[name])) for name, s in sentences.items()]


def paragraph(sentences: list[str]) -> str:
    """Sentences as one text, each with its full stop."""
    return " ".join(s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences)


def _chunks(row: Entry) -> int:
    count = row.number("num_segments")
    if count != int(count) or count < 1:
        raise row.fail(f"num_segments is {count}: it must be a whole number of chunks")
    return int(count)


def chunk_seconds(row: Entry, duration: float | None = None) -> tuple[SpanSeconds, ...]:
    """The annotators' chunks in seconds; both ends of [first, last] are inside.

    Raises:
        InputError: chunks that the clip does not have.
    """
    count, spans = _chunks(row), []
    for value in row.items("times"):
        first, last = row.span("times", value)
        if last >= count or first != int(first) or last != int(last):
            raise row.fail(f"times holds {value}: it must name chunks 0 to {count - 1}")
        end = CHUNK_SECONDS * (last + 1)
        spans.append((CHUNK_SECONDS * first, end if duration is None else min(end, duration)))
    return tuple(spans)
