"""Reading files by byte ranges, from a store, from a web server, and through a channel."""

import random
import socket
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from model.runtime.remote.channel import ChannelSource, open_channel
from model.runtime.remote.path import RemotePath, parse_remote, provide
from model.runtime.remote.store import BLOCK_BYTES, StoreSource, has_files, list_files, list_folder
from tests.support.object_store import BUCKET, Faults, delete_object, put_object
from tests.support.web_server import MODIFIED, WebFiles, web_server

_numbers = count()
CONTENT = random.Random(0).randbytes(3 * BLOCK_BYTES + 12345)


@pytest.fixture
def film(faults: Faults, plain_store: str) -> RemotePath:
    """A file in the store that nothing is kept of yet."""
    name = f"a film {next(_numbers)}.mp4"
    put_object(plain_store, name, CONTENT)
    faults.sent_bytes = 0
    return parse_remote(f"s3://{BUCKET}/{name}")


def some_reads(number: int) -> Iterator[tuple[int, int]]:
    rng = random.Random(1)
    for _ in range(number):
        yield rng.randrange(len(CONTENT) + 1000), rng.choice([1, 100, 70_000, 2 * BLOCK_BYTES])


def test_ranges_are_those_of_the_file(film: RemotePath) -> None:
    source = StoreSource(film)
    assert source.look().bytes == len(CONTENT)
    for start, number in some_reads(40):
        assert source.read(start, number) == CONTENT[start : start + number]


def test_what_was_read_is_not_asked_for_again(film: RemotePath, faults: Faults) -> None:
    assert StoreSource(film).read(0, len(CONTENT)) == CONTENT
    sent = faults.sent_bytes
    assert len(CONTENT) <= sent < len(CONTENT) + 10_000
    assert StoreSource(film).read(0, len(CONTENT)) == CONTENT
    assert faults.sent_bytes < sent + 10_000


def test_a_file_behaves_as_one_on_a_disk(film: RemotePath, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(CONTENT)
    with film.open("rb") as remote, (tmp_path / "film").open("rb") as local:
        rng = random.Random(2)
        for whence in [0, 1, 2] * 20:
            offset = rng.randrange(-50_000, 50_000)
            outcomes: list[object] = []
            for file in (remote, local):
                try:
                    outcomes.append((file.seek(offset, whence), file.read(3000)))
                except OSError:
                    outcomes.append("refused")
            assert outcomes[0] == outcomes[1]
    assert film.read_bytes() == CONTENT
    assert film.stat().st_size == len(CONTENT)
    assert film.is_file()
    assert not film.is_symlink()
    with pytest.raises(ValueError, match="read as bytes only"):
        film.open("w")


def test_reading_goes_on_through_faults(film: RemotePath, faults: Faults, plain_store: str) -> None:
    faults.share = 0.25
    before = faults.total
    for turn in range(8):
        # Another content, so that nothing is kept of it.
        content = bytes([turn]) + CONTENT[1:]
        put_object(plain_store, film.name, content)
        source = StoreSource(film)
        for start, number in some_reads(3):
            assert source.read(start, number) == content[start : start + number]
    assert faults.total > before


def test_a_file_that_changes_is_not_read_on(film: RemotePath, plain_store: str) -> None:
    source = StoreSource(film)
    assert source.read(0, 10) == CONTENT[:10]
    put_object(plain_store, film.name, CONTENT[::-1])
    with pytest.raises(OSError, match="it has changed while it was read"):
        source.read(2 * BLOCK_BYTES, 10)
    # What was kept of the old content is not given for the new one.
    assert StoreSource(film).read(0, 10) == CONTENT[::-1][:10]


def test_what_is_not_there_is_told_from_what_is_away(film: RemotePath, faults: Faults) -> None:
    with pytest.raises(FileNotFoundError):
        film.with_name("other.mp4").stat()
    faults.is_away = True
    with pytest.raises(OSError, match="cannot be reached") as away:
        film.stat()
    assert not isinstance(away.value, FileNotFoundError)


def test_files_are_listed(faults: Faults, plain_store: str) -> None:
    names = ["l/a b.mp4", "l/sub/ü#1?.mp4", "l/sub/deep/100%.mp4", "l2/other.mp4", "l/sub folder/"]
    for name in names:
        put_object(plain_store, name, b"" if name.endswith("/") else b"12345")
    root = parse_remote(f"s3://{BUCKET}/l")
    assert {str(path): facts.bytes for path, facts in list_files(root)} == {
        f"s3://{BUCKET}/{name}": 5 for name in names[:3]
    }
    assert [path.name for path, _ in list_folder(root)] == ["a b.mp4"]
    assert has_files(root)
    assert root.is_dir()
    assert not has_files(root / "nothing")
    assert not (root / "a b.mp4").is_dir()
    for path, facts in list_files(root):
        assert path.stat().st_mtime_ns == facts.mtime_ns


def test_a_name_that_cannot_be_read_is_said(faults: Faults, plain_store: str) -> None:
    put_object(plain_store, "odd/../x.mp4", b"1")
    try:
        with pytest.raises(OSError, match="a name in it cannot be read"):
            list(list_files(parse_remote(f"s3://{BUCKET}/odd")))
    finally:
        delete_object(plain_store, "odd/../x.mp4")


def test_a_web_server_is_read_by_ranges() -> None:
    files = WebFiles({"a b.mp4": CONTENT})
    with web_server(files) as address:
        film = parse_remote(f"{address}/a%20b.mp4")
        assert film.stat().st_mtime == MODIFIED
        for start, number in some_reads(10):
            assert StoreSource(film).read(start, number) == CONTENT[start : start + number]
        assert files.ranges
        assert list_folder(film.parent) == []
        with pytest.raises(FileNotFoundError):
            film.with_name("none.mp4").stat()
        files.has_ranges = False
        files.files["c.mp4"] = CONTENT
        with pytest.raises(OSError, match="gives no ranges of bytes: download the file"):
            StoreSource(film.with_name("c.mp4")).read(0, 10)


def test_a_channel_gives_what_the_file_has(film: RemotePath) -> None:
    with open_channel(film) as channel:
        source = ChannelSource(channel.fileno())
        assert source.look() == StoreSource(film).look()
        for start, number in [*some_reads(20), (0, len(CONTENT) + 5), (len(CONTENT), 1)]:
            assert source.read(start, number) == CONTENT[start : start + number]


def test_a_channel_tells_why_nothing_can_be_read(film: RemotePath, plain_store: str) -> None:
    delete_object(plain_store, film.name)
    with open_channel(film) as channel:
        source = ChannelSource(channel.fileno())
        with pytest.raises(FileNotFoundError):
            source.look()
        put_object(plain_store, film.name, CONTENT)
        assert source.read(0, 3) == CONTENT[:3]


@pytest.mark.parametrize("request_", [(0, 1 << 31), (1 << 63, 1)])
def test_a_channel_ends_where_nonsense_is_asked_for(film: RemotePath, request_: tuple[int, int]) -> None:
    with open_channel(film) as channel:
        channel.sendall(struct.pack("<QI", *request_))
        assert channel.recv(1) == b""


def test_a_reader_whose_channel_has_ended_says_so(film: RemotePath) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        path = film.with_name("of a channel.mp4")
        provide(path, ChannelSource(theirs.fileno()))
        with pytest.raises(OSError, match=r"has ended|Broken pipe"):
            path.stat()
