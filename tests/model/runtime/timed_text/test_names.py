"""File names: which subtitles belong to a video, in which language, and the words of a name."""

import pytest

from model.runtime.timed_text import language_code, name_lines, subtitle_language


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("movie.srt", ""),
        ("movie.VTT", ""),
        ("movie.en.vtt", "en"),
        ("movie.eng.ass", "en"),
        ("movie.pt-BR.srt", "pt-BR"),
        ("movie.zh_hans.srt", "zh-Hans"),
        ("movie.German.sub", "de"),
        ("movie.en-orig.vtt", "en"),
        ("movie.en.sdh.srt", "en"),
        ("movie.en.hi.srt", "en"),
        ("movie.hi.srt", "hi"),
        ("movie.forced.ssa", ""),
        ("movie.en.txt", None),
        ("movie2.srt", None),
        ("movie-2.srt", None),
        ("movie.part2.srt", None),
        ("movie.en.part2.srt", None),
        ("other.srt", None),
    ],
)
def test_a_subtitle_file_names_its_video_and_language(name: str, language: str | None) -> None:
    assert subtitle_language("movie", name) == language


def test_languages_of_containers() -> None:
    codes = ["eng", "ger", "fre", "und", "", None, "pt_br", "x", "klingonese", "tlh"]
    expected = ["en", "de", "fr", None, None, None, "pt-BR", None, None, "tlh"]
    assert [language_code(code) for code in codes] == expected


@pytest.mark.parametrize(
    ("stem", "title", "lines"),
    [
        ("my_holiday-trip.2019", None, ["my holiday trip 2019"]),
        ("HolidayTrip", None, ["HolidayTrip", "Holiday Trip"]),
        ("HTMLPage3D v2", None, ["HTMLPage3D v2", "HTML Page3D v2"]),
        ("IMG_0001", "A walk  in\nthe park", ["IMG 0001", "A walk in the park"]),
        ("a_walk", "A walk", ["a walk"]),
        ("ПриветМир", None, ["ПриветМир", "Привет Мир"]),
        ("---", None, []),
        ("", "", []),
    ],
)
def test_names_as_words(stem: str, title: str | None, lines: list[str]) -> None:
    assert name_lines(stem, title) == lines
