"""Several computers write one library in a store: one at a time, and none loses what another published."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from indexer.library.errors import BusyError, LibraryError
from indexer.library.folder import Library
from indexer.library.lock import library_writer, lock_library
from indexer.library.manifest import CURRENT, current_number, snapshot_numbers
from indexer.library.publish import PublishOptions, publish
from indexer.library.snapshot import Snapshot
from indexer.library.storage import lease
from indexer.library.storage.address import library_folder
from indexer.library.storage.base import ChangedError
from indexer.library.storage.objects import ObjectStorage
from indexer.library.storage.registry import storage_of
from indexer.library.switching import rollback
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import check_search, contents, put_video, write


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are soon taken over."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 6.0)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.1)


@pytest.fixture
def elsewhere(at_store: str, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the same library on another computer."""
    cache = os.environ["XDG_CACHE_HOME"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    folder = library_folder(at_store)
    # Both are working folders here: each is told by the cache that it lies in.
    monkeypatch.setattr(
        "indexer.library.storage.registry.address_of", _of_either(cache, str(tmp_path / "elsewhere"))
    )
    return folder


def _of_either(*caches: str) -> Any:
    from indexer.library.storage.address import address_of

    def found(path: Path) -> Any:
        for cache in caches:
            os.environ["XDG_CACHE_HOME"] = cache
            if (place := address_of(path)) is not None:
                return place
        return None

    return found


def storage(library: Path) -> ObjectStorage:
    found = storage_of(library)
    assert isinstance(found, ObjectStorage)
    return found


def test_one_writes_and_the_other_is_told_who(remote: Path, elsewhere: Path, bundle: Bundle) -> None:
    write(remote, bundle, {1: 1})
    assert library_writer(elsewhere) is None
    with lock_library(remote):
        assert library_writer(remote) == f"process {os.getpid()}"
        assert library_writer(elsewhere) == f"process {os.getpid()} on {socket.gethostname()!r}"
    assert library_writer(elsewhere) is None
    busy = pytest.raises(BusyError, match=rf"is being written by process {os.getpid()} on ")
    with lock_library(remote), busy:
        write(elsewhere, bundle, {2: 2})
    assert write(elsewhere, bundle, {2: 2}) == 2
    assert current_number(remote) == current_number(elsewhere) == 2
    assert contents(Snapshot.open(remote)) == contents(Snapshot.open(elsewhere))


def pause(library: Path) -> None:
    """As if the computer of who writes the library had been suspended: the lease is not written any more."""
    held = storage(library)._lease
    assert held is not None
    held._stop.set()
    held._thread.join()


def test_a_writer_that_was_paused_cannot_go_on(remote: Path, elsewhere: Path, bundle: Bundle) -> None:
    write(remote, bundle, {1: 1, 2: 2})
    opened = Library.open_or_create(remote, bundle)
    with opened.writing():
        writer = LibraryWriter(opened)
        put_video(writer, 3)
        pause(remote)
        assert write(elsewhere, bundle, {4: 4}) == 2
        with pytest.raises(BusyError, match="another process writes the library at s3://"):
            writer.flush()
    assert current_number(remote) == 2
    assert set(places(Snapshot.open(remote))) == {1, 2, 4}
    assert write(remote, bundle, {3: 3}) == 3
    assert set(places(Snapshot.open(elsewhere))) == {1, 2, 3, 4}
    assert verify_library(elsewhere).ok


def test_a_writer_that_was_paused_cannot_publish_even_unawares(
    remote: Path, elsewhere: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(remote, bundle, {1: 1, 2: 2})
    opened = Library.open_or_create(remote, bundle)
    with opened.writing():
        writer = LibraryWriter(opened)
        put_video(writer, 3)
        pause(remote)
        # It looked at its lease just before, and does not look again.
        monkeypatch.setattr(storage(remote)._lease, "check", lambda: None)
        with lock_library(elsewhere):
            writer.flush()
            with pytest.raises(ChangedError):
                publish(writer, PublishOptions(), last=True)
        assert write(elsewhere, bundle, {4: 4}) > 1
        with suppress(LibraryError):
            publish(writer, PublishOptions(), last=True)
    snapshot = Snapshot.open(elsewhere)
    assert 4 in places(snapshot)
    check_search(snapshot)
    assert write(remote, bundle, {3: 3, 5: 5}) > snapshot.number
    assert set(places(Snapshot.open(elsewhere))) == {1, 2, 3, 4, 5}
    report = verify_library(elsewhere)
    assert [each.problems for each in report.snapshots if each.current] == [[]]


def places(snapshot: Snapshot) -> Iterator[int]:
    return (
        int(record.path.removeprefix("/media/").removesuffix(".mp4")) for record in snapshot.videos(0, 100)
    )


#: Points that a writer of a store passes, in the order of one run.
POINTS = [
    "create.videos",
    "append.frames",
    "appended.segments",
    "upserted.videos",
    "publish.upload",
    "publish.rename",
    "publish.renamed",
    "current.renamed",
    "pruned.segments",
]
_RUN = """
import sys
from pathlib import Path
from indexer.library.storage.address import library_folder
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import write
print(write(library_folder(sys.argv[1]), Bundle.open(Path(sys.argv[2])), {1: 1, 2: 2}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_loses_nothing(at_store: str, remote: Path, bundle: Bundle, point: str) -> None:
    """The next run, on this computer, need not wait: the process that held the lease has ended."""
    served = 0
    if not point.startswith("create"):
        served = write(remote, bundle, {0: 0})
    command = [sys.executable, "-P", "-c", _RUN, at_store, str(bundle.folder)]
    environment = {**os.environ, "REELFIND_FAULT": f"kill {point} 1", "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    after = current_number(remote)
    if after is not None:
        check_search(Snapshot.open(remote))
        assert after >= served
    number = write(remote, bundle, {1: 1, 2: 2, 3: 3})
    assert set(places(Snapshot.open(remote))) == {1, 2, 3} | ({0} if served else set())
    assert number == max(snapshot_numbers(remote))
    report = verify_library(remote)
    assert report.ok, [each.problems for each in report.snapshots]


def test_an_earlier_snapshot_is_served_again(remote: Path, elsewhere: Path, bundle: Bundle) -> None:
    write(remote, bundle, {1: 1})
    before = contents(Snapshot.open(remote))
    write(remote, bundle, {2: 2})
    assert rollback(elsewhere) == 1
    assert contents(Snapshot.open(remote)) == before
    assert storage(remote).read(remote / CURRENT).split()[0] == b"1"
    assert write(remote, bundle, {3: 3}) == 3
    assert set(places(Snapshot.open(elsewhere))) == {1, 3}
