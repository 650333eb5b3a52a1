"""Files of the library that change or go under a running service: answers are right, or say what is wrong."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import lance
import numpy as np
import pytest

from indexer.library.checksums import CHECKSUMS
from indexer.library.manifest import read_snapshot_manifest, snapshot_numbers
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.problems import check_problem
from tests.support.server import START_SECONDS, Server, running_server
from tests.support.toy_library import ToyLibrary, data_file, make_library

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue")
NO_POLLING = ("--reload-seconds", "0")
NO_SCRUB = {"REELFIND_SCRUB_HOURS": "0"}
# What is kept in memory is not met when it is damaged.
NOTHING_KEPT = {**NO_SCRUB, "REELFIND_ROW_CACHE_MB": "0"}
#: A round takes less than a second.
FAST_SCRUB = {"REELFIND_SCRUB_HOURS": "0.0002"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(
        tmp_path_factory.mktemp("toy"), {f"{colour}.mp4": [(colour, 1.0)] for colour in COLOURS}
    )


@pytest.fixture
def toy(made: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    shutil.copytree(made.library, tmp_path / "library")
    return ToyLibrary(made.media, tmp_path / "library", made.bundle)


@pytest.fixture
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *NO_POLLING, environment=NOTHING_KEPT) as server:
        yield server


def flip(path: Path, start: int = 0, stop: int | None = None) -> None:
    """Change every third byte, as it is in the file under the running service."""
    with path.open("r+b") as file:
        data = bytearray(path.read_bytes())
        for at in range(start, len(data) if stop is None else stop, 3):
            data[at] ^= 0x41
        file.write(data)


def flip_value(path: Path, value: bytes) -> None:
    """Change one byte in the middle of the first such value, which the file stores as it is."""
    data = path.read_bytes()
    at = data.index(value) + len(value) // 2
    flip(path, at, at + 1)


def change_tokens(toy: ToyLibrary) -> None:
    """Change one bit of the tokens of each frame."""
    path = data_file(toy.library, "frames")
    data = path.read_bytes()
    tokens = open_table(toy.library, "frames").to_table(columns=["tokens"])["tokens"].to_pylist()
    for value in {bytes(np.array(row, np.int8)) for row in tokens}:
        data = data.replace(value, bytes([value[0] ^ 64]) + value[1:])
    path.write_bytes(data)


def asked(server: Server, **fields: object) -> dict[str, Any]:
    """The answers to all colours, without what differs each time."""
    answers = {}
    for colour in COLOURS:
        answer = server.ask(colour, **fields)
        del answer["timings_ms"]
        answers[colour] = answer
    return answers


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def degraded(server: Server) -> dict[str, str]:
    """What /readyz lists, by kind."""
    response = server.client.get("/readyz")
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["status"] == "degraded") == bool(body["degraded"])
    return {each["kind"]: each["detail"] for each in body["degraded"]}


def test_damaged_tokens_leave_the_first_stage_which_says_so(toy: ToyLibrary, server: Server) -> None:
    reranked, first_stage = asked(server), asked(server, rerank=False)
    content = data_file(toy.library, "frames").read_bytes()
    change_tokens(toy)
    for colour, answer in asked(server).items():
        assert answer["reranked"] is False
        assert answer["rerank_skipped"] == "unreadable_tokens"
        (warning,) = answer["library_warnings"]
        assert warning["kind"] == "unreadable_tokens"
        assert "frames.lance" in warning["message"]
        assert answer["hits"] == first_stage[colour]["hits"]
    assert "frames.lance" in degraded(server)["damaged_rows"]
    metrics = server.client.get("/metrics").text
    assert 'reelfind_reranks_total{result="unreadable_tokens"}' in metrics
    assert "reelfind_damaged_reads_total 0.0" not in metrics
    data_file(toy.library, "frames").write_bytes(content)
    assert asked(server) == reranked


def test_a_start_with_damaged_tokens_serves_the_rest(toy: ToyLibrary) -> None:
    change_tokens(toy)
    with running_server(*toy.options, *NO_POLLING, environment=NO_SCRUB) as server:
        assert set(degraded(server)) >= {"damaged_files"}
        for colour, answer in asked(server).items():
            assert answer["rerank_skipped"] == "unreadable_tokens"
            assert Path(answer["hits"][0]["path"]).stem == colour


def test_a_damaged_thumbnail_is_named_and_never_a_wrong_picture(toy: ToyLibrary, server: Server) -> None:
    frames = [frame["frame_id"] for hit in server.search("red") for frame in hit["frames"]]
    pictures = {frame: server.client.get(f"/v1/frames/{frame}.jpg").content for frame in frames}
    flip_value(data_file(toy.library, "frames"), pictures[frames[0]])
    refused = 0
    for frame in frames:
        response = server.client.get(f"/v1/frames/{frame}.jpg")
        if response.status_code == 200:
            assert response.content == pictures[frame]
        else:
            problem = check_problem(response, 503, r"frames\.lance is damaged: stored frame \d+ of .*\.mp4")
            assert problem["type"] == "urn:reelfind:problem:damaged"
            refused += 1
    assert refused == 1


#: What text adds to a score depends on all segments, of which damage leaves some out.
PICTURES = {"speech": 0.0, "name": 0.0}


def test_damaged_segments_are_left_out_and_named(toy: ToyLibrary, server: Server) -> None:
    whole = asked(server, modalities=PICTURES)
    path = data_file(toy.library, "segments")
    content = path.read_bytes()
    for start in range(0, len(content), 500):
        flip(path, start, min(len(content), start + 500))
        for colour in COLOURS:
            response = server.client.post(
                "/v1/search", json={"query": {"text": colour}, "modalities": PICTURES}
            )
            if response.status_code != 200:
                check_problem(response, 503, r"segments\.lance")
                continue
            answer = response.json()
            expected = {hit["video_id"]: hit for hit in whole[colour]["hits"]}
            left_out = len(expected) - len(answer["hits"])
            assert bool(left_out) == bool(answer["library_warnings"])
            assert all("segments.lance" in warning["message"] for warning in answer["library_warnings"])
            assert all(hit == expected[hit["video_id"]] for hit in answer["hits"])
        path.write_bytes(content)
    assert asked(server, modalities=PICTURES) == whole


def test_the_scrub_finds_what_no_search_reads(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *NO_POLLING, environment=FAST_SCRUB) as server:
        whole = asked(server)
        wait_for(lambda: server.client.get("/readyz").json()["scrub"]["finished"] is not None)
        assert degraded(server) == {}
        index = toy.library / "snapshots/1/segments.faiss"
        content = index.read_bytes()
        flip(index)
        wait_for(lambda: "damaged_files" in degraded(server))
        assert "segments.faiss is damaged: its SHA-256 differs" in degraded(server)["damaged_files"]
        assert "reelfind_damaged_files 1.0" in server.client.get("/metrics").text
        assert asked(server) == whole, "the index is in memory"
        assert server.log().count("segments.faiss is damaged") == 1
        index.write_bytes(content)
        wait_for(lambda: degraded(server) == {})
        scrub = server.client.get("/readyz").json()["scrub"]
        assert scrub["files"] > 6
        assert scrub["bytes"] > len(content)


def test_rows_without_checksums_are_refused_when_the_scrub_has_found_their_file(changing: ToyLibrary) -> None:
    toy = changing
    for name in ("videos", "segments", "frames"):
        lance.dataset(str(toy.library / f"{name}.lance")).drop_columns([CHECKSUMS])
    toy.film("new.mp4", [("white", 1.0)])
    toy.index()
    with running_server(*toy.options, *NO_POLLING, environment=FAST_SCRUB) as server:
        assert all(answer["reranked"] for answer in asked(server).values())
        path = min((toy.library / "frames.lance/data").glob("*.lance"), key=lambda p: p.stat().st_mtime_ns)
        content = path.read_bytes()
        flip(path, 0, 3)
        wait_for(lambda: "damaged_files" in degraded(server))
        for answer in asked(server).values():
            assert answer["rerank_skipped"] == "unreadable_tokens"
            assert path.parent.parent.name in answer["library_warnings"][0]["message"]
        path.write_bytes(content)
        wait_for(lambda: "damaged_files" not in degraded(server))
        assert all(answer["reranked"] for answer in asked(server).values())


def test_the_scrub_can_be_turned_off(server: Server) -> None:
    assert server.client.get("/readyz").json()["scrub"] is None


def change_all(toy: ToyLibrary, seconds: float, **options: Any) -> None:
    """Change every film and index: no file of a table stays the same."""
    for colour in COLOURS:
        toy.film(f"{colour}.mp4", [(colour, seconds)])
    chosen = IndexOptions(workers=0, keep_snapshots=1, keep_seconds=0.0, **options)
    index_paths([toy.media], toy.library, Bundle.open(toy.bundle), chosen, lambda _event: None)


@pytest.fixture
def changing(made: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    """A library with media of its own."""
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", made.bundle)
    change_all(toy, 1.0)
    return toy


@pytest.mark.parametrize("first", ["search", "thumbnail"])
def test_a_failed_read_loads_the_new_snapshot_at_once_and_answers_from_it(
    changing: ToyLibrary, first: str
) -> None:
    toy = changing
    with running_server(*toy.options, *NO_POLLING, environment=NO_SCRUB) as server:
        frame = server.search("red")[0]["frames"][0]["frame_id"]
        change_all(toy, 1.5)
        assert server.ask("red")["snapshot"] == 1
        # Another machine, which knows nothing of this one's locks, removes all that snapshot 2 does not need.
        needed = {toy.library / name for name in read_snapshot_manifest(toy.library, 2).files}
        for path in toy.library.glob("*.lance/*/*"):
            if path.is_file() and path not in needed:
                path.unlink()
        shutil.rmtree(toy.library / "snapshots/1")
        if first == "search":
            answer = server.ask("red")
            assert (answer["snapshot"], answer["reranked"], answer["library_warnings"]) == (2, True, [])
        else:
            assert server.client.get(f"/v1/frames/{frame}.jpg?snapshot=2").status_code == 404, "of snapshot 1"
            frame = Snapshot.open(toy.library).frame_id(0, 0)
            assert server.client.get(f"/v1/frames/{frame}.jpg?snapshot=2").status_code == 200
        assert degraded(server) == {}
        assert server.client.get("/readyz").json()["snapshot"] == 2


def test_frequent_publishing_fails_no_search(changing: ToyLibrary) -> None:
    toy = changing
    failures: list[str] = []
    seen: set[int] = set()
    stop = threading.Event()

    def ask(server: Server) -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30.0) as client:
            while not stop.is_set():
                response = client.post("/v1/search", json={"query": {"text": "red"}})
                if response.status_code != 200 or not response.json()["reranked"]:
                    failures.append(response.text)
                    continue
                seen.add(response.json()["snapshot"])
                frame = response.json()["hits"][0]["frames"][0]["frame_id"]
                if (picture := client.get(f"/v1/frames/{frame}.jpg")).status_code not in (200, 404):
                    failures.append(picture.text)
                if (ready := client.get("/readyz")).status_code != 200 or ready.json()["degraded"]:
                    failures.append(ready.text)

    with running_server(*toy.options, "--reload-seconds", "1", environment=FAST_SCRUB) as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2, 8):
            change_all(toy, number / 2)
            if number == 4:  # a fast machine would publish them all before the service looks
                wait_for(lambda: max(seen, default=1) == 4)
        wait_for(lambda: max(seen) == 7)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(seen) > 2
        assert "damaged" not in server.log()
    change_all(toy, 0.5)
    assert snapshot_numbers(toy.library) == [8]


def test_a_library_that_is_gone_is_not_ready_although_searches_are_answered(toy: ToyLibrary) -> None:
    with running_server(*toy.options, *NO_POLLING, environment=NO_SCRUB) as server:
        assert degraded(server) == {}
        answers = asked(server, rerank=False)
        shutil.rmtree(toy.library)
        time.sleep(2.1)  # until the last search no longer counts
        check_problem(server.client.get("/readyz"), 503, r"segments\.lance")
        assert server.client.get("/healthz").status_code == 200
        for colour, answer in asked(server, rerank=False).items():
            # What is kept in memory; no line of text is.
            assert answer["hits"][0]["frames"] == answers[colour]["hits"][0]["frames"]


def test_ready_says_what_is_degraded(toy: ToyLibrary, server: Server) -> None:
    manifest = toy.library / "snapshots/1/manifest.json"
    (toy.library / "CURRENT").write_text("7\n")
    assert server.client.post("/v1/library/reload").status_code == 409
    assert "snapshot 7 is missing" in degraded(server)["snapshot_refused"]
    assert manifest.exists()


def test_ready_names_missing_media(tmp_path: Path, made: ToyLibrary) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", made.bundle)
    change_all(toy, 1.0, tokens="none")
    with running_server(*toy.options, *NO_POLLING) as server:
        assert set(degraded(server)) == {"not_reranked"}
        shutil.rmtree(toy.media)
        time.sleep(2.1)
        assert set(degraded(server)) == {"not_reranked", "media_missing"}
        assert str(toy.media) in degraded(server)["media_missing"]
