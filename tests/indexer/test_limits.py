"""Files that ask for more than they hold: what of them gets into a library, and what the verdict says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.decode import Alive, DecodedSegment, StorageLimits, decode_file
from indexer.events import IndexSummary
from indexer.library.records import VideoRecord
from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import decode_spec, index_paths
from model.runtime.bundle import Bundle
from tests.support.clips import ffmpeg
from tests.support.toy_bundle import make_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def index(bundle: Bundle, library: Path, media: Path, **options: Any) -> IndexSummary:
    return index_paths([media], library, bundle, IndexOptions(**{"workers": 0, **options}), lambda _: None)


def only_video(library: Path) -> VideoRecord:
    [video] = Snapshot.open(library).videos(0, 10)
    return video


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_small_file_of_slow_pictures_takes_little_of_the_library(bundle: Bundle, tmp_path: Path) -> None:
    """550 pictures of 655 seconds, in 100 hours, in a few kilobytes: by equal parts, 11,257 segments."""
    palette = np.random.default_rng(0).integers(0, 255, (550, 1, 1, 3), np.uint8)
    frames = [Image.fromarray(np.broadcast_to(colour, (8, 8, 3)).copy()) for colour in palette]
    media, library = tmp_path / "media/slow.gif", tmp_path / "library"
    media.parent.mkdir()
    frames[0].save(media, save_all=True, append_images=frames[1:], duration=655_350)
    assert index(bundle, library, media).searchable
    video = only_video(library)
    assert (video.verdict, video.duration_seconds) == ("partial", 360_000)
    assert "(--max-hours)" in str(video.reason)
    assert video.num_segments == 550
    assert bytes_of(library) < 5_000_000


def test_reading_a_long_still_is_progress(bundle: Bundle, tmp_path: Path) -> None:
    """A decoding process that says nothing for `--timeout` seconds is given up."""
    media = tmp_path / "still.mp4"
    source = "color=red:size=64x48:rate=1:duration=1300"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", str(media))
    messages = list(decode_file(decode_spec(bundle.manifest, "pyav").job(media)))
    assert sum(isinstance(message, DecodedSegment) for message in messages) == 1
    assert sum(isinstance(message, Alive) for message in messages) >= 1300 / 32


def test_what_a_file_takes_of_the_library_is_limited_by_its_size(bundle: Bundle, tmp_path: Path) -> None:
    media = tmp_path / "film.mp4"
    source = "testsrc2=size=160x120:rate=1:duration=640"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", str(media))
    whole, part, more = (tmp_path / name for name in ("whole", "part", "more"))
    index(bundle, whole, media)
    assert (only_video(whole).verdict, only_video(whole).num_segments) == ("ok", 20)
    index(bundle, part, media, stored_megabytes=0.3, stored_bytes_per_byte=0)
    video = only_video(part)
    assert video.verdict == "partial"
    assert 1 <= video.num_segments < 10
    assert video.reason == ("storing it takes more than 0.3 MB (--stored-megabytes, --stored-bytes-per-byte)")
    assert index(bundle, more, media, stored_megabytes=0.3).searchable
    assert only_video(more).verdict == "ok"


def test_how_much_a_file_may_take() -> None:
    limits = StorageLimits(frame_bytes=10, megabytes=2, bytes_per_byte=3)
    assert limits.most_bytes(1_000_000) == 5_000_000
    assert "more than 5 MB" in limits.reason(1_000_000)


def test_every_limit_reaches_the_reader(bundle: Bundle, tmp_path: Path) -> None:
    media = tmp_path / "film.mp4"
    source = "testsrc2=size=160x120:rate=5:duration=100"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", str(media))
    index(bundle, tmp_path / "hours", media, max_hours=64 / 3600)
    video = only_video(tmp_path / "hours")
    assert (video.verdict, video.num_segments, video.duration_seconds) == ("partial", 2, 64)
    index(bundle, tmp_path / "pixels", media, max_pixels=160 * 120 - 1)
    assert only_video(tmp_path / "pixels").reason == "160x120 is more than 19199 pixels (--max-pixels)"
    index(bundle, tmp_path / "cpu", media, cpu_seconds=1e-6, cpu_seconds_per_megabyte=0)
    assert "--cpu-seconds" in str(only_video(tmp_path / "cpu").reason)
