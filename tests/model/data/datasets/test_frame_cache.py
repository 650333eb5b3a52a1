"""Frames for training: sampled and resized as the service does it, decoded or from the cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")


from PIL import Image

from model.data.datasets import CaptionedVideo, Split, VideoFrames
from model.data.datasets.decoding import decode_frames, part_shares
from model.data.datasets.frame_cache import FrameCache, fill_cache
from model.runtime.preprocessing import resize_frames
from model.runtime.video import VideoReader
from tests.support.clips import Clips, clips
from tests.support.toy_bundle import COLOURS
from tests.support.toy_videos import make_video

__all__ = ["clips"]
SIZE = 32
PARTS = (("red", 1.0), ("green", 1.0), ("blue", 1.0), ("white", 1.0))


def video(path: Path, span: tuple[float, float] | None = None) -> CaptionedVideo:
    return CaptionedVideo(path.stem, path, ("a caption", "another one"), span)


def frames_of(*items: CaptionedVideo, cache: FrameCache | None = None) -> VideoFrames:
    return VideoFrames(Split("some", items), cache)


def colours(frames: NDArray[np.uint8]) -> list[str]:
    """The nearest named colour of each frame's mean."""
    names = list(COLOURS)
    table = np.array([COLOURS[name] for name in names], np.float64)
    means = frames.reshape(len(frames), -1, 3).mean(1)
    return [names[int(np.abs(table - mean).sum(1).argmin())] for mean in means]


@pytest.mark.parametrize("name", ["constant", "variable", "late_video", "one_frame", "rotated_90"])
def test_test_frames_are_those_that_the_service_indexes(clips: Clips, name: str) -> None:
    path = clips(name)
    with VideoReader(path) as reader:
        (segment,) = reader.segments(3600.0, 8)
    found = frames_of(video(path)).frames(0, 8, SIZE, None)
    assert np.array_equal(found, resize_frames(segment.frames.data, SIZE))


def test_training_takes_a_random_frame_of_each_part(tmp_path: Path) -> None:
    source = frames_of(video(make_video(tmp_path / "a.mp4", parts=PARTS, fps=10)))
    assert source.captions == (("a caption", "another one"),)
    for seed in range(5):
        found = source.frames(0, 4, SIZE, np.random.default_rng(seed))
        assert colours(found) == [name for name, _ in PARTS]
    shares = np.stack([part_shares(4, np.random.default_rng(seed)) for seed in range(200)])
    parts = shares * 4 - np.arange(4)
    assert parts.min() >= 0
    assert parts.max() < 1
    assert np.abs(parts.mean(0) - 0.5).max() < 0.1
    assert np.array_equal(part_shares(4), [0.125, 0.375, 0.625, 0.875])


def test_a_span_limits_the_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", parts=PARTS, fps=10)
    assert colours(frames_of(video(path, (1.0, 3.0))).frames(0, 2, SIZE, None)) == ["green", "blue"]
    # Annotations round up: the file ends at 4 seconds.
    assert colours(frames_of(video(path, (2.0, 5.0))).frames(0, 2, SIZE, None)) == ["blue", "white"]
    with pytest.raises(ValueError, match=r"ends at 4.0 s, its captions describe 5.0 to 9.0 s"):
        frames_of(video(path, (5.0, 9.0))).frames(0, 2, SIZE, None)


def test_a_short_video_gives_each_frame_once(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", parts=(("red", 0.2), ("blue", 0.1)), fps=10)
    found = frames_of(video(path)).frames(0, 16, SIZE, np.random.default_rng(0))
    assert colours(found) == ["red", "red", "blue"]


def test_a_photo_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), COLOURS["green"]).save(tmp_path / "photo.png")
    cache = FrameCache(tmp_path / "cache", 4, SIZE)
    found = frames_of(video(tmp_path / "photo.png"), cache=cache).frames(
        0, 16, SIZE, np.random.default_rng(0)
    )
    assert found.shape == (1, SIZE, SIZE, 3)
    assert colours(found) == ["green"]
    assert fill_cache(cache, [video(tmp_path / "photo.png")]).written == 0


def test_what_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"bad.mp4: is text, not a video; .*data.allow_missing=true"):
        frames_of(video(tmp_path / "bad.mp4")).frames(0, 4, SIZE, None)
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"bad.jpg is not a readable photo"):
        frames_of(video(tmp_path / "bad.jpg")).frames(0, 4, SIZE, None)


# The cache


@pytest.fixture
def two(tmp_path: Path) -> list[CaptionedVideo]:
    first = make_video(tmp_path / "first.mp4", parts=PARTS, fps=10)
    return [video(first), video(make_video(tmp_path / "second.mp4", parts=(("blue", 0.3),), fps=10))]


def test_cached_frames_are_the_decoded_ones(tmp_path: Path, clips: Clips) -> None:
    item = video(clips("constant"))
    cache = FrameCache(tmp_path / "cache", 4, SIZE)
    cached = frames_of(item, cache=cache)
    candidates = decode_frames(item, part_shares(20), SIZE)[0].astype(int)
    assert len(candidates) == 20

    def nearest(rng: np.random.Generator | None) -> list[int]:
        """Which candidates the cached frames are; JPEG changes them little."""
        distance = np.abs(candidates[None] - cached.frames(0, 4, SIZE, rng)[:, None]).mean((2, 3, 4))
        assert distance.min(1).max() < 4
        positions: list[int] = distance.argmin(1).tolist()
        return positions

    assert nearest(None) == [2, 7, 12, 17]
    assert np.array_equal(candidates[2::5], frames_of(item).frames(0, 4, SIZE, None))
    seen = [nearest(np.random.default_rng(seed)) for seed in range(12)]
    assert all([c // 5 for c in chosen] == [0, 1, 2, 3] for chosen in seen)
    assert len({c for chosen in seen for c in chosen}) > 15


def test_the_cache_is_filled_at_once_or_as_frames_are_read(tmp_path: Path, two: list[CaptionedVideo]) -> None:
    at_once, as_read = FrameCache(tmp_path / "a", 4, SIZE), FrameCache(tmp_path / "b", 4, SIZE)
    told: list[str] = []
    filled = fill_cache(at_once, two, workers=2, report=told.append)
    assert (filled.written, filled.kept, filled.failed) == (2, 0, ())
    assert told[-1] == "frame cache: 2 of 2 videos, 0 failed"
    for index, item in enumerate(two):
        assert at_once.has(item)
        assert not as_read.has(item)
        for rng in (None, 7):
            seeds = [None if rng is None else np.random.default_rng(rng) for _ in range(2)]
            a = frames_of(*two, cache=at_once).frames(index, 4, SIZE, seeds[0])
            b = frames_of(*two, cache=as_read).frames(index, 4, SIZE, seeds[1])
            assert np.array_equal(a, b)
        assert as_read.path_of(item).read_bytes() == at_once.path_of(item).read_bytes()
    again = fill_cache(at_once, two, workers=2)
    assert (again.written, again.kept) == (0, 2)


def test_filling_goes_on_where_it_stopped_and_names_what_fails(
    tmp_path: Path, two: list[CaptionedVideo]
) -> None:
    cache = FrameCache(tmp_path / "cache", 4, SIZE)
    cache.add(two[0])
    written = cache.path_of(two[0]).stat().st_mtime_ns
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    filled = fill_cache(cache, [*two, video(tmp_path / "bad.mp4")], workers=1)
    assert (filled.written, filled.kept, len(filled.failed)) == (1, 1, 1)
    assert "bad.mp4: is text, not a video" in filled.failed[0]
    assert cache.path_of(two[0]).stat().st_mtime_ns == written
    assert not list((tmp_path / "cache").rglob(".*"))


def test_a_changed_video_and_another_part_of_it_are_decoded_anew(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", parts=(("red", 2.0),), fps=10)
    cache = FrameCache(tmp_path / "cache", 2, SIZE)
    source = frames_of(video(path), video(path, (1.0, 2.0)), cache=cache)
    assert colours(source.frames(0, 2, SIZE, None)) == ["red", "red"]
    make_video(path, parts=(("blue", 1.0), ("green", 1.5)), fps=10)
    assert colours(source.frames(0, 2, SIZE, None)) == ["blue", "green"]
    assert colours(source.frames(1, 2, SIZE, None)) == ["green", "green"]


@pytest.mark.parametrize(
    ("frames", "size", "candidates", "message"),
    [
        (8, SIZE, 5, "frames 4 instead of 8"),
        (4, 48, 5, "image_size 32 instead of 48"),
        (4, SIZE, 7, "candidates 5 instead of 7"),
    ],
)
def test_a_cache_of_other_settings_is_refused(
    tmp_path: Path, frames: int, size: int, candidates: int, message: str
) -> None:
    FrameCache(tmp_path, 4, SIZE)
    FrameCache(tmp_path, 4, SIZE)
    with pytest.raises(ValueError, match=rf"has {message}: set data.frame_cache to another folder"):
        FrameCache(tmp_path, frames, size, candidates)


def test_folders_and_frames_that_do_not_fit_are_refused(tmp_path: Path, two: list[CaptionedVideo]) -> None:
    with pytest.raises(ValueError, match="holds other files"):
        FrameCache(tmp_path, 4, SIZE)
    with pytest.raises(ValueError, match="candidates=4 must be odd"):
        FrameCache(tmp_path / "cache", 4, SIZE, 4)
    cache = FrameCache(tmp_path / "cache", 4, SIZE)
    with pytest.raises(ValueError, match="holds 4 frames of 32 pixels, not 8 of 32"):
        frames_of(*two, cache=cache).frames(0, 8, SIZE, None)
    (tmp_path / "cache" / "frame_cache.json").write_text("{")
    with pytest.raises(ValueError, match=r"frame_cache.json is damaged"):
        FrameCache(tmp_path / "cache", 4, SIZE)


def test_a_damaged_file_is_named(tmp_path: Path, two: list[CaptionedVideo]) -> None:
    cache = FrameCache(tmp_path / "cache", 4, SIZE)
    source = frames_of(*two, cache=cache)
    whole = source.frames(0, 4, SIZE, None)
    path = cache.path_of(two[0])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"is damaged .*: delete it, and it will be made again"):
        source.frames(0, 4, SIZE, None)
    path.write_bytes(b"nonsense")
    assert np.array_equal(source.frames(0, 4, SIZE, None), whole)


def test_threads_share_a_cache(tmp_path: Path, two: list[CaptionedVideo]) -> None:
    source = frames_of(*two, cache=FrameCache(tmp_path / "cache", 4, SIZE))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: source.frames(i % 2, 4, SIZE, None), range(8)))
    for i, frames in enumerate(found):
        assert np.array_equal(frames, found[i % 2])
