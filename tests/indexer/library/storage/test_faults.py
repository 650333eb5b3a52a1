"""A library in a store that drops, delays, cuts and refuses: nothing is lost, and what is served is whole."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from indexer.library.errors import LibraryError, StoreAwayError
from indexer.library.manifest import current_number, index_is_whole, readable_manifests
from indexer.library.mounts import known_mounts
from indexer.library.snapshot import Snapshot
from indexer.library.storage.address import library_folder
from indexer.library.storage.registry import storage_of
from indexer.library.verify import verify_library
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import check_search, contents, write
from tests.support.object_store import FAULTS, Faults, faulty_proxy

#: What each run puts (places and contents) and takes away.
RUNS: list[tuple[dict[int, int], tuple[int, ...]]] = [
    ({i: i for i in range(6)}, ()),
    ({0: 100, 6: 6}, ()),
    ({}, (1, 2)),
    ({i: i for i in range(7, 14)}, (3,)),
]
#: Runs of a user who tries again.
MOST_TRIES = 20


class Reader:
    """Opens what is served again and again, as a service elsewhere does, without faults on its way."""

    def __init__(self, library: Path) -> None:
        self.problems: list[str] = []
        self.numbers: list[int] = []
        self._library, self._stop = library, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            try:
                if current_number(self._library) is not None:
                    snapshot = Snapshot.open(self._library)
                    check_search(snapshot)
                    self.numbers.append(snapshot.number)
            except (LibraryError, StoreAwayError) as error:
                self.problems.append(str(error))


@pytest.fixture
def reader(at_store: str) -> Iterator[Reader]:
    with Reader(library_folder(at_store)) as reading:
        yield reading


@pytest.mark.slow
def test_nothing_is_lost_whatever_the_store_does(
    at_store: str, store: str, reader: Reader, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(share=0.25)
    with faulty_proxy(store, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        library, twin = library_folder(at_store), tmp_path / "twin"
        for put, gone in RUNS:
            write(twin, bundle, put, gone)
            for _ in range(MOST_TRIES):
                before = current_number_calmly(library, faults)
                try:
                    write(library, bundle, put, gone)
                    break
                except (LibraryError, StoreAwayError):
                    # What was served before still is, or what is new.
                    assert (current_number_calmly(library, faults) or 0) >= (before or 0)
            else:
                pytest.fail(f"no run of {MOST_TRIES} came to its end")
        while faults.total < 200:
            with suppress(LibraryError, StoreAwayError):
                check_search(Snapshot.open(library))
        assert set(faults.injected) == set(FAULTS)
        faults.share = 0.0
        snapshot = Snapshot.open(library)
        assert contents(snapshot) == contents(Snapshot.open(twin))
        report = verify_library(library)
        assert report.ok, [each.problems for each in report.snapshots]
    assert reader.problems == []
    assert reader.numbers == sorted(reader.numbers)


def current_number_calmly(library: Path, faults: Faults) -> int | None:
    share, faults.share = faults.share, 0.0
    try:
        return current_number(library)
    finally:
        faults.share = share


def test_a_store_that_is_away_is_named_and_nothing_is_half_written(
    at_store: str, store: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.runtime.remote.client._RETRY_SECONDS", 1)
    monkeypatch.setattr("indexer.library.storage.objects._PAUSES", ())
    faults = Faults()
    with faulty_proxy(store, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        library = library_folder(at_store)
        write(library, bundle, {1: 1})
        known = list(readable_manifests(library))
        faults.is_away = True
        with pytest.raises(StoreAwayError, match="the store cannot be reached") as caught:
            write(library, bundle, {2: 2})
        assert at_store in str(caught.value)
        manifest = next(iter(known))
        for ask in (
            lambda: Snapshot.open(library),
            lambda: verify_library(library),
            # What is not known is not damaged, and not gone.
            lambda: index_is_whole(library, manifest),
            lambda: known_mounts(library),
            lambda: list(readable_manifests(library)),
        ):
            with pytest.raises(StoreAwayError):
                ask()
        faults.is_away = False
        assert set(contents(Snapshot.open(library))) == {"videos", "files", "segments", "frames"}
        assert write(library, bundle, {2: 2}) == 2
        check_search(Snapshot.open(library))


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused(
    at_store: str, store: str, bundle: Bundle, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(store, Faults(ignored=(header.lower(),))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        with pytest.raises(LibraryError, match=f"ignores the condition {header} of a write"):
            write(library_folder(at_store), bundle, {1: 1})
        assert storage_of(library_folder(at_store)).files(library_folder(at_store)) == {}
