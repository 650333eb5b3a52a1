"""Subtitle files: formats, styling, encodings, odd times, and files that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pysubs2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime.errors import InputError
from model.runtime.timed_text import TimedLine, plain_text
from model.runtime.timed_text.subtitles import SubtitleError, parse_subtitles, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
<font color="red">Hello</font> <i>there</i>,
{\\an8}  my &amp; your friend

2
00:01:00,250 --> 00:01:03,000
Bye
"""
VTT = """WEBVTT
Kind: captions

STYLE
::cue { color: red }

NOTE nobody says this

first
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Hi <c.yellow>there</c><00:00:01.500> I &lt;3 it

second
01:00:05.000 --> 01:00:06.000
Bye
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\\i1}Hello{\\i0}\\Nthere, you
Comment: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,a note
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}
"""


def written(folder: Path, content: str | bytes, name: str = "a.srt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_subrip_without_its_styling(tmp_path: Path) -> None:
    found = read_subtitles(written(tmp_path, SRT))
    assert found.lines == (
        TimedLine(1.0, 2.5, "Hello there, my & your friend"),
        TimedLine(60.25, 63.0, "Bye"),
    )
    assert found.left_out == {}


def test_webvtt_without_notes_names_and_voices(tmp_path: Path) -> None:
    found = read_subtitles(written(tmp_path, VTT, "a.vtt"))
    assert found.lines == (TimedLine(1.0, 2.5, "Hi there I <3 it"), TimedLine(3605.0, 3606.0, "Bye"))


def test_substation_without_comments_and_drawings(tmp_path: Path) -> None:
    found = read_subtitles(written(tmp_path, ASS, "a.ass"))
    assert found.lines == (TimedLine(1.0, 3.0, "Hello there, you"),)
    assert found.left_out == {"comment": 1, "drawing": 1}


def test_the_content_says_the_format(tmp_path: Path) -> None:
    assert read_subtitles(written(tmp_path, VTT, "a.srt")) == read_subtitles(written(tmp_path, VTT, "b.vtt"))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    text = SRT.replace("Hello", "Café “là”").replace("\n", newline)
    found = read_subtitles(written(tmp_path, text.encode(encoding)))
    assert found.lines[0].text == "Café “là” there, my & your friend"
    assert len(found.lines) == 2


def test_odd_cues_are_sorted_or_left_out_and_counted(tmp_path: Path) -> None:
    cues = [
        ("00:00:09,000 --> 00:00:10,000", "late"),
        ("00:00:01,000 --> 00:00:08,000", "overlaps"),
        ("00:00:02,000 --> 00:00:03,000", "inside"),
        ("00:00:06,000 --> 00:00:05,000", "backwards"),
        ("00:00:06,000 --> 00:00:07,000", "<i> </i>"),
        ("00:00:04,000 --> 00:00:04,000", "a point"),
        ("0:0:what --> 00:00:07,000", "no time"),
    ]
    text = "\n".join(f"{i}\n{times}\n{line}\n" for i, (times, line) in enumerate(cues, 1))
    found = read_subtitles(written(tmp_path, text))
    assert [(line.start_seconds, line.text) for line in found.lines] == [
        (1.0, "overlaps"),
        (2.0, "inside"),
        (4.0, "a point"),
        (9.0, "late"),
    ]
    assert found.left_out == {"backwards": 1, "empty": 1, "unreadable": 1}


def test_rolling_captions_say_each_line_once(tmp_path: Path) -> None:
    """As YouTube's automatic captions, which show a line again above the next one."""
    text = """WEBVTT

00:00.000 --> 00:02.000
SPACE
so first we cut

00:02.000 --> 00:02.010
so first we cut

00:02.010 --> 00:04.000
so first we cut
the onions

00:09.000 --> 00:10.000
the onions
"""
    found = read_subtitles(written(tmp_path, text.replace("SPACE", " "), "a.vtt"))
    # A line is said again when it does not follow at once.
    assert [line.text for line in found.lines] == ["so first we cut", "the onions", "the onions"]
    assert [line.start_seconds for line in found.lines] == [0.0, 2.01, 9.0]
    assert found.left_out == {"repeated": 1}


def test_a_file_without_speech_has_no_lines(tmp_path: Path) -> None:
    assert read_subtitles(written(tmp_path, "")).lines == ()
    assert read_subtitles(written(tmp_path, "WEBVTT\n\n", "a.vtt")).lines == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"This is a letter.\n\nYours, Ann", "it has no cues"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), "is not a subtitle file, it "),
        (b"WEBVTT\n\nsoon --> later\nHi\n", "no time in it can be read"),
        (b"\xff\xfe\x00\xd8\x00", "it cannot be read as utf-16"),
        (b"{1}{25}Hello\n{26}{50}you\n", "it "),
    ],
)
def test_files_that_are_no_subtitles_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(
        InputError, match=r"a\.srt is not a subtitle file, .*: replace it by one in"
    ) as caught:
        read_subtitles(written(tmp_path, content))
    assert reason in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_subtitles(tmp_path)


@pytest.mark.parametrize("times", [(-1.0, 2.0), (3.0, 2.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_line_has_valid_times(times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 <= start <= end"):
        TimedLine(*times, "Hi")
    with pytest.raises(ValueError, match="no text"):
        TimedLine(0.0, 1.0, " ")


CUES = [(1.0, 2.5, "Hello there"), (4.0, 6.0, "General remarks")]


@pytest.mark.parametrize("form", ["srt", "vtt", "ass", "ssa", "microdvd", "mpl2", "tmp", "ttml"])
def test_every_format_that_pysubs2_writes_is_read(form: str) -> None:
    subs = pysubs2.SSAFile()
    for start, end, text in CUES:
        subs.append(pysubs2.SSAEvent(int(start * 1000), int(end * 1000), text))
    found = parse_subtitles(subs.to_string(form, fps=25.0).encode(), fps=25.0)
    assert [line.text for line in found.lines] == [text for _, _, text in CUES]
    # TMPlayer has whole seconds, and no ends.
    tolerance = 1.0 if form == "tmp" else 0.1
    assert [line.start_seconds for line in found.lines] == pytest.approx([1.0, 4.0], abs=tolerance)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Привет, как твои дела? Пойдём домой."),
        ("koi8-r", "Привет, как твои дела? Пойдём домой."),
        ("latin-1", "Où est le garçon? Il a mangé une crêpe à la crème, là-bas."),
        ("cp1252", "“Où est le garçon ?” — Il a mangé une crêpe…"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy."),
        ("cp1253", "Καλημέρα, τι κάνεις; Πάμε στο σπίτι."),
        ("gb18030", "我们今天去吃饭吧，你觉得怎么样？"),
        ("cp932", "今日は天気がいいですね。"),
        ("cp949", "오늘은 날씨가 좋네요."),
    ],
)
def test_encodings_that_no_file_states(encoding: str, text: str) -> None:
    cues = "".join(f"{i}\n00:00:0{i},000 --> 00:00:0{i},900\n<i>{text}</i>\n\n" for i in range(1, 4))
    found = parse_subtitles(cues.encode(encoding))
    assert [line.text for line in found.lines] == [text] * 3


def test_a_cue_before_the_start_begins_at_it(tmp_path: Path) -> None:
    text = (
        "1\n-00:00:02,000 --> 00:00:01,500\nEarly\n\n2\n-00:00:05,000 --> -00:00:03,000\nToo early\n\n"
        "3\n00:00:02,000 --> 00:00:03,000\nIn time\n"
    )
    found = read_subtitles(written(tmp_path, text))
    assert found.lines == (TimedLine(0.0, 1.5, "Early"), TimedLine(2.0, 3.0, "In time"))
    assert found.left_out == {"backwards": 1}


def test_frames_need_a_rate() -> None:
    data = b"{25}{50}Hello\n"
    with pytest.raises(SubtitleError, match="it counts frames") as caught:
        parse_subtitles(data)
    assert caught.value.verdict == "unsupported"
    assert parse_subtitles(data, fps=25.0).lines == (TimedLine(1.0, 2.0, "Hello"),)
    # A rate in the file counts more than that of the video.
    assert parse_subtitles(b"{1}{1}10\n" + data, fps=25.0).lines == (TimedLine(2.5, 5.0, "Hello"),)


def test_pictures_of_text_are_named() -> None:
    with pytest.raises(SubtitleError, match="VobSub") as caught:
        parse_subtitles(b"\x00\x00\x01\xba" + bytes(100))
    assert caught.value.verdict == "unsupported"


def test_lines_have_no_control_characters_and_a_bounded_length() -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\na\x00b\x1bc\u2028d e\u0301 {'x' * 5000}\n"
    (line,) = parse_subtitles(text.encode()).lines
    assert line.text.startswith("a b c d é xxx")
    assert (len(line.text), line.text[-1]) == (2000, "…")


def test_entities_of_xml_do_not_grow() -> None:
    """A few hundred bytes that stand for gigabytes."""
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = (
        f'<?xml version="1.0"?><!DOCTYPE tt [{entities}]><tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
        '<p begin="0s" end="1s">&a11;</p></div></body></tt>'
    )
    with pytest.raises(SubtitleError):
        parse_subtitles(text.encode())


@given(data=st.binary(max_size=400), head=st.sampled_from([b"", SRT.encode(), VTT.encode(), ASS.encode()]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_lines_or_an_error(data: bytes, head: bytes) -> None:
    with contextlib.suppress(SubtitleError):
        found = parse_subtitles(head + data, fps=25.0)
        assert all(line.text == plain_text(line.text, resolve=False) for line in found.lines)
