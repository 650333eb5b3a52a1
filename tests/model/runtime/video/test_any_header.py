"""The readers of MP4, Matroska, transport and program stream headers, given any bytes.

They give a value, or None, in bounded time and memory.
"""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.runtime.video.ebml import read_video_track
from model.runtime.video.isobmff import read_sample_entries
from model.runtime.video.scrambling import is_scrambled
from tests.fuzz.corpus import Corpus
from tests.fuzz.seed_files import RECIPES, seeds

BOXES = [p for p in seeds() if p.suffix in (".mp4", ".mov", ".m4v", ".3gp")]
EBML = [p for p in seeds() if p.suffix in (".mkv", ".webm")]
each_example = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def entries(path: Path) -> None:
    for track in (0, 1, 2, 2**32):
        for entry in read_sample_entries(path, track):
            assert entry.encrypted in (True, False)
            assert entry.dolby_vision is None or 0 <= entry.dolby_vision < 128
            assert min(entry.crop.left, entry.crop.top, entry.crop.right, entry.crop.bottom) >= 0
            assert entry.crop.left + entry.crop.right < max(entry.width, 1)
            assert entry.crop.top + entry.crop.bottom < max(entry.height, 1)


def tracks(path: Path) -> None:
    for number in (0, 1, 2):
        track = read_video_track(path, number)
        if track is not None:
            assert min(track.crop.left, track.crop.top, track.crop.right, track.crop.bottom) >= 0


def scrambling(path: Path) -> None:
    for container in ("mpegts", "mpeg", "asf", "mxf", "avi"):
        for stream, kind in ((0, 0), (0x100, 0x1B), (0x1E0, 0), (0x1FFF, 0xDB)):
            assert is_scrambled(path, container, stream, kind) in (True, False)


def test_the_good_ones_are_read() -> None:
    assert all(read_sample_entries(path, 1) for path in BOXES)
    assert all(read_video_track(path, 0) for path in EBML)
    assert min(len(BOXES), len(EBML)) >= 8


@pytest.mark.parametrize("look", [entries, tracks, scrambling])
@each_example
@given(
    start=st.sampled_from(
        [b"", b"\x00\x00\x00\x10moov", b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff", b"G", b"\x00\x00\x01\xba"]
    ),
    data=st.binary(max_size=400),
)
def test_any_bytes(look: Callable[[Path], None], start: bytes, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(start + data)
    look(path)


@pytest.mark.parametrize("look", [entries, tracks, scrambling])
def test_damaged_files(look: Callable[[Path], None], tmp_path: Path) -> None:
    corpus, path = Corpus(0), tmp_path / "damaged"
    for number in range(20 * len(RECIPES)):
        path.write_bytes(corpus.file(number).data)
        look(path)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_boxes_that_hold_each_other_without_end(tmp_path: Path) -> None:
    content = b""
    for _ in range(3000):
        content = _box(b"moov", _box(b"trak", content))
    (tmp_path / "deep.mp4").write_bytes(content)
    assert read_sample_entries(tmp_path / "deep.mp4", 1) == []


def test_a_large_header_takes_little_memory(tmp_path: Path) -> None:
    """A sample entry with thousands of unknown boxes of 64 KiB. The file is sparse; memory would not be."""
    size, count, path = 1 << 16, 2000, tmp_path / "large.mp4"
    inside = 78 + size * count
    with path.open("wb") as file:
        parents = [(b"moov", 0), (b"trak", 0), (b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 8)]
        lengths = [inside + 8]
        for _, more in reversed(parents):
            lengths.append(lengths[-1] + 8 + more)
        heads = dict(zip(reversed([kind for kind, _ in parents]), lengths[1:], strict=True))
        track_header = _box(b"tkhd", bytes(84))
        heads[b"trak"] += len(track_header)
        heads[b"moov"] += len(track_header)
        for kind, more in parents:
            file.write(struct.pack(">I4s", heads[kind], kind) + bytes(more))
            if kind == b"trak":
                file.write(track_header)
        file.write(struct.pack(">I4s", inside + 8, b"avc1") + bytes(78))
        start = file.tell()
        for number in range(count):
            file.seek(start + number * size)
            file.write(struct.pack(">I4s", size, b"%04d" % number))
        file.truncate(start + count * size)
    tracemalloc.start()
    try:
        (entry,) = read_sample_entries(path, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entry.kind == b"avc1"
    assert peak < 8 << 20
