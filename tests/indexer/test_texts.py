"""Texts: what gets into a library from subtitle files, text tracks and names, and what later runs change."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pysubs2
import pytest

from indexer.events import Event, FileStarted, IndexSummary
from indexer.library.records import TextLine
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.video import ReadingLimits, text_tracks
from tests.support.copies import distinct_copy
from tests.support.crafted_library import as_made_without_texts
from tests.support.text_tracks import make_video_with_text
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

CUES = [(0.5, 1.0, "The lighthouse keeper waits"), (1.2, 1.8, "for the storm")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4", parts=[("red", 2.0)], title="A Red Film")


def index(bundle: Bundle, library: Path, *paths: Path, **options: Any) -> IndexSummary:
    return index_paths(paths, library, bundle, IndexOptions(**{"workers": 0, **options}), lambda _: None)


def write_subtitles(path: Path, *texts: str, encoding: str = "utf-8") -> Path:
    subs = pysubs2.SSAFile()
    cues = CUES if not texts else [(i + 0.1, i + 0.9, text) for i, text in enumerate(texts)]
    for start, end, text in cues:
        subs.append(pysubs2.SSAEvent(round(start * 1000), round(end * 1000), text))
    path.write_bytes(subs.to_string(pysubs2.formats.get_format_identifier(path.suffix)).encode(encoding))
    return path


def found(library: Path, text: str, **kinds: Any) -> list[tuple[str, str, str]]:
    """The file name, kind and text of each line that a text finds."""
    snapshot = Snapshot.open(library)
    return [
        (name_of(snapshot, line), line.kind, line.text) for line in snapshot.find_lines(text, 10, **kinds)
    ]


def name_of(snapshot: Snapshot, line: TextLine) -> str:
    video = snapshot.video(line.video_id)
    assert video is not None
    return video.file.name


def versions(library: Path) -> list[int]:
    names = ("videos", "segments", "frames", "texts")
    return [lance.dataset(str(library / f"{name}.lance")).version for name in names]


def test_a_video_is_found_by_what_is_said_and_by_its_names(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media / "HarbourWalk_2019.mp4")
    write_subtitles(media / "HarbourWalk_2019.en.srt")
    summary = index(bundle, library, media)
    assert (summary.verdicts, summary.lines, summary.text_problems) == ({"ok": 1}, 2, [])
    assert summary.passed_over == {}
    snapshot = Snapshot.open(library)
    (line,) = snapshot.find_lines("LIGHTHOUSE, storms?", 5)
    assert (line.kind, line.start_seconds, line.end_seconds, line.language) == ("speech", 0.5, 1.0, "en")
    assert line.score > 0
    assert [line.text[a:b] for a, b in line.matches] == ["lighthouse"]
    name = "HarbourWalk_2019.mp4"
    assert found(library, "harbour") == [(name, "name", "Harbour Walk 2019")]
    assert found(library, "harbourwalk") == [(name, "name", "HarbourWalk 2019")]
    assert found(library, "red film") == [(name, "name", "A Red Film")]
    assert found(library, "red film storm", kinds=["speech"]) == [(name, "speech", "for the storm")]
    between = snapshot.lines_between(line.video_id, 1.1, 1.5)
    assert [each.text for each in between if each.kind == "speech"] == ["for the storm"]
    assert {each.text for each in between if each.kind == "name"} == {
        *("A Red Film", "Harbour Walk 2019", "HarbourWalk 2019")
    }
    assert all(each.end_seconds == pytest.approx(2.0, abs=0.2) for each in between if each.kind == "name")
    assert verify_library(library).ok
    again = index(bundle, library, media)
    assert (again.unchanged, again.published, again.lines) == (1, False, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_subtitles_of_all_kinds_and_encodings(
    bundle: Bundle, film: Path, tmp_path: Path, workers: int
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media / "film.mp4")
    texts = {
        ("film.ru.srt", "cp1251"): "Привет, как твои дела?",
        ("film.vtt", "utf-8-sig"): "naïve señor",
        ("film.de.ass", "utf-16"): "Straße und Brücke",
        ("film.zh.ssa", "gb18030"): "我们今天去吃饭吧，你觉得怎么样？",
        ("film.fr.ttml", "utf-8"): "une crêpe à la crème",
        ("film.sub", "ascii"): "{1}{1}25\n{25}{50}frames counted",
    }
    for (name, encoding), text in texts.items():
        if name.endswith(".sub"):
            (media / name).write_text(text)
        else:
            write_subtitles(media / name, text, encoding=encoding)
    (media / "film.en.srt").write_bytes(b"")
    (media / "film.es.srt").write_bytes(bytes(range(1, 256)) * 20)
    (media / "film.it.sub").write_bytes(b"\x00\x00\x01\xba" * 100)
    (media / "film.nl.srt").write_text(
        "1\n00:00:05,000 --> 00:00:03,000\nBack\n\n2\n00:00:01,000 --> 00:00:02,000\nForth\n"
    )
    (media / "other.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nNobody's\n")
    summary = index(bundle, library, media, workers=workers)
    assert summary.verdicts == {"ok": 1}
    assert summary.passed_over == {".srt": 1}
    problems = {p.path.name: (p.verdict, p.reason) for p in summary.text_problems}
    assert problems == {
        "film.en.srt": ("corrupt", "it is empty"),
        "film.es.srt": ("corrupt", "it has no cues"),
        "film.it.sub": ("unsupported", "it holds pictures of text (VobSub)"),
        "film.nl.srt": ("partial", "1 of its lines are left out: their times cannot be"),
    }
    for query, expected in {
        "ДЕЛА": ("ru", "Привет, как твои дела?"),
        "naive senor": (None, "naïve señor"),
        "strasse": ("de", "Straße und Brücke"),
        "吃饭": ("zh", "我们今天去吃饭吧，你觉得怎么样？"),
        "crepe": ("fr", "une crêpe à la crème"),
        "counted": (None, "frames counted"),
        "forth": ("nl", "Forth"),
    }.items():
        (line,) = Snapshot.open(library).find_lines(query, 5, kinds=["speech"])
        assert (line.language, line.text) == expected
        assert line.matches
    assert found(library, "nobody") == []
    assert verify_library(library).ok


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mov_text", ".mp4"), ("subrip", ".mkv"), ("ass", ".mkv"), ("webvtt", ".webm")]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_text_tracks_are_read(bundle: Bundle, tmp_path: Path, codec: str, suffix: str, workers: int) -> None:
    path = tmp_path / f"media/film{suffix}"
    make_video_with_text(path, codec, {"eng": CUES, "rus": [(0.2, 0.8, "Маяк")]})
    summary = index(bundle, tmp_path / "library", tmp_path / "media", workers=workers)
    assert (summary.verdicts, summary.lines, summary.text_problems) == ({"ok": 1}, 3, [])
    snapshot = Snapshot.open(tmp_path / "library")
    lines = snapshot.lines_between(snapshot.videos(0, 1)[0].video_id)
    spoken = [line for line in lines if line.kind == "speech"]
    assert [(line.text, line.language) for line in spoken] == [
        ("Маяк", "ru"),
        *((text, "en") for _, _, text in CUES),
    ]
    times = [(line.start_seconds, line.end_seconds) for line in spoken]
    expected = [(0.2, 0.8), *((start, end) for start, end, _ in CUES)]
    np.testing.assert_allclose(times, expected, atol=0.01)


def test_changed_subtitles_are_read_again_and_pictures_are_not(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    for name in ("a", "b"):
        distinct_copy(film, media / f"{name}.mp4")
    index(bundle, library, media)
    before = versions(library)
    # One appears.
    write_subtitles(media / "a.srt", "first words")
    summary = index(bundle, library, media)
    assert (summary.unchanged, summary.verdicts, summary.lines, summary.published) == (2, {}, 1, True)
    assert found(library, "first words") == [("a.mp4", "speech", "first words")]
    # It changes, with the same size.
    write_subtitles(media / "a.srt", "other words")
    os.utime(media / "a.srt", (5, 5))
    index(bundle, library, media)
    assert found(library, "first") == []
    assert found(library, "other") == [("a.mp4", "speech", "other words")]
    # It vanishes.
    (media / "a.srt").unlink()
    index(bundle, library, media)
    assert found(library, "words") == []
    names = [("a.mp4", "name", "A Red Film"), ("b.mp4", "name", "A Red Film")]
    assert sorted(found(library, "red")) == names
    assert versions(library)[1:3] == before[1:3]
    assert index(bundle, library, media).published is False
    assert verify_library(library).ok


def test_a_file_given_alone_has_its_subtitles(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.cut.mp4"):
        distinct_copy(film, tmp_path / name)
    write_subtitles(tmp_path / "a.en.srt", "for the first")
    write_subtitles(tmp_path / "a.cut.srt", "for the second")
    index(bundle, tmp_path / "library", tmp_path / "a.mp4")
    assert found(tmp_path / "library", "for the") == [("a.mp4", "speech", "for the first")]
    index(bundle, tmp_path / "library", tmp_path)
    assert sorted(found(tmp_path / "library", "for the")) == [
        ("a.cut.mp4", "speech", "for the second"),
        ("a.mp4", "speech", "for the first"),
    ]


def test_a_library_without_texts_is_served_and_gets_them_without_decoding(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    (tmp_path / "away").mkdir()
    distinct_copy(film, media / "here.mp4")
    distinct_copy(film, tmp_path / "away/gone.mp4")
    make_video_with_text(media / "tracks.mkv", "subrip", {"eng": [(0.2, 0.8, "inside it")]})
    index(bundle, library, media, tmp_path / "away")
    as_made_without_texts(library)
    snapshot = Snapshot.open(library)
    assert snapshot.find_lines("film", 5) == []
    assert snapshot.lines_between(snapshot.videos(0, 1)[0].video_id) == []
    assert verify_library(library).ok
    segments, frames = versions_of_pictures(library)

    write_subtitles(media / "here.srt")
    (tmp_path / "away").rename(tmp_path / "unplugged")
    summary = index(bundle, library, media)
    assert (summary.verdicts, summary.unchanged, summary.lines) == ({}, 2, 3)
    assert versions_of_pictures(library) == (segments, frames)
    assert found(library, "lighthouse") == [("here.mp4", "speech", CUES[0][2])]
    assert found(library, "inside") == [("tracks.mkv", "speech", "inside it")]
    assert ("gone.mp4", "name", "gone") in found(library, "gone")
    assert verify_library(library).ok
    assert index(bundle, library, media).published is False

    # When it is back, its subtitles are read.
    (tmp_path / "unplugged").rename(tmp_path / "away")
    write_subtitles(tmp_path / "away/gone.srt", "back again")
    assert index(bundle, library, tmp_path / "away").lines == 1
    assert found(library, "back again") == [("gone.mp4", "speech", "back again")]


def versions_of_pictures(library: Path) -> tuple[int, int]:
    segments, frames = (lance.dataset(str(library / f"{name}.lance")) for name in ("segments", "frames"))
    return segments.version, frames.version


def test_rolling_back_to_a_snapshot_without_texts(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media / "film.mp4")
    index(bundle, library, media)
    as_made_without_texts(library)
    write_subtitles(media / "film.srt")
    index(bundle, library, media)
    assert rollback(library) == 1
    assert Snapshot.open(library).find_lines("storm", 5) == []
    assert index(bundle, library, media).lines == 2
    assert found(library, "storm") == [("film.mp4", "speech", "for the storm")]
    assert verify_library(library).ok


def test_what_cannot_be_reached_is_not_what_has_changed(
    bundle: Bundle, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media / "film.mp4")
    write_subtitles(media / "film.srt")
    index(bundle, library, media)
    # Between the scan and the reading, the share goes away.
    write_subtitles(media / "film.srt", "newer words")
    real = Path.read_bytes

    def away(path: Path) -> bytes:
        if path.name == "film.srt":
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", away)
        summary = index(bundle, library, media)
    assert [(p.verdict, p.reason) for p in summary.text_problems] == [
        (None, "cannot be read: Input/output error")
    ]
    assert found(library, "storm") == [("film.mp4", "speech", "for the storm")]
    assert index(bundle, library, media).lines == 1
    assert found(library, "newer") == [("film.mp4", "speech", "newer words")]


def test_stopping_loses_nothing(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    for i in range(4):
        distinct_copy(film, media / f"{i}.mp4")
        write_subtitles(media / f"{i}.srt", f"number{i}")
    index(bundle, library, media)
    as_made_without_texts(library)
    stop = threading.Event()
    started: list[Path] = []

    def on_event(event: Event) -> None:
        if isinstance(event, FileStarted):
            started.append(event.path)
            if len(started) == 3:
                stop.set()

    summary = index_paths([media], library, bundle, IndexOptions(workers=0), on_event, stop)
    assert summary.interrupted
    assert summary.lines == 2
    assert verify_library(library).ok
    assert summary.lines + index(bundle, library, media).lines == 4
    assert all(found(library, f"number{i}") for i in range(4))
    assert index(bundle, library, media).published is False


def test_pruned_videos_lose_their_lines(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    for name in ("a", "b"):
        distinct_copy(film, media / f"{name}.mp4")
        write_subtitles(media / f"{name}.srt", f"said in {name}")
    index(bundle, library, media)
    (media / "a.mp4").unlink()
    summary = index(bundle, library, media, prune=True)
    assert (summary.removed, summary.passed_over) == (1, {".srt": 1})
    assert found(library, "said") == [("b.mp4", "speech", "said in b")]
    assert verify_library(library).ok


def test_a_video_has_no_more_lines_than_it_may(
    bundle: Bundle, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("texts", "file_texts"):
        monkeypatch.setattr(f"indexer.{module}.MAX_LINES", 3)
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media / "film.mp4")
    write_subtitles(media / "film.de.srt", "one", "two")
    write_subtitles(media / "film.en.srt", "three", "four", "five", "six")
    summary = index(bundle, library, media)
    assert summary.lines == 3
    assert {(p.path.name, p.verdict) for p in summary.text_problems} == {("film.en.srt", "partial")}
    assert {line[2] for line in found(library, "one two three four")} == {"one", "two", "three"}
    assert index(bundle, library, media).published is False


def test_tracks_of_a_video_that_goes_away_stay(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    path = make_video_with_text(media / "film.mkv", "subrip", {"eng": CUES})
    index(bundle, library, media)
    write_subtitles(media / "film.de.srt", "so that texts are read again")
    real = text_tracks.read_text_tracks

    def away(path: Path, limits: ReadingLimits) -> Iterator[text_tracks.TrackLine | None]:
        yield from real(path, limits)
        path.rename(tmp_path / "elsewhere.mkv")

    with monkeypatch.context() as patched:
        patched.setattr(text_tracks, "read_text_tracks", away)
        (problem,) = index(bundle, library, media).text_problems
    assert (problem.path, problem.verdict) == (path, None)
    assert "No such file" in problem.reason
    assert found(library, "storm") == [("film.mkv", "speech", "for the storm")]
    (tmp_path / "elsewhere.mkv").rename(path)
    assert index(bundle, library, media).lines == 3
