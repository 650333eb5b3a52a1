"""Libraries with made-up rows, written and read in the same way wherever they are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import TABLES, fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from tests.indexer.library.test_writer import finish, segment_row, video_row

SEGMENTS, FRAMES = 5, 2


def write(library: Path, bundle: Bundle, put: Mapping[int, int], gone: tuple[int, ...] = ()) -> int:
    """One run: puts contents at places, forgets places, and publishes. → The snapshot's number."""
    opened = Library.open_or_create(library, bundle)
    with opened.writing():
        writer = LibraryWriter(opened)
        for place, content in put.items():
            if f"{content:032x}" not in writer.videos:
                put_video(writer, content)
            if place != content:
                writer.forget_file(f"/media/{place}.mp4".encode())
        for place in gone:
            writer.forget_file(f"/media/{place}.mp4".encode())
        writer.flush()
        return publish(writer, PublishOptions(keep_seconds=3600), last=True).number


def put_video(writer: LibraryWriter, content: int) -> None:
    """Add a video of some segments."""
    rows = [segment_row(writer.library, content, i, FRAMES) for i in range(SEGMENTS)]
    writer.add_segments(rows)
    finish(writer, video_row(content, rows))


def contents(snapshot: Snapshot) -> dict[str, list[dict[str, object]]]:
    """The rows of a snapshot's tables, in an order that does not depend on when they were written."""
    found: dict[str, list[dict[str, object]]] = {}
    for name in sorted(set(TABLES) - {"texts"}):
        table = open_table(snapshot.library, name, snapshot.manifest.tables[name]).to_table()
        rows = [
            {k: v for k, v in row.items() if k not in ("indexed_at", "found_at", "checksums")}
            for row in table.to_pylist()
        ]
        found[name] = sorted(rows, key=repr)
    return found


def check_search(snapshot: Snapshot) -> None:
    """The snapshot finds what a scan of its table finds."""
    table = open_table(snapshot.library, "segments", snapshot.manifest.tables["segments"]).to_table()
    embeddings = fixed_to_numpy(table["embedding"])
    scores, rows = snapshot.search(embeddings[::7], 5)
    expected = embeddings[::7] @ embeddings.T
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(embeddings))[::7])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), atol=1e-5)
    assert snapshot.frame_tokens(rows[:, 0], np.zeros(len(rows), np.int64)).shape[0] == len(rows)
