"""What files say of when, where and with what they were taken: real tags, real files, and any text."""

from __future__ import annotations

import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.captured import (
    Captured,
    captured_in_file_time,
    captured_in_name,
    captured_in_tags,
)
from model.runtime.places import Place, parse_place
from model.runtime.video import VideoReader
from model.runtime.video.facts import VideoFacts, facts_in_tags

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """A time in UTC, in seconds since 1970."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def local(*time: int) -> Captured:
    """A local time that a tag gives without its zone."""
    return Captured(seconds(*time), None, "tag_local")


IPHONE = {
    "major_brand": "qt  ",
    "creation_time": "2023-07-14T16:22:31.000000Z",
    "com.apple.quicktime.creationdate": "2023-07-14T18:22:31+0200",
    "com.apple.quicktime.location.iso6709": "+48.8584+002.2945+035.000/",
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone 12",
}
ANDROID = {
    "major_brand": "mp42",
    "creation_time": "2024-01-31T14:45:02.000000Z",
    "location": "-33.8568+151.2153/",
    "location-eng": "-33.8568+151.2153/",
    "com.android.version": "14",
    "com.android.manufacturer": "Google",
    "com.android.model": "Pixel 8",
}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            IPHONE,
            VideoFacts(
                Captured(seconds(2023, 7, 14, 16, 22, 31), 120, "tag_with_zone"),
                Place(48.8584, 2.2945, 35.0),
                "Apple iPhone 12",
            ),
        ),
        (
            ANDROID,
            VideoFacts(
                Captured(seconds(2024, 1, 31, 14, 45, 2), None, "tag_utc"),
                Place(-33.8568, 151.2153),
                "Google Pixel 8",
            ),
        ),
        # An AVI file of a camera: local time, from the chunk IDIT, or EXIF.
        ({"creation_time": "2003-03-10 15:04:43"}, local(2003, 3, 10, 15, 4, 43)),
        (
            {"datetimeoriginal": "2009:05:06 07:08:09", "make": "Canon", "model": "Canon PowerShot S5 IS"},
            VideoFacts(local(2009, 5, 6, 7, 8, 9), camera="Canon PowerShot S5 IS"),
        ),
        # Matroska: the header's time, and the tag, which is that of the recording.
        ({"date_recorded": "2021-03-04 05:06:07.089"}, local(2021, 3, 4, 5, 6, 7)),
        ({"date_recorded": "1962-08-01"}, local(1962, 8, 1)),
        ({"date_recorded": "1962"}, VideoFacts()),
        # Older iPhones; what a shop sells has a date too, in UTC, and a film its year.
        (
            {"date": "2010-08-07T15:12:35-0400"},
            Captured(seconds(2010, 8, 7, 19, 12, 35), -240, "tag_with_zone"),
        ),
        ({"date": "2010-05-11T07:00:00Z"}, VideoFacts()),
        ({"date": "2019"}, VideoFacts()),
        # MXF of a camera.
        (
            {"modification_date": "2019-10-02T08:09:10.000000Z"},
            Captured(seconds(2019, 10, 2, 8, 9, 10), None, "tag_utc"),
        ),
        ({"location": "+00.0000+000.0000/", "creation_time": "1904-01-01T00:00:00.000000Z"}, VideoFacts()),
        ({"model": "HERO9 Black"}, VideoFacts(camera="HERO9 Black")),
        ({"make": "  ", "model": ""}, VideoFacts()),
    ],
)  # fmt: skip
def test_tags_of_devices(tags: dict[str, str], expected: VideoFacts | Captured) -> None:
    facts = expected if isinstance(expected, VideoFacts) else VideoFacts(captured=expected)
    assert facts_in_tags(tags, None, NOW) == facts


@pytest.mark.parametrize(
    "text",
    [
        "1904-01-01T00:00:00.000000Z",
        "1904-01-02T05:00:00Z",
        "1903-12-31T23:00:00-0500",
        "1970-01-01T00:00:00Z",
        "1969-12-31T19:00:00-0500",
        "1980-01-01T00:00:00Z",
        "2024-06-03T00:00:00Z",
        "2099-01-01T00:00:00+0000",
        "2023-02-30T00:00:00Z",
        "2023-02-03T25:00:00Z",
        "2023-02-03T05:00:00+9900",
        "0000-00-00T00:00:00Z",
        "2023-02-03T05:00:00ZZ",
        "٢٠٢٣-02-03T05:00:00Z",
        "yesterday",
        "",
    ],
)
def test_times_that_cannot_be_are_refused(text: str) -> None:
    assert captured_in_tags({"creation_time": text}, NOW) is None


def test_what_is_certain_comes_first() -> None:
    tags = {"creation_time": "2023-07-14T16:22:31Z", "date_recorded": "2020-01-02 03:04:05"}
    found = captured_in_tags(tags, NOW)
    assert found is not None
    assert found.source == "tag_utc"
    # A clock that was not set does not count.
    found = captured_in_tags(tags | {"creation_time": "1970-01-01T00:00:01Z"}, NOW)
    assert found is not None
    assert found.source == "tag_local"


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20240131_154502.mp4", (2024, 1, 31, 15, 45, 2)),
        ("VID_20240131_154502.mp4", (2024, 1, 31, 15, 45, 2)),
        ("PXL_20240131_154502123.TS.mp4", (2024, 1, 31, 15, 45, 2)),
        ("DJI_20240131154502_0001_D.MP4", (2024, 1, 31, 15, 45, 2)),
        ("2024-01-31 15-45-02.mkv", (2024, 1, 31, 15, 45, 2)),
        ("2024-01-31T15:45:02.mkv", (2024, 1, 31, 15, 45, 2)),
        ("Screen Recording 2024-01-31 at 3.45.02\u202fPM.mov", (2024, 1, 31, 15, 45, 2)),
        ("Screen Recording 2024-01-31 at 12.05.02 AM.mov", (2024, 1, 31, 0, 5, 2)),
        ("WhatsApp Video 2024-01-31 at 15.45.02.mp4", (2024, 1, 31, 15, 45, 2)),
        ("signal-2024-01-31-15-45-02-123.mp4", (2024, 1, 31, 15, 45, 2)),
        ("video_2024-01-31_15-45-02.mp4", (2024, 1, 31, 15, 45, 2)),
        ("IMG-20240131-WA0001.mp4", (2024, 1, 31)),
        ("VID-20240131-WA0012 (1).mp4", (2024, 1, 31)),
        # No dates, or none that are sure.
        ("IMG_20240131.mp4", None),
        ("20240231_154502.mp4", None),
        ("20240131_254502.mp4", None),
        ("99920240131_154502.mp4", None),
        ("20240131_1545021.mp4", None),
        ("30240131_154502.mp4", None),
        ("1706715902123.mp4", None),
        ("2024-01-31.mp4", None),
        ("Screen Recording 2024-01-31 at 15.45.02 PM.mov", None),
        ("20991231_154502.mp4", None),
        ("holiday.mp4", None),
    ],
)  # fmt: skip
def test_names_of_files(name: str, time: tuple[int, ...] | None) -> None:
    expected = None if time is None else Captured(seconds(*time), None, "file_name")
    assert captured_in_name(name, NOW) == expected


def test_times_of_files() -> None:
    assert captured_in_file_time(1700000000.7, NOW) == Captured(1700000000, None, "file_time")
    for wrong in (0.0, -1e9, 1e12, 1e30, float("inf"), NOW.timestamp() + 90_000):
        assert captured_in_file_time(wrong, NOW) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("+48.8584+002.2945/", Place(48.8584, 2.2945)),
        ("+37.3349-122.0090+010.000/", Place(37.3349, -122.009, 10.0)),
        ("-90+180/", Place(-90.0, 180.0)),
        ("+4852.5-00221.25/", Place(48.875, -2.3541666666666665)),
        ("+485130-0022130+8850CRSWGS_84/", Place(48.858333333333, -2.358333333333, 8850.0)),
        ("+40.20361-075.00417CRSWGS_84", Place(40.20361, -75.00417)),
        ("+10+010+999999/", Place(10.0, 10.0)),
        ("+00.0000+000.0000/", None),
        ("+90.0001+000.0000/", None),
        ("+10.0+180.1/", None),
        ("+1060+01000/", None),
        ("+5.1+010.1/", None),
        ("48.8584+002.2945/", None),
        ("+48.8584 +002.2945/", None),
        ("+48.8584+002.2945/x", None),
        ("+48.+002.2945/", None),
        ("+١٢.0+010.0/", None),
        ("+10+010CRSmoon/", None),
        ("", None),
    ],
)  # fmt: skip
def test_places(text: str, place: Place | None) -> None:
    found = parse_place(text)
    if place is None:
        assert found is None
        return
    assert found is not None
    assert found.altitude_metres == place.altitude_metres
    assert (found.latitude, found.longitude) == pytest.approx((place.latitude, place.longitude), abs=1e-9)


@st.composite
def written_places(draw: st.DrawFn) -> tuple[str, float, float, float | None]:
    """A place as a naive writer writes it in one of the three ways, and what it means."""
    way = draw(st.sampled_from([1, 2, 3]))
    texts, angles = [], []
    for digits, most in ((2, 89), (3, 179)):
        sign = draw(st.sampled_from("+-"))
        parts = [draw(st.integers(0, most)), *(draw(st.integers(0, 59)) for _ in range(way - 1))]
        fraction = draw(st.integers(0, 9999))
        widths = [digits, 2, 2]
        text = "".join(f"{part:0{width}d}" for part, width in zip(parts, widths, strict=False))
        texts.append(f"{sign}{text}.{fraction:04d}")
        angle = sum(part / 60**i for i, part in enumerate(parts)) + fraction / 10_000 / 60 ** (way - 1)
        angles.append(-angle if sign == "-" else angle)
    altitude = draw(st.none() | st.integers(-400, 9000))
    end = draw(st.sampled_from(["/", "", "CRSWGS_84/"]))
    return "".join(texts) + ("" if altitude is None else f"{altitude:+d}") + end, *angles, altitude


@given(written_places())
def test_a_place_is_read_as_it_was_written(written: tuple[str, float, float, float | None]) -> None:
    text, latitude, longitude, altitude = written
    place = parse_place(text)
    if latitude == 0 and longitude == 0:
        assert place is None
        return
    assert place is not None
    assert (place.latitude, place.longitude) == pytest.approx((latitude, longitude), abs=1e-9)
    assert place.altitude_metres == altitude


@given(st.text(max_size=60) | st.text("+-0123456789./CRSWGS_84", max_size=40))
def test_any_text_is_a_place_or_none(text: str) -> None:
    place = parse_place(text)
    assert place is None or (abs(place.latitude) <= 90 and abs(place.longitude) <= 180)


@given(
    st.dictionaries(
        st.sampled_from([*IPHONE, *ANDROID, "date", "date_recorded", "datetimeoriginal", "make", "model"]),
        st.text(max_size=40) | st.text("0123456789-:TZ+ ./", max_size=30),
    ),
    st.text(max_size=40) | st.text("0123456789-_.: ATPMWVID", max_size=40),
    st.floats(),
)
def test_any_tags_names_and_times_give_what_can_be(tags: dict[str, str], name: str, modified: float) -> None:
    times = (
        facts_in_tags(tags, None, NOW).captured,
        captured_in_name(name, NOW),
        captured_in_file_time(modified, NOW),
    )
    for captured in times:
        assert captured is None or captured.seconds <= NOW.timestamp() + 86400


def write_video(
    path: Path, tags: dict[str, str], *, sound: str | None = None, options: dict[str, str] | None = None
) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags)
        mpeg2 = path.suffix in (".ts", ".mxf")
        video = container.add_stream("mpeg2video" if mpeg2 else "mpeg4", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = None if sound is None else container.add_stream(sound, rate=44100, layout="stereo")
        for shade in range(3):
            pixels = np.full((48, 64, 3), shade * 40, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        if track is not None:
            assert isinstance(track, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 2 * 4608), np.int16), format="s16", layout="stereo"
            )
            frame.sample_rate = 44100
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def facts_of(path: Path) -> VideoFacts:
    with VideoReader(path) as reader:
        return reader.info.facts


SENT = {
    "creation_time": "2023-07-14T16:22:31.000000Z",
    "location": "+48.8584+002.2945+035.000/",
    "make": "Apple",
    "model": "iPhone 12",
    "com.apple.quicktime.creationdate": "2023-07-14T18:22:31+0200",
}
WITH_ZONE = Captured(seconds(2023, 7, 14, 16, 22, 31), 120, "tag_with_zone")
IN_UTC = Captured(seconds(2023, 7, 14, 16, 22, 31), None, "tag_utc")
EIFFEL = Place(48.8584, 2.2945, 35.0)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.mp4", {}, VideoFacts(IN_UTC, Place(48.8584, 2.2945))),
        ("all.mp4", {"movflags": "use_metadata_tags"}, VideoFacts(WITH_ZONE, EIFFEL, "Apple iPhone 12")),
        ("a.mov", {}, VideoFacts(IN_UTC, EIFFEL, "Apple iPhone 12")),
        ("all.mov", {"movflags": "use_metadata_tags"}, VideoFacts(WITH_ZONE, EIFFEL, "Apple iPhone 12")),
        ("a.mkv", {}, VideoFacts(WITH_ZONE, EIFFEL, "Apple iPhone 12")),
        ("a.avi", {}, VideoFacts()),
        ("a.ts", {}, VideoFacts()),
        ("a.mxf", {}, VideoFacts(IN_UTC)),
    ],
)
def test_files_of_all_kinds(tmp_path: Path, name: str, options: dict[str, str], expected: VideoFacts) -> None:
    sound = {"mxf": None, "avi": "mp2", "ts": "mp2"}.get(name.rpartition(".")[2], "aac")
    facts = facts_of(write_video(tmp_path / name, SENT, sound=sound, options=options))
    assert (facts.captured, facts.camera) == (expected.captured, expected.camera)
    assert (facts.audio_codec, facts.has_sound) == (sound, sound is not None)
    if expected.place is None:
        assert facts.place is None
    else:
        assert facts.place is not None
        assert facts.place.latitude == pytest.approx(expected.place.latitude, abs=1e-3)
        assert facts.place.longitude == pytest.approx(expected.place.longitude, abs=1e-3)


def test_the_time_in_an_avi_file_of_a_camera(tmp_path: Path) -> None:
    """In the chunk IDIT of its header, which the ffmpeg program does not write."""
    path = write_video(tmp_path / "a.avi", {})
    data = bytearray(path.read_bytes())
    assert data[12:16] == b"LIST"
    assert data[20:24] == b"hdrl"
    text = b"Mon Mar 10 15:04:43 2003\n\0"
    chunk = b"IDIT" + struct.pack("<I", len(text)) + text
    for at in (4, 16):
        (size,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at, size + len(chunk))
    (size,) = struct.unpack_from("<I", data, 16)
    data[20 + size - len(chunk) : 20 + size - len(chunk)] = chunk
    path.write_bytes(data)
    assert facts_of(path) == VideoFacts(local(2003, 3, 10, 15, 4, 43))


def test_a_file_that_the_ffmpeg_program_wrote_with_a_recording_date(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"),
        *("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5:duration=1"),
        *("-f", "lavfi", "-i", "sine=duration=1", "-c:v", "libx264", "-c:a", "libopus"),
        *("-metadata", "DATE_RECORDED=1999-12-31 23:59:58", str(path)),
    ]
    subprocess.run(command, check=True)
    assert facts_of(path) == VideoFacts(local(1999, 12, 31, 23, 59, 58), audio_codec="opus")
