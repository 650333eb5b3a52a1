"""What every storage promises, wherever the files are: `indexer.library.storage.base`."""

import hashlib
import threading
from pathlib import Path

import pytest

from indexer.library.breaker import FAILURES
from indexer.library.errors import StoreAwayError
from indexer.library.storage.base import MANIFEST_FILE, ChangedError, Storage
from indexer.library.storage.registry import storage_of
from tests.support.server import until


@pytest.fixture(params=["folder", "object store"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        folder = tmp_path / "library"
        folder.mkdir()
        return folder
    folder = request.getfixturevalue("remote")
    assert isinstance(folder, Path)
    return folder


@pytest.fixture
def storage(library: Path) -> Storage:
    return storage_of(library / "videos.lance" / "data")


def test_a_file_is_read_as_it_was_written(library: Path, storage: Storage) -> None:
    path = library / "generations" / "a b" / "some-file.txt"
    content = bytes(range(256)) * 5000
    storage.write(path, content)
    assert storage.read(path) == content
    assert b"".join(storage.blocks(path)) == content
    assert storage.size(path) == len(content)
    assert storage.sha256(path) == storage.sha256_once(path) == hashlib.sha256(content).hexdigest()
    storage.write(path, b"other")
    assert storage.read(path) == b"other"
    assert storage.sha256_once(path) == hashlib.sha256(b"other").hexdigest()


def test_an_empty_file_is_a_file(library: Path, storage: Storage) -> None:
    storage.write(library / "empty", b"")
    assert storage.read(library / "empty") == b""
    assert list(storage.blocks(library / "empty")) == []
    assert storage.size(library / "empty") == 0


def test_what_is_missing_is_said_to_be(library: Path, storage: Storage) -> None:
    path = library / "snapshots" / "9" / "nothing"
    assert storage.mark(path) is None
    assert storage.read_marked(path) is None
    for read in (storage.read, storage.size, storage.sha256, storage.sha256_once):
        with pytest.raises(FileNotFoundError) as caught:
            read(path)
        assert caught.value.strerror == "No such file or directory"
    with pytest.raises(FileNotFoundError):
        list(storage.blocks(path))
    assert storage.names(path) == []
    assert storage.files(path) == {}
    storage.remove(path)
    storage.remove_folder(path)


def test_folders_are_listed_and_removed(library: Path, storage: Storage) -> None:
    paths = [library / name for name in ("tables/a.lance/data/1", "tables/a.lance/2", "tables/b", "other")]
    for size, path in enumerate(paths):
        storage.write(path, b"x" * size)
    assert storage.names(library) == ["other", "tables"]
    assert storage.names(library / "tables") == ["a.lance", "b"]
    assert storage.files(library / "tables") == {paths[0]: 0, paths[1]: 1, paths[2]: 2}
    storage.remove_folder(library / "tables" / "a.lance")
    assert storage.names(library / "tables") == ["b"]
    storage.remove(paths[2])
    assert storage.files(library) == {paths[3]: 3}


def test_a_file_is_written_only_if_it_is_as_expected(library: Path, storage: Storage) -> None:
    path = library / "CURRENT"
    first = storage.write_if(path, b"1\n", None)
    assert storage.read_marked(path) == (b"1\n", first)
    with pytest.raises(ChangedError, match="was written by another process"):
        storage.write_if(path, b"0\n", None)
    second = storage.write_if(path, b"2\n", first)
    assert storage.mark(path) == second != first
    with pytest.raises(ChangedError):
        storage.write_if(path, b"3\n", first)
    assert storage.read(path) == b"2\n"
    storage.remove(path)
    with pytest.raises(ChangedError):
        storage.write_if(path, b"3\n", second)


def test_of_many_who_write_at_once_one_succeeds(library: Path, storage: Storage) -> None:
    path = library / "counter"
    mark = storage.write_if(path, b"0", None)
    start, written = threading.Barrier(6), []

    def write(number: int) -> None:
        start.wait()
        try:
            storage.write_if(path, f"by {number}".encode(), mark)
        except ChangedError:
            return
        written.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read(path) == f"by {written[0]}".encode()
    assert len(written) == 1


def test_a_complete_folder_takes_its_place_and_is_set_aside(library: Path, storage: Storage) -> None:
    snapshots = library / "snapshots"
    before = make_folder(snapshots / ".1.new", index=b"vectors" * 1000)
    assert storage.reserve(snapshots / "1")
    storage.place_folder(before, snapshots / "1", {})
    assert storage.snapshots(snapshots) == ["1"]
    assert not before.exists()
    after = make_folder(snapshots / ".2.new", index=b"vectors" * 1000, tail=b"more")
    assert storage.reserve(snapshots / "2")
    storage.place_folder(after, snapshots / "2", {"index": snapshots / "1" / "index"})
    assert sorted(storage.snapshots(snapshots)) == ["1", "2"]
    assert storage.leftovers(snapshots) == []
    assert {
        path.name: size for path, size in storage.files(snapshots / "2").items() if path.name != "reserved"
    } == {
        "index": 7000,
        "tail": 4,
        MANIFEST_FILE: 2,
    }
    rest = storage.set_aside(snapshots / "1")
    assert storage.snapshots(snapshots) == ["2"]
    assert storage.leftovers(snapshots) == [rest]
    storage.remove_folder(rest)
    assert storage.leftovers(snapshots) == []
    assert [path.name for path in storage.files(snapshots / "2") if path.name == "index"] == ["index"]


def make_folder(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in {**files, MANIFEST_FILE: b"{}"}.items():
        (folder / name).write_bytes(content)
    return folder


def test_reads_are_refused_only_where_a_store_has_failed_several_times(
    library: Path, storage: Storage
) -> None:
    for _ in range(FAILURES):
        with pytest.raises(StoreAwayError, match="gone"), storage.reading():
            raise StoreAwayError("gone")
    if storage.is_local:
        with storage.reading():
            pass
        return
    refused = pytest.raises(StoreAwayError, match=r"s3://videos/.* cannot be reached; the next attempt is in")
    with refused, storage.reading():
        raise AssertionError("it asks the store")
    until(lambda: _may_read(storage))


def _may_read(storage: Storage) -> bool:
    try:
        with storage.reading():
            return True
    except StoreAwayError:
        return False
