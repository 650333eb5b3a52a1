"""Each part of a video holds frames that are shown in it: begun in it or before, never after its end."""

from pathlib import Path

import pytest

from model.runtime.video import VideoReader
from model.runtime.video.limits import ReadingLimits
from tests.support.toy_videos import write_slides


def test_a_slide_may_have_come_before_its_part(tmp_path: Path) -> None:
    path = write_slides(tmp_path / "slides.mkv", {t: t for t in (0, 20, 45, 50, 95, 96, 140, 160)})
    with VideoReader(path) as reader:
        segments = list(reader.segments())
    assert len(segments) > 3
    assert any(s.frames.pts_seconds[0] < s.span.start_seconds for s in segments)
    assert all(s.frames.pts_seconds[-1] <= s.span.end_seconds for s in segments)


@pytest.mark.parametrize("first", [90, 200])
def test_a_picture_that_comes_after_what_is_read_stands_for_no_part(first: int, tmp_path: Path) -> None:
    """Sound from 0 on, the first picture later; 0.05 hours are 180 s."""
    path = write_slides(tmp_path / "late.mkv", {first: 100, first + 40: 200}, sound_seconds=1.0)
    with VideoReader(path, limits=ReadingLimits(max_hours=0.05)) as reader:
        segments = list(reader.segments())
        damage = reader.damage
    if first == 90:
        assert float(segments[0].frames.pts_seconds[0]) == pytest.approx(90, abs=0.2)
        assert all(s.span.end_seconds >= 90 for s in segments)
        assert damage is None
    else:
        assert segments == []
        assert damage is not None
        assert "--max-hours" in damage
