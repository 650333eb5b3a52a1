"""Of several streams of pictures, the film is read: not a cover, not thumbnails, not another angle."""

from pathlib import Path

import pytest

from model.runtime.video import VideoError, VideoReader, probe
from tests.support.clips import Clips, clips, ffmpeg
from tests.support.several_streams import CASES, FILES, FILM_WIDTH, make

__all__ = ["clips"]


@pytest.mark.parametrize(("name", "extension"), FILES)
def test_the_film_is_read(name: str, extension: str, tmp_path: Path) -> None:
    path = make(tmp_path, name, extension)
    with VideoReader(path) as reader:
        assert reader.info.width == FILM_WIDTH
        assert reader.info.duration_seconds == pytest.approx(4, abs=0.05)
        [segment] = reader.segments()
        assert len(segment.frames) == 16
        assert reader.damage is None


def test_a_single_picture_with_sound_is_read(tmp_path: Path) -> None:
    """Where there is no film, the picture is what a player shows."""
    path = tmp_path / "podcast.mkv"
    picture = "-f lavfi -i color=red:size=320x240:rate=1:duration=1"
    ffmpeg(*picture.split(), *["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "mjpeg"], str(path))
    assert (probe(path).width, probe(path).codec) == (320, "mjpeg")


@pytest.mark.parametrize("name", CASES)
def test_decord_refuses_several_streams(name: str, tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the package decord2 is not installed")
    path = make(tmp_path, name, CASES[name][4][0])
    with pytest.raises(VideoError, match=": use decoder pyav"):
        VideoReader(path, decoder="decord")


def test_files_of_one_stream_are_opened_no_second_time(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.runtime.video.streams.open_container", None)
    assert probe(clips("constant")).width == 96
