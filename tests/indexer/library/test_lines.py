"""Lines in a library: any query is answered, what is damaged is named, and made whole again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.library.checksums import CHECKSUMS
from indexer.library.errors import DamagedRowsError, LibraryError
from indexer.library.lines import QueryWords
from indexer.library.manifest import published_number, read_snapshot_manifest
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.library.words import index_words
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.crafted_library import change_table, set_column, stamp_again
from tests.support.toy_library import ToyLibrary, data_file, make_library

LINES = [
    "we walk along the harbour",
    "the harbour master's cat",
    "naïve café",
    "我们在这里吃饭",
    "नमस्ते दुनिया",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Two films; the first has subtitles."""
    folder = tmp_path_factory.mktemp("lines")
    media = folder / "media"
    media.mkdir()
    cues = "".join(f"{i}\n00:00:0{i},000 --> 00:00:0{i},500\n{text}\n\n" for i, text in enumerate(LINES, 1))
    (media / "a.srt").write_text(cues)
    return make_library(folder, films={"a.mp4": [("red", 2.0)], "b.mp4": [("blue", 2.0)]})


@pytest.fixture
def toy(made: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    shutil.copytree(made.library, tmp_path / "library")
    return ToyLibrary(made.media, tmp_path / "library", made.bundle)


@pytest.fixture(scope="module")
def snapshot(made: ToyLibrary) -> Snapshot:
    return Snapshot.open(made.library)


def repaired(toy: ToyLibrary) -> Snapshot:
    options = IndexOptions(workers=0, repair=True)
    index_paths([toy.media], toy.library, Bundle.open(toy.bundle), options, lambda _event: None)
    assert verify_library(toy.library).ok
    return Snapshot.open(toy.library)


@pytest.mark.parametrize("least", [0.3, 0.5, 0.9])
def test_lines_with_little_of_the_text_may_be_left_out(snapshot: Snapshot, least: float) -> None:
    """Whether they are known beforehand to have too little, or the index had to be asked."""
    for text in ("the harbour", "naive tea", "zebra crossing", "a", "HARBOUR zebras", "我们", "café 我们"):
        whole = snapshot.find_lines(text, 10)
        query = QueryWords(text)
        expected = [line for line in whole if query.coverage(line.text) >= least]
        assert snapshot.find_lines(text, 10, least_coverage=least) == expected


def test_the_better_line_comes_first_and_its_words_are_marked(snapshot: Snapshot) -> None:
    lines = snapshot.find_lines("The Harbour MASTER", 10)
    assert [line.text for line in lines] == [LINES[1], LINES[0]]
    assert lines[0].score > lines[1].score > 0
    assert [lines[0].text[a:b] for a, b in lines[0].matches] == ["the", "harbour", "master"]
    assert [line.text for line in snapshot.find_lines("harbour master", 1)] == [LINES[1]]
    assert snapshot.find_lines("harbour", 0) == []
    assert snapshot.find_lines("harbour", 10, kinds=[]) == []
    assert snapshot.find_lines("harbour", 10, kinds=["name"]) == []
    with pytest.raises(ValueError, match="kind 'names' of a line: it must be one of speech, name"):
        snapshot.find_lines("harbour", 10, kinds=["names"])  # type: ignore[list-item]


def test_the_best_lines_of_some_videos_are_found_behind_many_of_others(tmp_path: Path) -> None:
    """Of `a.mp4` are 300 lines, of which all are better than those of the others."""
    said = {
        "a": ["harbour"] * 300,
        "b": ["we see a harbour now", "harbour town"],
        "c": ["the old harbour of"],
    }
    (tmp_path / "media").mkdir()
    for name, lines in said.items():
        cues = [
            f"{i}\n00:00:00,{i:03d} --> 00:00:00,{i + 1:03d}\n{x} {i}\n" for i, x in enumerate(lines, 100)
        ]
        (tmp_path / "media" / f"{name}.srt").write_text("\n".join(cues))
    toy = make_library(tmp_path, films={f"{name}.mp4": [("red", 0.5)] for name in said})
    snapshot = Snapshot.open(toy.library)
    names = [Path(video.path).stem for video in snapshot.videos(0, 3)]
    everything = snapshot.find_lines("harbour", 1000)
    assert len(everything) == 303
    for chosen in ("a", "b", "c", "bc", "ac", "abc", ""):
        videos = np.array([name in chosen for name in names])
        ids = {snapshot.video_id_at(row) for row in np.flatnonzero(videos).tolist()}
        for limit in (1, 2, 4):
            found = snapshot.find_lines("harbour", limit, videos=videos)
            assert found == [line for line in everything if line.video_id in ids][:limit]
    few = snapshot.find_lines("harbour", 4, ["speech"], 0.9, videos=np.array([name == "b" for name in names]))
    assert [line.text for line in few] == ["harbour town 101", "we see a harbour now 100"]


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("NAIVE", LINES[2], ["naïve"]),
        ("cafe\u0301", LINES[2], ["café"]),
        ("吃饭", LINES[3], ["吃饭"]),
        ("दुनिया", LINES[4], ["दुनिया"]),
    ],
)
def test_words_of_any_script_without_case_and_accents(
    snapshot: Snapshot, query: str, text: str, marked: list[str]
) -> None:
    (line,) = snapshot.find_lines(query, 5)
    assert line.text == text
    assert [text[a:b] for a, b in line.matches] == marked


@pytest.mark.parametrize(
    "query",
    [
        *("", "   ", '"', '"harbour', "harbour AND (NOT", "harbour*~2^3 OR title:x", "\0harbour\0", "\ud800"),
        *(
            "'; DROP TABLE texts; --",
            "{}[]\\/",
            "harbour " * 2000,
            "的" * 10_000,
            "x" * 10_000,
            "\u0301" * 50,
        ),
    ],
)
def test_any_text_is_a_query(snapshot: Snapshot, query: str) -> None:
    texts = [line.text for line in snapshot.find_lines(query, 5)]
    assert (LINES[0] in texts) == ("harbour" in query)


@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_answered(snapshot: Snapshot, text: str) -> None:
    for line in snapshot.find_lines(text, 5):
        assert all(0 <= a < b <= len(line.text) for a, b in line.matches)


def test_a_long_query_is_its_first_different_words() -> None:
    words = QueryWords(" ".join(f"Word{i} word{i}" for i in range(200))).words
    assert words == tuple(f"Word{i}" for i in range(64))


def test_lines_of_a_span(snapshot: Snapshot) -> None:
    (video_id,) = {line.video_id for line in snapshot.find_lines("harbour", 5)}

    def between(start: float, end: float) -> list[str]:
        return [x.text for x in snapshot.lines_between(video_id, start, end) if x.kind == "speech"]

    assert between(1.2, 2.2) == LINES[:2]
    assert between(1.6, 1.9) == []
    assert between(0, 100) == LINES
    assert [line.text for line in snapshot.lines_between(video_id, 1.6, 1.9)] == ["a"]
    assert snapshot.lines_between("no such video") == []
    assert snapshot.lines_between("' OR 1=1 --") == []


def test_a_damaged_line_is_refused_and_read_again(toy: ToyLibrary) -> None:
    path = data_file(toy.library, "texts")
    data = bytearray(path.read_bytes())
    data[data.index(b"walk")] ^= 1
    path.write_bytes(data)
    report = verify_library(toy.library)
    assert any(
        "texts.lance: 1 rows of 1 videos are damaged" in p for s in report.snapshots for p in s.problems
    )
    (served,) = [s for s in report.snapshots if s.current]
    assert served.damaged_videos == [str(toy.media / "a.mp4")]
    assert "--repair" in (report.remedy or "")
    snapshot = Snapshot.open(toy.library, accept_damage=True)
    assert snapshot.num_segments == 2
    with pytest.raises(DamagedRowsError, match=r"texts\.lance is damaged: a line of video .* --repair"):
        snapshot.find_lines("along", 5)
    assert [line.text for line in snapshot.find_lines("master", 5)] == [LINES[1]]
    # What a reader holds is not removed.
    del snapshot
    assert [line.text for line in repaired(toy).find_lines("walk", 5)] == [LINES[0]]


def test_a_line_that_is_no_unicode_is_damaged(toy: ToyLibrary) -> None:
    path = data_file(toy.library, "texts")
    data = bytearray(path.read_bytes())
    data[data.index(b"walk")] = 0xFF
    path.write_bytes(data)
    (served,) = [s for s in verify_library(toy.library).snapshots if s.current]
    assert any("rows of 1 videos are damaged" in problem for problem in served.problems)
    snapshot = Snapshot.open(toy.library, accept_damage=True)
    with pytest.raises(LibraryError, match=r"texts\.lance"):
        snapshot.find_lines("along", 5)
    del snapshot
    assert [line.text for line in repaired(toy).find_lines("walk", 5)] == [LINES[0]]


def test_a_damaged_index_of_words_is_made_again(toy: ToyLibrary) -> None:
    manifest = read_snapshot_manifest(toy.library, published_number(toy.library))
    assert manifest.text_index_files
    for name in manifest.text_index_files:
        (toy.library / name).write_bytes(bytes(200))
    snapshot = Snapshot.open(toy.library, accept_damage=True)
    with pytest.raises(LibraryError, match=r"_indices.* is damaged.*`reelfind index` makes the index"):
        snapshot.find_lines("harbour", 5)
    del snapshot
    remedy = verify_library(toy.library).remedy or ""
    assert "`reelfind index` rebuilds it from the tables" in remedy
    assert toy.index().published
    assert [line.text for line in Snapshot.open(toy.library).find_lines("master", 5)] == [LINES[1]]
    assert verify_library(toy.library).ok


def test_lines_are_joined_and_still_found(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.library.compaction._MAX_SMALL_FRAGMENTS", 1)
    media = toy.library.parent / "media"
    shutil.copytree(toy.media, media)
    shutil.rmtree(toy.library)
    toy = ToyLibrary(media, toy.library, toy.bundle)
    for i in range(4):
        (media / "b.srt").write_text(f"1\n00:00:01,000 --> 00:00:02,000\nversion number{i}\n")
        toy.index()
    assert len(lance.dataset(str(toy.library / "texts.lance")).get_fragments()) == 1
    snapshot = Snapshot.open(toy.library)
    assert [line.text for line in snapshot.find_lines("version", 5)] == ["version number3"]
    assert {line.text for line in snapshot.find_lines("harbour", 5)} == set(LINES[:2])
    assert verify_library(toy.library).ok


def column(name: str, value: object) -> object:
    def change(table: pa.Table) -> pa.Table:
        return set_column(table, name, [value, *table[name].to_pylist()[1:]])

    return change


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("kind", "spoken", "its kind is none that lines have"),
        ("start_seconds", float("nan"), "its times are not 0 <= start <= end"),
        ("end_seconds", -1.0, "its times are not 0 <= start <= end"),
        ("language", "<b>", "its language is no code"),
        ("text", "a\x1b[2Jb", "its text is empty, too long, or cannot be shown"),
        ("ingest_id", "f" * 16, "lines of ingest f+, which no video names"),
    ],
)
def test_what_a_stranger_writes_is_noticed(toy: ToyLibrary, name: str, value: object, problem: str) -> None:
    change_table(toy.library, "texts", column(name, value))  # type: ignore[arg-type]
    dataset = lance.dataset(str(toy.library / "texts.lance"))
    index_words(dataset, anew=True)
    stamp_again(toy.library)
    problems = [p for s in verify_library(toy.library).snapshots for p in s.problems]
    assert any(re.search(problem, p) for p in problems), problems


def test_a_table_without_its_index_is_noticed(toy: ToyLibrary) -> None:
    change_table(toy.library, "texts", lambda table: table)
    assert Snapshot.open(toy.library).find_lines("harbour", 5) == []
    problems = [p for s in verify_library(toy.library).snapshots for p in s.problems]
    assert any("the table of texts has no index of words" in p for p in problems)
    assert CHECKSUMS in lance.dataset(str(toy.library / "texts.lance")).schema.names
