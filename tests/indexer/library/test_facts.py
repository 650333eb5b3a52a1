"""Facts of odd files in the columns of `videos`."""

import math
from datetime import UTC, datetime

import pytest

from indexer.library.facts import storable
from indexer.library.schema import Layout, VideoRow, videos_table


def row(**facts: object) -> VideoRow:
    usual: dict[str, object] = {
        "video_id": "0" * 16,
        "ingest_id": "1" * 16,
        "sha256": "2" * 64,
        "bytes": 9,
        "duration_seconds": 1.5,
        "fps": 25.0,
        "width": 64,
        "height": 48,
        "codec": "h264",
        "container": "mp4",
        "title": None,
        "verdict": "ok",
        "reason": None,
        "num_segments": 1,
        "num_frames": 1,
        "indexed_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return VideoRow(**{**usual, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("bytes", 2**64, 2**63 - 1),
        ("width", 2**40, 2**31 - 1),
        ("height", 2**31, 2**31 - 1),
        ("duration_seconds", math.inf, 0.0),
        ("fps", math.nan, 0.0),
        ("title", "half a pair \ud83d and a byte \udcff", "half a pair \ufffd and a byte \ufffd"),
        ("title", "whole 🎬", "whole 🎬"),
        ("reason", "the decoder failed: 'bad\udcff.mp4'", "the decoder failed: 'bad\ufffd.mp4'"),
        ("codec", "\udc80", "\ufffd"),
        ("container", "nul \0", "nul \0"),
    ],
)
def test_a_fact_that_its_column_cannot_hold_is_made_to_fit(field: str, value: object, stored: object) -> None:
    layout = Layout("c", "toy", embedding_dim=8, salience_dim=16, frames_per_segment=16)
    table = videos_table(layout, [storable(row(**{field: value})), storable(row())])
    assert table[field].to_pylist()[0] == stored


def test_usual_facts_stay_as_they_are() -> None:
    assert storable(row()) == row()
