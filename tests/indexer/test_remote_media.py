"""Indexing videos in an object store and on a web server, which are read by byte ranges."""

import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from indexer.changes import PolledChanges
from indexer.events import IndexSummary
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from indexer.scan import Scan, scan, scan_changes
from indexer.watch import WatchOptions, watch_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.remote.path import RemotePath, parse_remote
from tests.support.object_store import (
    BUCKET,
    KEYS,
    Faults,
    delete_object,
    faulty_proxy,
    object_store,
    put_object,
)
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_corrupt_files, make_video
from tests.support.web_server import WebFiles, web_server

_numbers = count()
SUBTITLES = b"1\n00:00:00,000 --> 00:00:01,000\nA red afternoon\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def plain_store() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def proxy(plain_store: str) -> Iterator[tuple[str, Faults]]:
    faults = Faults()
    with faulty_proxy(plain_store, faults) as address:
        yield address, faults


class Remote:
    """A folder here, and the same files in an object store."""

    def __init__(self, folder: Path, store: str, faults: Faults) -> None:
        self.folder, self.store, self.faults = folder, store, faults
        self.prefix = f"films-{next(_numbers)}"
        self.address = f"s3://{BUCKET}/{self.prefix}"
        self.library = folder.parent / "library"

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)
        put_object(self.store, f"{self.prefix}/{name}", content)

    def film(self, name: str, *colours: str) -> None:
        made = make_video(
            self.folder / name, parts=[(colour, 2.0) for colour in colours], size=(64, 48), fps=4
        )
        self.put(name, made.read_bytes())

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()
        delete_object(self.store, f"{self.prefix}/{name}")

    def path(self, name: str) -> RemotePath:
        return parse_remote(f"{self.address}/{name}")


@pytest.fixture
def remote(
    tmp_path: Path, plain_store: str, proxy: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    address, faults = proxy
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    yield Remote(tmp_path / "media", plain_store, faults)
    faults.share, faults.is_away = 0.0, False


def index(bundle: Bundle, library: Path, *paths: str | Path, **options: Any) -> IndexSummary:
    return index_paths(paths, library, bundle, IndexOptions(**{"workers": 0, **options}), lambda _: None)


def content_of(library: Path) -> dict[str, list[dict[str, Any]]]:
    """What a library holds of its videos, without what differs from run to run, and from place to place."""
    found = {}
    for name in ("segments", "frames", "texts"):
        table: pa.Table = lance.dataset(str(library / f"{name}.lance")).to_table()
        # Ids are made at random, and checksums are of them too.
        random = {"ingest_id", "checksums"} & set(table.column_names)
        found[name] = sorted(table.drop_columns(sorted(random)).to_pylist(), key=repr)
    return found


@pytest.mark.slow
def test_rows_are_those_of_the_same_files_here(remote: Remote, bundle: Bundle) -> None:
    remote.film("holiday/a b.mp4", "red", "green")
    remote.film("ü #1.mkv", "blue")
    remote.film("100%.webm.mp4", "yellow")
    remote.put("holiday/a b.en.srt", SUBTITLES)
    for path in make_corrupt_files(remote.folder / "odd").values():
        remote.put(f"odd/{path.name}", path.read_bytes())
    twin = remote.folder.parent / "twin"
    here = index(bundle, twin, remote.folder)
    # In processes that are confined, and read by a channel.
    there = index(bundle, remote.library, remote.address, workers=1, sandbox="auto")
    assert there.verdicts == here.verdicts
    assert content_of(remote.library) == content_of(twin)
    assert verify_library(remote.library).ok
    snapshot = Snapshot.open(remote.library)
    paths = {video.path for video in snapshot.videos(0, 100)}
    assert f"{remote.address}/holiday/a b.mp4" in paths
    assert {os.path.relpath(path, remote.address) for path in paths} == {
        os.path.relpath(video.path, remote.folder) for video in Snapshot.open(twin).videos(0, 100)
    }
    assert [str(root) for root in snapshot.media_roots] == [remote.address]
    again = index(bundle, remote.library, remote.address)
    assert again.unchanged == len(paths)
    assert again.snapshot == there.snapshot


def test_faults_lose_nothing(remote: Remote, bundle: Bundle) -> None:
    for colour in ("red", "green", "blue"):
        remote.film(f"{colour}.mp4", colour)
    index(bundle, remote.folder.parent / "twin", remote.folder)
    before = remote.faults.total
    remote.faults.share = 0.25
    for _ in range(20):
        # What could not be reached is tried again by the next run.
        try:
            summary = index(bundle, remote.library, remote.address)
        except InputError:
            continue
        if summary.unchanged == 3:
            break
    remote.faults.share = 0.0
    assert remote.faults.total > before
    assert content_of(remote.library) == content_of(remote.folder.parent / "twin")
    assert verify_library(remote.library).ok


def test_changes_are_followed(remote: Remote, bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "sub/c.mp4"):
        remote.film(name, "red")
    index(bundle, remote.library, remote.address)
    remote.film("a.mp4", "green", "blue")
    remote.delete("b.mp4")
    remote.put("moved.mp4", (remote.folder / "sub/c.mp4").read_bytes())
    remote.delete("sub/c.mp4")
    summary = index(bundle, remote.library, remote.address)
    assert (summary.moved, summary.vanished) == (1, 1)
    paths = {str(video.path): video.missing for video in Snapshot.open(remote.library).videos(0, 10)}
    assert paths[f"{remote.address}/moved.mp4"] is False
    assert paths[f"{remote.address}/b.mp4"] is True
    summary = index(bundle, remote.library, remote.address, prune=True)
    assert {str(video.path) for video in Snapshot.open(remote.library).videos(0, 10)} == {
        f"{remote.address}/a.mp4",
        f"{remote.address}/moved.mp4",
    }


def test_what_a_rule_leaves_out_is_not_gone(remote: Remote, bundle: Bundle) -> None:
    for name in ("a.mp4", "drafts/b.mp4"):
        remote.film(name, "red")
    index(bundle, remote.library, remote.address)
    remote.put(".reelfindignore", b"drafts/\n")
    summary = index(bundle, remote.library, remote.address)
    assert (summary.left_out, summary.vanished) == (1, 0)
    assert not any(video.missing for video in Snapshot.open(remote.library).videos(0, 10))


def test_a_store_that_is_away_takes_nothing_along(remote: Remote, bundle: Bundle) -> None:
    remote.film("a.mp4", "red")
    index(bundle, remote.library, remote.address)
    remote.faults.is_away = True
    with pytest.raises(InputError, match="the store cannot be reached"):
        index(bundle, remote.library, remote.address, prune=True)
    remote.faults.is_away = False
    (video,) = Snapshot.open(remote.library).videos(0, 10)
    assert not video.missing
    remote.delete("a.mp4")
    with pytest.raises(InputError, match="No such file"):
        index(bundle, remote.library, remote.address, prune=True)


def found_in(scanned: Scan, root: str | Path) -> set[str]:
    return {os.path.relpath(path, root) for path in scanned.files}


def test_the_scan_finds_what_it_finds_in_a_folder(remote: Remote) -> None:
    remote.film("a.mp4", "red")
    content = (remote.folder / "a.mp4").read_bytes()
    for name in (
        "drafts/b.mp4",
        "deep/er/c.mov",
        "deep/out.mp4",
        "d.LRV",
        "text.ts",
        "e.txt",
        "@eaDir/f.mp4",
    ):
        remote.put(name, b"some text" if name == "text.ts" else content)
    remote.put(".reelfindignore", b"drafts/\n")
    remote.put("deep/.reelfindignore", b"out.*\n")
    remote.put("deep/er/c.de.srt", SUBTITLES)
    remote.put("deep/er/other.srt", SUBTITLES)
    for exclude, include in (([], []), (["/a.mp4"], []), ([], ["drafts/"])):
        there = scan([remote.address], exclude=exclude, include=include)
        here = scan([remote.folder], exclude=exclude, include=include)
        assert found_in(there, remote.address) == found_in(here, remote.folder)
        assert {kind.replace(str(remote.folder), remote.address) for kind in here.passed_over} == set(
            there.passed_over
        )
        assert {os.path.relpath(path, remote.folder) for path in here.left_out} == {
            os.path.relpath(path, remote.address) for path in there.left_out
        }
        assert [len(files) for files in there.subtitles.values()] == [1]
    below = scan([f"{remote.address}/deep", f"{remote.address}/deep/er/c.mov"])
    assert found_in(below, remote.address) == {"deep/er/c.mov"}
    alone = scan([f"{remote.address}/deep/er/c.mov"])
    assert list(map(len, alone.subtitles.values())) == [1]
    changed = scan_changes(
        [remote.path("deep/er/c.de.srt"), remote.path("drafts/b.mp4"), remote.path("gone.mp4")],
        [parse_remote(remote.address)],
    )
    assert found_in(changed, remote.address) == {"deep/er/c.mov"}
    assert changed.concerns(remote.path("gone.mp4"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"s3://{BUCKET}/nothing/here", "No such file"),
        ("s3://no_bucket!/x", "no name of a bucket"),
        ("ftp://host/x.mp4", "from folders, and from s3://"),
        ("https://user@host/x.mp4", "no user, no password"),
    ],
)
def test_what_is_no_address_of_videos_is_refused(remote: Remote, address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        scan([address])


def test_a_file_on_a_web_server_is_indexed_and_reads_little_of_what_it_does_not_need(
    remote: Remote, bundle: Bundle
) -> None:
    remote.film("a.mp4", "red")
    content = (remote.folder / "a.mp4").read_bytes()
    files = WebFiles({"films/a.mp4": content})
    with web_server(files) as server:
        address = f"{server}/films/a.mp4"
        summary = index(bundle, remote.library, address, workers=1)
        assert summary.verdicts == {"ok": 1}
        assert [video.path for video in Snapshot.open(remote.library).videos(0, 10)] == [address]
        assert index(bundle, remote.library, address).unchanged == 1
        del files.files["films/a.mp4"]
        with pytest.raises(InputError, match="No such file"):
            index(bundle, remote.library, address, prune=True)


def test_new_objects_are_noticed(remote: Remote, bundle: Bundle) -> None:
    remote.film("a.mp4", "red")
    stop = threading.Event()
    root = parse_remote(remote.address)
    changes = PolledChanges([root], 0.01, stop, (), ())
    assert changes.next() == set()
    remote.film("b.mp4", "green")
    assert changes.next() == {remote.path("b.mp4")}
    remote.delete("a.mp4")
    assert changes.next() == {remote.path("a.mp4")}


@pytest.mark.slow
def test_watching_indexes_what_comes(remote: Remote, bundle: Bundle) -> None:
    remote.film("a.mp4", "red")
    stop = threading.Event()
    rounds: list[int | None] = []

    def follow(event: object) -> None:
        if type(event).__name__ != "RunDone":
            return
        rounds.append(event.summary.num_videos)  # type: ignore[attr-defined]
        if len(rounds) == 1:
            remote.film("b.mp4", "green")
        else:
            stop.set()

    watch_paths(
        [remote.address],
        remote.library,
        bundle,
        IndexOptions(workers=1),
        WatchOptions(poll_seconds=0.2),
        follow,
        stop,
    )
    assert rounds == [1, 2]
