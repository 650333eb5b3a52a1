"""Tables that list more samples than a file can hold are refused before FFmpeg takes memory for each."""

from pathlib import Path
from typing import Any

import pytest

from model.runtime.video import VideoError, probe
from model.runtime.video.sample_tables import check_sample_tables
from tests.model.runtime.video.test_limits import read_apart
from tests.support.clips import Clips, clips, ffmpeg
from tests.support.movie_tables import movie

__all__ = ["clips"]
BOMBS: dict[str, dict[str, Any]] = {
    "samples of one size": {"num_samples": 10_000_000},
    "a fragment's samples": {"num_samples": 10_000_000, "fragments": True},
    "a fragment's samples of no size": {"num_samples": 10_000_000, "size": 0, "fragments": True},
    "a compressed header": {"num_samples": 10_000_000, "compressed": True},
    "edits": {"num_samples": 50_000, "num_edits": 2_000},
}


@pytest.mark.parametrize("name", BOMBS)
def test_tables_without_end_are_refused(name: str, tmp_path: Path) -> None:
    path = movie(tmp_path / "bomb.mp4", **BOMBS[name])
    with pytest.raises(VideoError, match="lists more samples than it can hold") as caught:
        probe(path)
    assert caught.value.verdict == "corrupt"


def test_they_take_no_memory(tmp_path: Path) -> None:
    """FFmpeg alone takes 400 MB for these 100 kB."""
    mib, frames, said = read_apart(movie(tmp_path / "bomb.mp4", num_samples=10_000_000))
    assert (mib < 30, frames) == (True, 0)
    assert "lists more samples" in said


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 40_000},
        {"num_samples": 40_000, "fragments": True},
        {"num_samples": 40_000, "compressed": True},
        {"num_samples": 40_000, "num_edits": 1_000},
        {"num_samples": 10_000_000, "sound": True},  # counted in samples of sound, not in bytes
    ],
)
def test_tables_that_fit_are_not(options: dict[str, Any], tmp_path: Path) -> None:
    check_sample_tables(movie(tmp_path / "movie.mp4", **options))


@pytest.mark.parametrize(
    "options",
    [
        "-c:v copy -c:a pcm_s16le",
        "-c:v copy -c:a pcm_u8",
        "-c:v copy -c:a pcm_mulaw",
        "-c:v copy -c:a adpcm_ima_qt",
        "-c:v prores -c:a aac",
        "-c:v copy -c:a aac -movflags +frag_keyframe+empty_moov",
        "-c:v copy -c:a pcm_s16le -movflags +frag_keyframe+empty_moov",
    ],
)
def test_real_movies_are_read(options: str, clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "movie.mov"
    sound = ("-f", "lavfi", "-i", "sine=duration=9:sample_rate=48000")
    ffmpeg("-i", str(clips("constant")), *sound, *options.split(), str(path))
    check_sample_tables(path)
    assert probe(path).duration_seconds == pytest.approx(3, abs=0.05)


def test_boxes_in_boxes_without_end_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "nested.mp4"
    sizes = range(8 * 20_000, 0, -8)
    path.write_bytes(b"".join(size.to_bytes(4, "big") + b"moov" for size in sizes))
    check_sample_tables(path)
