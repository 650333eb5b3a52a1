"""The file of what users say and keep out: several processes, kills, folders that are read-only, damage."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.library.annotations import NO_ANNOTATION, Annotation
from indexer.library.curation import NOTHING, Curation
from indexer.library.errors import BusyError, LibraryError
from indexer.library.exclusions import Content, Exclusion, Exclusions, NewExclusion, Place
from model.runtime.errors import InputError
from tests.support.server import clean_environment

VIDEO = "0123456789abcdef"
#: Adds the tags `NAME0`, `NAME1`, … to one video, for ever or so many, and prints each once it is stored.
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from indexer.library.curation import Curation
curation, name = Curation(Path(sys.argv[1])), sys.argv[2]
for number in range(int(sys.argv[3])):
    curation.annotate(sys.argv[4], lambda a: replace(a, tags=(*a.tags, f"{name}{number}")))
    print(number, flush=True)
"""


def write_in_process(library: Path, name: str, count: int, fault: str = "") -> subprocess.Popen[str]:
    environment = clean_environment() | ({"REELFIND_FAULT": fault} if fault else {})
    command = [sys.executable, "-c", WRITER, str(library), name, str(count), VIDEO]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def tagged(*tags: str) -> Annotation:
    return Annotation(tags=tags)


@pytest.fixture
def curation(tmp_path: Path) -> Iterator[Curation]:
    opened = Curation(tmp_path)
    yield opened
    opened.close()


def test_nothing_is_said_and_no_file_made_until_somebody_writes(curation: Curation) -> None:
    assert curation.state() is NOTHING
    assert curation.check() is None
    assert list(curation.path.parent.iterdir()) == []


def test_what_is_written_is_seen_at_once_by_others(curation: Curation) -> None:
    other = Curation(curation.path.parent)
    assert other.state().annotation(VIDEO) == NO_ANNOTATION
    said = curation.annotate(VIDEO, lambda _: Annotation("A day at sea", ("Sea", "dog"), "by night"))
    for each in (curation, other):
        state = each.state()
        assert state.annotation(VIDEO) == said
        assert each.state() is state
        assert dict(state.names.lines) == {VIDEO: "A day at sea · Sea · dog"}
    before = other.state()
    curation.annotate("other", lambda _: tagged("x"))
    assert other.state().annotations.keys() == {VIDEO, "other"}
    assert other.state().exclusions is before.exclusions
    cleared = curation.annotate(VIDEO, lambda _: Annotation())
    assert cleared.updated_at is not None
    assert other.state().annotations.keys() == {"other"}
    assert other.state().names.lines.keys() == {"other"}
    other.close()


def test_an_edit_that_raises_changes_nothing(curation: Curation) -> None:
    curation.annotate(VIDEO, lambda _: tagged("kept"))
    before = curation.state()

    def refuse(annotation: Annotation) -> Annotation:
        assert annotation.tags == ("kept",)
        raise InputError("no")

    with pytest.raises(InputError):
        curation.annotate(VIDEO, refuse)
    assert curation.state() is before


def test_exclusions_come_back_as_they_were_made(curation: Curation) -> None:
    content, place = Content(VIDEO, "ab" * 32, 12), Place(b"/media/\xff.mp4", 12, -5)
    curation.exclude(
        [
            NewExclusion("excluded", "private", b"/media/attic"),
            NewExclusion("removed", None, None, content, (place,)),
        ]
    )
    first, second = curation.read().exclusions.items
    assert (first.kind, first.reason, first.path, first.content) == (
        "excluded",
        "private",
        b"/media/attic",
        None,
    )
    assert (second.kind, second.content, second.places) == ("removed", content, (place,))
    moved = Place(b"/media/b.mp4", 12, 7)
    # The same again is the same exclusion, with another kind and reason.
    curation.exclude([NewExclusion("excluded", "too", None, content, (moved,))])
    curation.add_places([(first.number, replace(moved, bytes=1)), (99, moved)])
    items = curation.read().exclusions.items
    assert [each.number for each in items] == [first.number, second.number]
    assert items[1] == replace(second, kind="excluded", reason="too", places=(moved, place))
    curation.include([first.number])
    assert curation.read().exclusions.items == items[1:]
    with pytest.raises(InputError, match="501 characters"):
        curation.exclude([NewExclusion("excluded", "x" * 501, b"/a")])


def test_processes_that_write_at_once_lose_nothing(curation: Curation) -> None:
    names = ("a", "b", "c")
    writers = [write_in_process(curation.path.parent, name, 15) for name in names]
    for writer in writers:
        assert writer.communicate()[0].split()[-1] == "14"
        assert writer.returncode == 0
    expected = {f"{name}{number}" for name in names for number in range(15)}
    tags = curation.read().annotation(VIDEO).tags
    assert len(tags) == len(expected)
    assert set(tags) == expected


@pytest.mark.parametrize(("point", "stored"), [("curation.commit", 2), ("curation.committed", 3)])
def test_a_write_that_is_killed_is_whole_or_not_there(curation: Curation, point: str, stored: int) -> None:
    writer = write_in_process(curation.path.parent, "t", 9, f"kill {point} 3")
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert curation.read().annotation(VIDEO).tags == ("t0", "t1", "t2")[:stored]
    assert curation.check() is None


def test_kills_at_any_moment_leave_a_whole_file(curation: Curation) -> None:
    for number in range(4):
        writer = write_in_process(curation.path.parent, f"{number}-", 100_000)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.02 + 0.031 * number)
        writer.kill()
        told = [f"{number}-{line.strip()}" for line in writer.communicate()[0].splitlines()]
        assert curation.check() is None
        tags = curation.read().annotation(VIDEO).tags
        # One more may have been stored before the process could tell.
        mine = [tag for tag in tags if tag.startswith(f"{number}-")][1:]
        assert mine[: len(told)] == told
        assert len(mine) <= len(told) + 1


def test_a_write_waits_for_another_and_gives_up_in_time(
    curation: Curation, monkeypatch: pytest.MonkeyPatch
) -> None:
    curation.annotate(VIDEO, lambda _: tagged("a"))
    monkeypatch.setattr("indexer.library.curation._WRITE_SECONDS", 0.05)
    other = sqlite3.connect(curation.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError, match="try again"):
        curation.annotate(VIDEO, lambda _: tagged("b"))
    # Readers do not wait.
    assert curation.read().annotation(VIDEO).tags == ("a",)
    other.execute("ROLLBACK")
    other.close()
    curation.annotate(VIDEO, lambda _: tagged("b"))


def test_a_folder_that_is_read_only_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Curation(folder).annotate(VIDEO, lambda _: tagged("a"))
        empty = folder / "empty"
        empty.mkdir()
        for path, mode in ((folder, 0o555), (empty, 0o555), (folder / "curation.sqlite", 0o444)):
            path.chmod(mode)
        root = os.geteuid() == 0
        try:
            if root:
                # To root, permissions mean nothing.
                os.seteuid(65534)
            curation = Curation(folder)
            assert curation.read().annotation(VIDEO).tags == ("a",)
            with pytest.raises(LibraryError, match="mounted read-only"):
                curation.annotate(VIDEO, lambda _: tagged("b"))
            with pytest.raises(LibraryError, match="mounted read-only"):
                Curation(empty).annotate(VIDEO, lambda _: tagged("b"))
            assert Curation(empty).read() is NOTHING
            assert curation.read().annotation(VIDEO).tags == ("a",)
            curation.close()
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
            empty.chmod(0o755)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    # SQLite's count of changes: without another one, nobody reads the pages again.
    data[27] += 1
    path.write_bytes(data)


def another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()


def endless_view(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE annotations")
        connection.execute(
            "CREATE VIEW annotations AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT x AS video_id, '' AS title, '[]' AS tags, '' AS note, 0 AS updated_us, 1 AS change FROM n"
        )
    connection.close()


def wrong_tags(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE annotations SET tags = '[1', change = 9")
        connection.execute("UPDATE counters SET annotations = 9")
    connection.close()


def later_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"no database " * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        damage_pages,
        another_database,
        endless_view,
        wrong_tags,
        later_version,
    ],
    ids=["text", "cut", "pages", "other tables", "view", "tags", "later"],
)
def test_a_damaged_file_is_told_with_the_remedy_and_what_was_read_stays(
    curation: Curation, harm: Callable[[Path], object]
) -> None:
    curation.annotate(VIDEO, lambda _: tagged("a"))
    curation.exclude([NewExclusion("excluded", None, b"/media/attic")])
    backup = curation.path.with_name("backup")
    shutil.copyfile(curation.path, backup)
    before = curation.state()
    harm(curation.path)
    state = curation.state()
    assert state.problem is not None
    assert "restore it from a backup, or move it away" in state.problem
    assert (state.annotations, state.exclusions) == (before.annotations, before.exclusions)
    for ask in (curation.read, lambda: curation.annotate(VIDEO, lambda _: tagged("b"))):
        with pytest.raises(LibraryError, match="backup"):
            ask()
    assert curation.check()
    backup.rename(curation.path)
    assert curation.read().annotation(VIDEO).tags == ("a",)
    assert curation.read().problem is None
    curation.path.unlink()
    assert curation.read() is NOTHING


def test_a_file_that_is_too_large_is_not_read(curation: Curation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.library.curation._MOST_BYTES", 64 << 10)
    with pytest.raises(LibraryError, match="cannot grow"):
        curation.annotate(VIDEO, lambda _: Annotation(note="x" * 100_000))
    assert curation.read().annotation(VIDEO) == NO_ANNOTATION
    curation.path.write_bytes(bytes(100_000))
    with pytest.raises(LibraryError, match="100,000 bytes"):
        curation.read()


def test_an_earlier_state_that_is_copied_over_the_file_is_taken(curation: Curation) -> None:
    curation.annotate(VIDEO, lambda _: tagged("early"))
    early = curation.path.read_bytes()
    curation.annotate("other", lambda _: tagged("late"))
    curation.exclude([NewExclusion("excluded", None, b"/media/attic")])
    assert curation.read().exclusions
    curation.path.write_bytes(early)
    state = curation.read()
    assert state.annotations.keys() == {VIDEO}
    assert not state.exclusions


PARTS = st.sampled_from([b"a", b"b", b"ab", b"\xff", b"."])
PATHS = st.lists(PARTS, max_size=4).map(lambda parts: b"/" + b"/".join(parts))


@given(st.lists(PATHS, max_size=4), PATHS)
def test_a_path_is_excluded_with_everything_below_it(rules: list[bytes], path: bytes) -> None:
    made = time.time()
    items = [Exclusion(n, "excluded", made, None, rule) for n, rule in enumerate(rules)]  # type: ignore[arg-type]
    found = Exclusions(items).of_path(path)
    naive = [rule for rule in rules if path == rule or path.startswith(rule.rstrip(b"/") + b"/")]
    assert (found is None) == (not naive)
    if found is not None:
        assert found.path == max(naive, key=len)
