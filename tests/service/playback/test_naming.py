"""The names of clips: safe for any name of a file, with the times."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.media import content_disposition
from service.playback.naming import clip_name


@pytest.mark.parametrize(
    ("name", "start", "end", "expected"),
    [
        ("film.mp4", 65.2, 72.0, "film_0.01.05.2-0.01.12.mp4"),
        ("ein Film, früher.mkv", 3600.0, 7384.123, "ein Film, früher_1.00.00-2.03.04.123.mp4"),
        ("a.tar.avi", 0.0, 0.04, "a.tar_0.00.00-0.00.00.04.mp4"),
        (".avi", 0.0, 1.0, "avi_0.00.00-0.00.01.mp4"),
        ("...", 0.0, 1.0, "clip_0.00.00-0.00.01.mp4"),
        ('a"b<c>\\d:e?.mp4', 0.0, 1.0, "a_b_c__d_e__0.00.00-0.00.01.mp4"),
        ("a\r\nSet-Cookie: x=1.mp4", 0.0, 1.0, "a_x0d_x0aSet-Cookie_ x=1_0.00.00-0.00.01.mp4"),
        ("59.9999", 59.9999, 60.0, "59_0.01.00-0.01.00.mp4"),
    ],
)
def test_names(name: str, start: float, end: float, expected: str) -> None:
    assert clip_name(name, start, end) == expected


@given(name=st.text(), start=st.floats(0, 1e6), length=st.floats(0.001, 1e4))
def test_any_name(name: str, start: float, length: float) -> None:
    made = clip_name(name, start, start + length)
    assert re.search(r"_\d+\.\d\d\.\d\d(\.\d{1,3})?-\d+\.\d\d\.\d\d(\.\d{1,3})?\.mp4$", made)
    assert len(made.encode()) <= 200
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', made)
    assert made[0] not in " ."
    header = content_disposition(made, "attachment")
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith("attachment; filename")
