"""Libraries whose vectors a Milvus server stores: what only this backend promises."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.breaker import FAILURES, CircuitBreaker
from indexer.library.errors import LibraryError, VectorsAwayError
from indexer.library.manifest import read_snapshot_manifest, snapshot_numbers
from indexer.library.rebuilding import rebuild_vectors
from indexer.library.switching import rollback
from indexer.library.vectors import milvus_collection
from indexer.library.vectors.base import ArrayVectors
from indexer.library.vectors.milvus import PLACE_FILE, MilvusBackend, MilvusIndex
from indexer.library.vectors.milvus_collection import PREFIX, drop_collection
from indexer.library.vectors.milvus_server import (
    ADDRESS_VARIABLE,
    SECONDS_VARIABLE,
    MilvusAddress,
    MilvusServer,
    parse_address,
    server_in_environment,
)
from indexer.library.vectors.registry import automatic_backend
from indexer.library.verify import verify_library
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.indexer.library.vectors.test_contract import nearest, new_folder, recall, unit_vectors
from tests.indexer.library.vectors.test_second_backend import answers, run
from tests.support.milvus import PATIENCE_SECONDS, LiteServer, lite_server
from tests.support.server import REELFIND, clean_environment
from tests.support.tcp_proxy import TcpProxy
from tests.support.toy_bundle import COLOURS
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

BACKEND = MilvusBackend(lite_server)


def collections(server: MilvusServer) -> set[str]:
    """The names of a server's collections."""
    return set(server.ask(lambda client, _: client.list_collections(), PATIENCE_SECONDS))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("milvus://localhost", MilvusAddress("http://localhost:19530")),
        (
            "milvus://me:p%40ss@milvus.example.org:443/films",
            MilvusAddress("http://milvus.example.org:443", "films", "me:p@ss"),
        ),
        ("milvus+tls://key@[::1]:19530/", MilvusAddress("https://[::1]:19530", "", "key")),
        ("milvus:///srv/vectors.db", MilvusAddress("/srv/vectors.db")),
    ],
)
def test_addresses(text: str, address: MilvusAddress) -> None:
    found = parse_address(text)
    assert (found, found.token) == (address, address.token)
    assert "p@ss" not in f"{found} {found.shown}"


@pytest.mark.parametrize(
    "text",
    [
        "localhost:19530",
        "http://u:secret@h:1",
        "milvus://u:secret@h:99999",
        "milvus://h:1/a/b",
        "milvus:///srv/vectors",
        "milvus://",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, text)
    with pytest.raises(InputError, match=f"{ADDRESS_VARIABLE} is .*milvus://localhost:19530") as refused:
        server_in_environment()
    assert "secret" not in str(refused.value)


def test_the_environment_says_where_the_vectors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"`export {ADDRESS_VARIABLE}=milvus://localhost:19530`"):
        server_in_environment()
    assert [automatic_backend(5, before) for before in ("faiss", "milvus")] == ["faiss", "milvus"]
    monkeypatch.setenv(ADDRESS_VARIABLE, "milvus://localhost:1")
    assert server_in_environment() is server_in_environment()
    assert server_in_environment().search_seconds == 2.0
    assert automatic_backend(5) == "milvus"
    for wrong in ("soon", "0", "-1", "nan", "601"):
        monkeypatch.setenv(SECONDS_VARIABLE, wrong)
        with pytest.raises(InputError, match=f"{SECONDS_VARIABLE} is '{wrong}'"):
            server_in_environment()


class TestBreaker:
    """The circuit breaker, with calls that fail, are answered, or wait."""

    @staticmethod
    def fail(breaker: CircuitBreaker) -> VectorsAwayError:
        with pytest.raises(VectorsAwayError) as failed, breaker.call(60.0):
            raise VectorsAwayError("it is away")
        return failed.value

    def test_it_opens_after_failures_in_a_row_and_closes_with_a_success(self) -> None:
        breaker = CircuitBreaker(VectorsAwayError, "the vectors at here", first_seconds=0.05)
        for _ in range(2):
            for _ in range(FAILURES - 1):
                assert "it is away" in str(self.fail(breaker))
            with breaker.call(60.0):
                pass
        for _ in range(FAILURES):
            assert "it is away" in str(self.fail(breaker))
        waits = []
        for _ in range(3):
            # Until it lets a call through, which fails too.
            while "the next attempt" in str(error := self.fail(breaker)):
                assert error.retry_seconds > 0
            waits.append(error.retry_seconds)
        assert waits == pytest.approx([0.1, 0.2, 0.4])
        while True:
            try:
                with breaker.call(60.0):
                    break
            except VectorsAwayError:
                continue
        with breaker.call(60.0):
            pass

    def test_one_call_at_a_time_tries_whether_the_server_is_back(self) -> None:
        breaker = CircuitBreaker(VectorsAwayError, "the vectors at here", first_seconds=0.01)
        for _ in range(FAILURES):
            self.fail(breaker)
        inside, go_on = threading.Event(), threading.Event()

        def probe() -> None:
            while not inside.is_set():
                try:
                    with breaker.call(60.0):
                        inside.set()
                        assert go_on.wait(60.0)
                except VectorsAwayError:
                    continue

        thread = threading.Thread(target=probe)
        thread.start()
        assert inside.wait(60.0)
        for _ in range(5):
            assert "the next attempt" in str(self.fail(breaker))
        go_on.set()
        thread.join()
        with breaker.call(60.0):
            pass

    def test_an_error_that_the_server_answers_with_is_no_failure(self) -> None:
        breaker = CircuitBreaker(VectorsAwayError, "the vectors at here")
        for _ in range(2 * FAILURES):
            with pytest.raises(LibraryError, match="lost"), breaker.call(60.0):
                raise LibraryError("lost")


def test_chosen_rows_are_found_however_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As runs, as a list, in several requests, or among more results than are wanted."""
    vectors, queries = unit_vectors(1500, 1), unit_vectors(5, 2)
    index, _ = BACKEND.build(ArrayVectors(vectors), "Flat", new_folder(tmp_path))
    rng = np.random.default_rng(3)
    every = np.arange(1500)
    runs = np.concatenate([every[100:180], every[400:405], every[700:1100:2], every[1300:]])
    few, far = np.sort(rng.choice(1500, 90, replace=False)), np.sort(np.argsort(vectors @ queries[0])[:700])
    for listed, most_runs in ((16_384, 30), (16_384, 1), (40, 1), (40, 0)):
        monkeypatch.setattr(milvus_collection, "_LISTED_IDS", listed)
        monkeypatch.setattr(milvus_collection, "_MOST_RUNS", most_runs)
        for allowed in (runs, few, far, every[5:]):
            rows = index.search(queries, 20, allowed=allowed)[1]
            assert rows.tolist() == nearest(vectors, queries, 20, allowed)
    # As many as a server gives, and no more; then there are none.
    monkeypatch.setattr(milvus_collection, "MOST_RESULTS", 1000)
    rows = index.search(queries, 1200)[1]
    assert rows[:, :1000].tolist() == nearest(vectors, queries, 1000, every)
    assert (rows[:, 1000:] == -1).all()


def test_snapshots_that_follow_the_same_one_do_not_see_each_other(tmp_path: Path) -> None:
    """After a rollback, or a run that was killed, a collection holds more than a snapshot."""
    vectors = unit_vectors(1000, 1)
    first = new_folder(tmp_path, "1")
    BACKEND.save(BACKEND.build(ArrayVectors(vectors), "IVF32,SQ8", first)[0], first)
    queries = unit_vectors(6, 2)
    versions: list[tuple[MilvusIndex, NDArray[np.float32]]] = [(BACKEND.open(first), vectors)]
    for number in (2, 3, 4):
        kept = np.delete(np.arange(1000), slice(number, number + 20))
        now = np.concatenate([vectors[kept], unit_vectors(30 * number, 10 + number)])
        index = BACKEND.extend(BACKEND.open(first), ArrayVectors(now), kept)
        assert index is not None
        if number != 3:
            folder = new_folder(tmp_path, str(number))
            BACKEND.save(index, folder)
            index = BACKEND.open(folder)
        versions.append((index, now))
    assert len({index.base.name for index, _ in versions}) == 1
    for index, now in versions:
        assert BACKEND.verify(index, ArrayVectors(now)) is None
        rows = index.search(queries, 30)[1]
        assert recall(rows, nearest(now, queries, 30, np.arange(len(now)))) > 0.8
        np.testing.assert_array_equal(index.vectors(np.arange(len(now))), now)


def test_a_lost_collection_is_an_error_with_a_remedy_and_made_anew(tmp_path: Path) -> None:
    vectors, folder = unit_vectors(100, 1), new_folder(tmp_path)
    BACKEND.save(BACKEND.build(ArrayVectors(vectors[:90]), "Flat", folder)[0], folder)
    index = BACKEND.open(folder)
    drop_collection(lite_server(), index.base.name)
    for use in (
        lambda: index.search(vectors[:1], 3),
        lambda: BACKEND.verify(index, ArrayVectors(vectors[:90])),
    ):
        with pytest.raises(LibraryError, match=r"has lost the library's vectors.*library vectors rebuild"):
            use()
    assert BACKEND.extend(index, ArrayVectors(vectors)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("collection", "films"),
        ("collection", f"{PREFIX}0123456789abcdef/../x"),
        ("collection", 7),
        ("num_ids", -1),
        ("num_ids", True),
        ("num_ids", 2**62),
        ("dim", 0),
        ("lists", 1.5),
        ("address", "milvus://elsewhere"),
    ],
)
def test_a_place_of_a_stranger_is_checked(tmp_path: Path, field: str, value: object) -> None:
    content = {"collection": f"{PREFIX}0123456789abcdef", "num_ids": 5, "dim": 8, "lists": 0}
    folder = new_folder(tmp_path)
    (folder / PLACE_FILE).write_text(json.dumps(content))
    assert BACKEND.open(folder).num_rows == 5
    (folder / PLACE_FILE).write_text(json.dumps(content | {field: value}))
    with pytest.raises((LibraryError, MemoryError)):
        BACKEND.open(folder)


def test_a_copy_of_a_library_leaves_the_collection_of_the_original(tmp_path: Path) -> None:
    vectors = unit_vectors(100, 1)
    folder = new_folder(tmp_path / "original")
    BACKEND.save(BACKEND.build(ArrayVectors(vectors[:90]), "Flat", folder)[0], folder)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copied = tmp_path / "copy/snapshots/1"
    index = BACKEND.open(copied)
    assert BACKEND.verify(index, ArrayVectors(vectors[:90])) is None
    assert BACKEND.extend(index, ArrayVectors(vectors)) is None, "the copy makes a collection of its own"
    BACKEND.drop(copied)
    assert BACKEND.verify(BACKEND.open(folder), ArrayVectors(vectors[:90])) is None
    assert BACKEND.extend(BACKEND.open(folder), ArrayVectors(vectors)) is not None


def test_what_is_removed_while_the_server_is_away_is_removed_later(tmp_path: Path) -> None:
    with LiteServer(tmp_path / "vectors.db") as lite, TcpProxy(lite.port) as proxy:
        server = MilvusServer(parse_address(f"milvus://127.0.0.1:{proxy.port}"), PATIENCE_SECONDS)
        backend = MilvusBackend(lambda: server)
        first, second = (new_folder(tmp_path / "library", name) for name in "12")
        for folder in (first, second):
            backend.save(backend.build(ArrayVectors(unit_vectors(10, 1)), "Flat", folder)[0], folder)
        assert len(collections(server)) == 2
        proxy.set("refuse")
        away = MilvusBackend(lambda: MilvusServer(parse_address(f"milvus://127.0.0.1:{proxy.port}")))
        away.drop(first)
        assert not (first / PLACE_FILE).exists()
        proxy.set("pass")
        named = {backend.open(second).base.name}

        def has_removed_the_others() -> bool:
            backend.drop(first)
            return collections(server) == named

        until(has_removed_the_others)


@pytest.mark.parametrize("mode", ["hang", "refuse"])
def test_a_search_waits_no_longer_than_it_may_and_recovers(tmp_path: Path, mode: str) -> None:
    vectors, folder = unit_vectors(50, 1), new_folder(tmp_path)
    with LiteServer(tmp_path / "vectors.db") as lite, TcpProxy(lite.port) as proxy:
        server = MilvusServer(parse_address(f"milvus://127.0.0.1:{proxy.port}"), PATIENCE_SECONDS)
        backend = MilvusBackend(lambda: server)
        backend.save(backend.build(ArrayVectors(vectors), "Flat", folder)[0], folder)
        hurried = MilvusServer(server.address, 1.0)
        index = MilvusBackend(lambda: hurried).open(folder)
        expected = nearest(vectors, vectors[:1], 5, np.arange(50))
        until(lambda: index.search(vectors[:1], 5)[1].tolist() == expected)
        proxy.set(mode)  # type: ignore[arg-type]
        refused = 0
        while refused < 3:
            started = time.monotonic()
            with pytest.raises(VectorsAwayError, match=f"127.0.0.1:{proxy.port} cannot be reached") as error:
                index.search(vectors[:1], 5)
            # A second, and what a busy machine adds.
            assert time.monotonic() - started < 20
            assert 0 < error.value.retry_seconds <= 30
            refused += "the next attempt" in str(error.value)
        proxy.set("pass")
        until(lambda: index.search(vectors[:1], 5)[1].tolist() == expected)


def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; the server may be away meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if condition():
                return
        except VectorsAwayError:
            assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    """The way to a server that the environment names."""
    with LiteServer(tmp_path / "milvus" / "vectors.db") as lite, TcpProxy(lite.port) as proxy:
        monkeypatch.setenv(ADDRESS_VARIABLE, f"milvus://me:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv(SECONDS_VARIABLE, "120")
        yield proxy


def test_a_library_in_milvus_is_one_like_any_other(
    proxy: TcpProxy, bundle: Bundle, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    for count in (3, 5, len(films)):
        run(bundle, library, films[:count], keep_snapshots=2, keep_seconds=0.0)
    server = server_in_environment()
    (name,) = collections(server)
    manifest = read_snapshot_manifest(library, 3)
    assert (manifest.index_backend, manifest.index_factory) == ("milvus", "Flat")
    assert manifest.backend_requested == "auto"
    assert verify_library(library).ok
    # No address is in the library.
    for path in library.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"secret" not in content
        assert b"127.0.0.1" not in content
    found = answers(library)
    assert rebuild_vectors(library).number == 4
    assert len(collections(server)) == 2
    assert rollback(library) == 3
    assert answers(library) == found
    # A video is removed, and comes again: the collection holds more than the library.
    run(bundle, library, films[1:], prune=True, keep_snapshots=1, keep_seconds=0.0)
    run(bundle, library, films, keep_snapshots=1, keep_seconds=0.0)
    assert answers(library) == found
    assert name in collections(server)

    # Milvus is away: the run says so and loses nothing, and the snapshot before is served.
    proxy.set("refuse")
    numbers = snapshot_numbers(library)
    extra = make_video(tmp_path / "extra.mp4", parts=[("red", 0.3), ("blue", 0.3)])
    with pytest.raises(VectorsAwayError, match="cannot be reached"):
        run(bundle, library, [*films, extra])
    assert snapshot_numbers(library) == numbers
    proxy.set("pass")
    until(lambda: bool(collections(server)))
    assert answers(library) == found
    run(bundle, library, [*films, extra], keep_snapshots=1, keep_seconds=0.0)
    assert verify_library(library).ok
    before, found = found, answers(library)
    assert all(len(found[colour]) == len(before[colour]) + 1 for colour in COLOURS)

    # Back to a backend on the disk: the collections go with their snapshots.
    monkeypatch.delenv(ADDRESS_VARIABLE)
    with pytest.raises(InputError, match=f"{ADDRESS_VARIABLE} does not say where"):
        answers(library)
    monkeypatch.setenv(ADDRESS_VARIABLE, f"milvus://me:secret@127.0.0.1:{proxy.port}")
    run(bundle, library, [*films, extra], index_backend="faiss", keep_snapshots=1, keep_seconds=0.0)
    assert answers(library) == found
    assert not collections(server)
    assert not list((library / "vectors").glob(f"{PREFIX}*"))


@pytest.mark.parametrize("point", ["vectors.added", "publish.rename"])
def test_a_kill_leaves_no_collection_behind(
    proxy: TcpProxy, bundle: Bundle, films: list[Path], tmp_path: Path, point: str
) -> None:
    library = tmp_path / "library"
    run(bundle, library, films[:3])
    before = answers(library)
    command = [*REELFIND, "library", "vectors", "rebuild", "--library", str(library)]
    named = {name: os.environ[name] for name in (ADDRESS_VARIABLE, SECONDS_VARIABLE)}
    killed = subprocess.run(
        command,
        env=clean_environment() | named | {"REELFIND_FAULT": f"kill {point} 1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert answers(library) == before
    run(bundle, library, films[:4])
    assert len(collections(server_in_environment())) == 1
    assert verify_library(library).ok
