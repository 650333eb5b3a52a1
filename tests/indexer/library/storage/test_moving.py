"""A library moves into a store and out of it by copying its files."""

from pathlib import Path

from indexer.library.snapshot import Snapshot
from indexer.library.storage.registry import storage_of
from indexer.library.verify import verify_library
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import check_search, contents, write


def test_a_copied_library_is_the_same(tmp_path: Path, remote: Path, bundle: Bundle) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    write(first, bundle, {1: 1, 2: 2})
    for path in first.rglob("*"):
        if path.is_file():
            storage_of(remote).write(remote / path.relative_to(first), path.read_bytes())
    assert contents(Snapshot.open(remote)) == contents(Snapshot.open(first))
    assert write(remote, bundle, {3: 3}) == 2
    for path in storage_of(remote).files(remote):
        copy = last / path.relative_to(remote)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(storage_of(remote).read(path))
    assert contents(Snapshot.open(last)) == contents(Snapshot.open(remote))
    assert write(last, bundle, {4: 4}) == 3
    check_search(Snapshot.open(last))
    assert verify_library(last).ok
