"""The library changes while the server runs: new snapshots are served, damaged ones never."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.problems import check_problem
from tests.support.server import START_SECONDS, Server, running_server, wait_until_ready
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

NO_POLLING = ("--reload-seconds", "0")
FAST_POLLING = ("--reload-seconds", "0.1")


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, {"red.mp4": [("red", 1.0)]})


def names(server: Server, text: str) -> list[str]:
    return [Path(hit["path"]).name for hit in server.search(text)]


def damage(file: Path) -> None:
    """Change one byte, keeping size and times as a failing disk would."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def index_file(toy: ToyLibrary, number: int) -> Path:
    return toy.library / "snapshots" / str(number) / "segments.faiss"


def test_a_new_snapshot_is_served_after_a_reload(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *NO_POLLING) as server:
        reload = server.client.post("/v1/library/reload")
        assert reload.json() == {"snapshot": 1, "changed": False}
        toy.film("blue.mp4", [("blue", 1.0)])
        toy.index()
        assert names(server, "blue") == ["red.mp4"], "a snapshot was loaded without being asked for"
        assert server.client.post("/v1/library/reload").json() == {"snapshot": 2, "changed": True}
        assert names(server, "blue") == ["blue.mp4", "red.mp4"]
        assert server.client.get("/v1/library").json()["num_videos"] == 2
        assert "reelfind_snapshot_number 2.0" in server.client.get("/metrics").text


def test_a_damaged_snapshot_never_replaces_a_good_one(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *NO_POLLING) as server:
        toy.film("blue.mp4", [("blue", 1.0)])
        toy.index()
        damage(index_file(toy, 2))
        refused = check_problem(
            server.client.post("/v1/library/reload"),
            409,
            r"segments\.faiss is damaged.*Snapshot 1 is still served",
        )
        assert "rollback" in refused["detail"]
        assert names(server, "red") == ["red.mp4"]
        assert server.client.get("/readyz").json()["snapshot"] == 1
        info = server.client.get("/v1/library").json()
        assert (info["snapshot"], "is damaged" in info["problem"]) == (1, True)
        damage(index_file(toy, 2))
        assert server.client.post("/v1/library/reload").json() == {"snapshot": 2, "changed": True}
        assert server.client.get("/v1/library").json()["problem"] is None


def test_polling_finds_new_snapshots_and_says_once_what_is_wrong(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *FAST_POLLING) as server:
        toy.film("blue.mp4", [("blue", 1.0)])
        toy.index()
        wait_for(server, lambda: server.client.get("/readyz").json()["snapshot"] == 2)
        shutil.copytree(toy.library / "snapshots" / "2", toy.library / "snapshots" / "3")
        (toy.library / "CURRENT").write_text("3\n")
        wait_for(server, lambda: server.client.get("/v1/library").json()["problem"] is not None)
        assert names(server, "red") == ["red.mp4", "blue.mp4"]
        (toy.library / "CURRENT").write_text("1\n")
        wait_for(server, lambda: server.client.get("/readyz").json()["snapshot"] == 1)
        assert server.log().count("describes another snapshot") == 1


def test_another_library_in_the_same_folder_is_not_taken_for_the_old_one(toy: ToyLibrary) -> None:
    # What is kept in memory would still be found.
    nothing_kept = {"REELFIND_ROW_CACHE_MB": "0"}
    with running_server(*toy.options, *FAST_POLLING, environment=nothing_kept) as server:
        shutil.rmtree(toy.library)
        wait_for(server, lambda: server.client.get("/v1/library").json()["problem"] is not None)
        lost = server.client.post("/v1/search", json={"query": {"text": "red"}})
        check_problem(lost, 503, r"segments\.lance cannot be read")
        toy.film("blue.mp4", [("blue", 1.0)])
        toy.index()
        wait_for(server, lambda: server.client.get("/v1/library").json()["num_videos"] == 2)
        assert server.client.get("/readyz").json()["snapshot"] == 1
        assert names(server, "blue") == ["blue.mp4", "red.mp4"]


def test_without_a_library_the_server_says_so_and_waits_for_one(tmp_path: Path) -> None:
    empty = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "bundle"))
    with running_server(*empty.options, *FAST_POLLING, ready=False) as server:
        assert server.client.get("/healthz").status_code == 200
        remedy = "no library at .*create one with `reelfind index PATH --library"
        check_problem(server.client.get("/readyz"), 503, remedy)
        check_problem(server.client.post("/v1/search", json={"query": {"text": "red"}}), 503, remedy)
        for path in ("/v1/videos", "/v1/library", "/v1/videos/0123456789abcdef/media"):
            check_problem(server.client.get(path), 503, remedy)
        check_problem(server.client.post("/v1/library/reload"), 503, remedy)
        assert server.client.get("/").status_code == 200
        empty.film("red.mp4", [("red", 1.0)])
        empty.index()
        wait_until_ready(server.client, server.log_file)
        assert names(server, "red") == ["red.mp4"]
        assert server.log().count("no library at") == 1


def test_a_library_that_is_damaged_at_the_start(toy: ToyLibrary) -> None:
    damage(index_file(toy, 1))
    with running_server(*toy.options, *NO_POLLING, ready=False) as server:
        check_problem(server.client.get("/readyz"), 503, "segments.faiss is damaged.*rollback")
        check_problem(server.client.post("/v1/search", json={"query": {"text": "red"}}), 503, "is damaged")
        damage(index_file(toy, 1))
        assert server.client.post("/v1/library/reload").json() == {"snapshot": 1, "changed": True}


def test_a_library_from_another_bundle(toy: ToyLibrary, tmp_path: Path) -> None:
    other = make_toy_bundle(tmp_path / "other", name="other")
    options = ("--library", str(toy.library), "--bundle", str(other), *NO_POLLING)
    with running_server(*options, ready=False) as server:
        check_problem(server.client.get("/readyz"), 503, "made with the bundle 'toy' .*REELFIND_BUNDLES")
        # Putting the right bundle in its place needs no restart.
        make_toy_bundle(other, overwrite=True)
        assert server.client.post("/v1/library/reload").json() == {"snapshot": 1, "changed": True}
        assert names(server, "red") == ["red.mp4"]


def test_an_index_without_videos_answers_with_no_hits(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    (toy.media / "red.mp4").unlink()
    toy.index()
    with running_server(*toy.options) as server:
        assert server.search("red") == []
        listed = server.client.get("/v1/videos").json()
        assert (listed["videos"], listed["total"]) == ([], 0)
        assert server.client.get("/v1/folders").json()["folders"] == []


def test_searches_during_reloads_never_fail(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *NO_POLLING) as server:
        toy.film("blue.mp4", [("blue", 1.0)])
        toy.index()
        stop = threading.Event()
        failures: list[str] = []
        seen: set[tuple[int, int]] = set()

        def ask() -> None:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=30.0) as client:
                while not stop.is_set():
                    response = client.post("/v1/search", json={"query": {"text": "red"}})
                    if response.status_code != 200:
                        failures.append(response.text)
                        return
                    seen.add((response.json()["snapshot"], len(response.json()["hits"])))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        current = toy.library / "CURRENT"
        for number in (2, 1) * 5:
            beside = toy.library / "CURRENT.new"
            beside.write_text(f"{number}\n")
            beside.replace(current)
            assert server.client.post("/v1/library/reload").json() == {"snapshot": number, "changed": True}
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert seen == {(1, 1), (2, 2)}, "an answer mixed two snapshots, or one was never served"


def wait_for(server: Server, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)
