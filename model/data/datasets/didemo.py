"""DiDeMo (Hendricks et al., 2017): moments in 10,464 clips of up to 30 seconds, in chunks of 5 seconds.

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
        InputError: the file is missing or malformed.
    """
    path = folder / f"{split}_data.json"
    if not path.is_file():
        raise InputError(f"no {path.name} in {folder}: set data.annotations to the folder that holds it")
    return read_paragraphs(path)


def read_paragraphs(path: Path) -> list[Annotated]:
    """As `read_didemo`, but of one file. Captions describe the first `num_segments` chunks of a clip.

    Raises:
        InputError: the file is missing or malformed.
    """
    sentences: dict[str, list[str]] = {}
    lengths: dict[str, float] = {}
    for row in entries_of(path, read_annotation_json(path)):
        name = row.text("video")
        sentences.setdefault(name, []).append(row.text("description"))
        lengths[name] = max(lengths.get(name, 0.0), _chunks(row) * CHUNK_SECONDS)
    return [Annotated(name, (paragraph(s),), (0.0, lengths[name])) for name, s in sentences.items()]


def paragraph(sentences: list[str]) -> str:
    """Join sentences to one text, each with a full stop."""
    return " ".join(s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences)


def _chunks(row: Entry) -> int:
    count = row.number("num_segments")
    if count != int(count) or count < 1:
        raise row.fail(f"num_segments is {count}: it must be a whole number of chunks")
    return int(count)


def chunk_seconds(row: Entry, duration: float | None = None) -> tuple[SpanSeconds, ...]:
    """The chunks that annotators chose, in seconds; both ends of [first, last] are included.

    Raises:
        InputError: the clip does not have these chunks.
    """
    count, spans = _chunks(row), []
    for value in row.items("times"):
        first, last = row.span("times", value)
        if last >= count or first != int(first) or last != int(last):
            raise row.fail(f"times holds {value}: it must name chunks 0 to {count - 1}")
        end = CHUNK_SECONDS * (last + 1)
        spans.append((CHUNK_SECONDS * first, end if duration is None else min(end, duration)))
    return tuple(spans)
