"""The cache of streams and clips: whole entries alone, up to a size, the least recently used go first."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from service.playback.cache import PlaybackCache

TYPE = 'video/mp4; codecs="avc1.64001e"'
MANY = 1 << 30


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def store(cache: PlaybackCache, name: object, content: bytes) -> None:
    entry = cache.begin(key(name))
    assert all(entry.write(content[at : at + 1000]) for at in range(0, len(content), 1000))
    entry.finish(len(content), TYPE).file.close()


def read(cache: PlaybackCache, name: object) -> bytes | None:
    stored = cache.open(key(name))
    if stored is None:
        return None
    assert stored.media_type == TYPE
    with stored.file as file:
        return os.pread(file.fileno(), stored.size, 0)


def test_what_was_stored_is_found(tmp_path: Path) -> None:
    cache = PlaybackCache(tmp_path / "made/cache", MANY)
    assert read(cache, "a") is None
    content = os.urandom(100_000)
    store(cache, "a", content)
    assert read(cache, "a") == content
    assert read(PlaybackCache(tmp_path / "made/cache", MANY), "a") == content
    store(cache, "a", b"the same again")
    assert read(cache, "a") == b"the same again"
    with pytest.raises(ValueError, match="64 hex digits"):
        cache.open("../../etc/passwd")


def test_nothing_is_stored_at_a_size_of_0_but_can_be_read_once(tmp_path: Path) -> None:
    for cache in (PlaybackCache(tmp_path / "cache", 0), PlaybackCache(None, MANY)):
        entry = cache.begin(key("a"))
        entry.file.write(b"a clip and more")
        with entry.finish(6, TYPE).file as file:
            assert os.pread(file.fileno(), 100, 0) == b"a clip"
        assert read(cache, "a") is None
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_stored_the_content_is_there_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = PlaybackCache(tmp_path / "file", MANY)
    entry = cache.begin(key("a"))
    entry.file.write(b"clip")
    with entry.finish(4, TYPE).file as file:
        assert os.pread(file.fileno(), 100, 0) == b"clip"
    assert "nothing can be stored" in caplog.text


def test_an_entry_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    cache = PlaybackCache(tmp_path, MANY)
    entry = cache.begin(key("a"))
    entry.write(b"half a stream")
    assert read(cache, "a") is None
    entry.close()
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = PlaybackCache(tmp_path, 10_000)
    for name in "abc":
        store(cache, name, bytes(2500))
        time.sleep(0.01)
    assert read(cache, "a") == bytes(2500)
    time.sleep(0.01)
    store(cache, "d", bytes(4000))
    assert [read(cache, name) is not None for name in "abcd"] == [True, False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000


def test_a_file_that_is_read_stays_readable_when_it_goes(tmp_path: Path) -> None:
    cache = PlaybackCache(tmp_path, 10_000)
    store(cache, "a", b"x" * 5000)
    stored = cache.open(key("a"))
    assert stored is not None
    store(cache, "b", bytes(4900))
    assert read(cache, "a") is None
    with stored.file as file:
        assert os.pread(file.fileno(), stored.size, 0) == b"x" * 5000


def test_what_takes_more_than_half_of_the_cache_is_given_up_and_removes_nothing(tmp_path: Path) -> None:
    cache = PlaybackCache(tmp_path, 10_000)
    store(cache, "a", bytes(3000))
    entry = cache.begin(key("b"))
    assert not all(entry.write(bytes(1000)) for _ in range(6))
    entry.close()
    assert read(cache, "a") == bytes(3000)
    # A process has written more by itself.
    entry = cache.begin(key("c"))
    entry.file.write(bytes(5001))
    with entry.finish(5001, TYPE).file as file:
        assert os.fstat(file.fileno()).st_size == 5001
    assert read(cache, "c") is None
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "no footer", "zeros"])
def test_a_damaged_entry_is_none(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlaybackCache(tmp_path, MANY)
    store(cache, "a", bytes(5000))
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    changed = {
        "cut": data[:-1],
        "longer": b"x" + data,
        "empty": b"",
        "no footer": data[:5000],
        "zeros": bytes(len(data)),
    }
    path.write_bytes(changed[damage])
    assert read(cache, "a") is None
    assert not path.exists()
    assert "is damaged" in caplog.text
    store(cache, "a", b"again")
    assert read(cache, "a") == b"again"


def _die_while_writing(folder: Path) -> None:
    entry = PlaybackCache(folder, MANY).begin(key("dying"))
    entry.write(bytes(100_000))
    os._exit(9)


def _use(folder: Path, number: int) -> None:
    """Store and read entries that other processes store and read too."""
    cache = PlaybackCache(folder, 200_000)
    for turn in range(40):
        name = (turn * 7 + number) % 12
        content = read(cache, name)
        expected = str(name).encode() * 10_000
        if content is None:
            store(cache, name, expected)
        elif content != expected:
            os._exit(1)


def test_what_a_killed_process_has_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    cache = PlaybackCache(tmp_path, MANY)
    first = cache.begin(key("a"))
    second = cache.begin(key("b"))
    assert len(list(tmp_path.iterdir())) == 2
    assert first.write(b"one")
    assert second.write(b"two")
    first.finish(3, TYPE).file.close()
    second.finish(3, TYPE).file.close()
    assert (read(cache, "a"), read(cache, "b"), read(cache, "dying")) == (b"one", b"two", None)


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_use, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert all(path.suffix == ".mp4" for path in tmp_path.iterdir())
