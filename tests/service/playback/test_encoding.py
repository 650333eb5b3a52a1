"""Streams of films in many codecs, decoded and compared with the films in time, picture and sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model.runtime.video import ReadingLimits, VideoReader, probe
from model.runtime.video.onward import OnwardReader
from service.playback.encoding import encode
from service.playback.jobs import StreamJob
from service.playback.pictures import encoded_size
from service.playback.sound_track import RATE
from tests.support.flashes import FILMS, Films, decode, films

__all__ = ["films"]
pytestmark = pytest.mark.slow
LIMITS = ReadingLimits()
STREAMED = [name for name in FILMS if "h264" not in name and name not in ("vp9 in webm", "open groups")]
#: How much later than at the whole second a tone is heard in the file itself.
LATE = {"avi": 0.023, "mpeg2": 0.01, "from 10 s on": 0.01, "interlaced": 0.005}


def stream(path: Path, start: float, folder: Path, max_height: int = 720) -> Path:
    made = folder / "stream.mp4"
    announced: list[str] = []
    with made.open("wb") as file:
        job = StreamJob(start, probe(path).duration_seconds, max_height)
        encode(path, job, LIMITS, 1, file, announced.append)
    assert len(announced) == 1
    return made


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_shows_and_plays_what_the_film_does(name: str, films: Films, tmp_path: Path) -> None:
    path, film = films(name), FILMS[name]
    for start in (0.0, 1.43):
        reader = OnwardReader(path, LIMITS)
        expected = [frame.pts_seconds - start for frame in reader.frames(start)]
        reader.close()
        made = decode(stream(path, start, tmp_path))
        # The first picture is on display from the start on.
        np.testing.assert_allclose(made.times, [0.0, *expected[1:]], atol=2e-5)
        with VideoReader(path, max_side=None) as original:
            assert (
                made.pictures.shape[1:3] == encoded_size(original.info.width, original.info.height, 720)[::-1]
            )
            picked = slice(0, None, 7)
            shown = original.get_frames_played_at((made.times[picked] + start + 1e-4).tolist())
            for frame, picture in zip(shown, made.pictures[picked], strict=True):
                height, width = (
                    min(one, other) for one, other in zip(frame.data.shape, picture.shape[:2], strict=False)
                )
                difference = np.abs(frame.data[:height, :width].astype(int) - picture[:height, :width])
                assert difference.mean() < 10, name
        if not film.sound:
            assert made.sound is None
            continue
        sound_seconds = film.sound_seconds or film.seconds
        tones = [second + LATE.get(name, 0.0) - start for second in np.arange(0, sound_seconds)]
        # That of second 0 is not heard from its very beginning: see `SoundEncoder`.
        np.testing.assert_allclose(made.tones(), [tone for tone in tones if tone > -0.01], atol=0.025)
        length = max(sound_seconds, expected[-1] + start) - start
        assert made.sound is not None
        assert len(made.sound) / 48000 == pytest.approx(length, abs=0.1)


def test_a_stream_is_not_larger_than_asked_for(films: Films, tmp_path: Path) -> None:
    assert decode(stream(films("avi"), 3.0, tmp_path, 48)).pictures.shape[1:3] == (48, 64)
    assert decode(stream(films("turned"), 3.0, tmp_path, 48)).pictures.shape[1:3] == (64, 48)
    assert encoded_size(1920, 1080, 720) == (1280, 720)
    assert encoded_size(1080, 1920, 720) == (720, 1280)
    assert encoded_size(1920, 804, 720) == (1280, 536)
    assert encoded_size(1440, 1080, 720) == (960, 720)
    assert encoded_size(641, 481, 720) == (640, 480)
    assert encoded_size(1, 1, 720) == (2, 2)
    assert encoded_size(40000, 2, 720) == (1280, 2)


def test_a_stream_can_be_joined_where_the_one_before_was_left(films: Films, tmp_path: Path) -> None:
    path = films("hevc")
    whole = decode(stream(path, 0.0, tmp_path))
    for number in (37, 38):
        later = decode(stream(path, float(whole.times[number]), tmp_path))
        np.testing.assert_allclose(later.times + whole.times[number], whole.times[number:], atol=2e-5)


def test_sound_at_a_time_that_cannot_be_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "far.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for _ in range(25):
            container.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(picture.encode(None))
        for second in (0, 30, 50_000):
            frame = av.AudioFrame.from_ndarray(np.full((1, 2 * RATE), 9000, np.int16), "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    made = decode(stream(path, 0.0, tmp_path))
    assert made.sound is not None
    assert len(made.sound) / RATE == pytest.approx(31.0, abs=0.1)
    np.testing.assert_allclose(made.tones(), [0.0, 30.0], atol=0.03)
