"""The model changes while the server runs: each answer is wholly of one generation, and nothing restarts."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from indexer.library.manifest import current_number
from indexer.library.switching import publish_generation, rollback
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.toy_generations import make_turned_bundle
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

FAST_POLLING = ("--reload-seconds", "0.1")
NO_POLLING = ("--reload-seconds", "0")
COLOURS = ("red", "green", "blue")


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, {f"{colour}.mp4": [(colour, 1.0)] for colour in COLOURS})


@pytest.fixture
def turned(toy: ToyLibrary, tmp_path: Path) -> Path:
    """Another bundle, in a folder of bundles; its scores are higher, because similarity counts more."""
    return make_turned_bundle(tmp_path / "bundles" / "turned", 3, ensemble_lambda=5.0)


def build(toy: ToyLibrary, bundle: Path) -> None:
    options = IndexOptions(workers=0)
    index_paths([toy.media], toy.library, Bundle.open(bundle), options, lambda _event: None)


@pytest.fixture
def server(toy: ToyLibrary, turned: Path) -> Iterator[Server]:
    environment = {"REELFIND_BUNDLES": str(turned.parent)}
    with running_server(*toy.options, *FAST_POLLING, environment=environment) as server:
        yield server


def served_bundle(server: Server) -> str:
    name: str = server.client.get("/v1/library").json()["bundle"]["name"]
    return name


def until_served(server: Server, number: int) -> None:
    until(lambda: server.client.get("/readyz").json()["snapshot"] == number)


def firsts(server: Server) -> list[tuple[str, int]]:
    """What comes first for each colour, and the snapshot that says so."""
    answers = [server.ask(colour) for colour in COLOURS]
    return [(Path(a["hits"][0]["path"]).stem, a["snapshot"]) for a in answers]


def test_a_model_is_changed_and_changed_back_without_a_restart(
    toy: ToyLibrary, turned: Path, server: Server
) -> None:
    before = firsts(server)
    assert before == [(colour, 1) for colour in COLOURS]
    build(toy, turned)
    assert server.client.post("/v1/library/reload").json() == {"snapshot": 1, "changed": False}
    assert (served_bundle(server), firsts(server)) == ("toy", before)
    # A film that comes while the generation is built is found in the one that is served.
    toy.film("white.mp4", [("white", 1.0)])
    toy.index()
    until_served(server, 3)
    assert Path(server.search("white")[0]["path"]).stem == "white"
    build(toy, turned)
    shown = server.ask("red")["hits"][0]["frames"][0]["frame_id"]
    publish_generation(toy.library)
    until_served(server, 4)
    assert served_bundle(server) == "turned by 3"
    assert firsts(server) == [(colour, 4) for colour in COLOURS]
    assert Path(server.search("white")[0]["path"]).stem == "white"
    # A page that still shows the answer of before gets no picture of the other generation.
    check_problem(server.client.get(f"/v1/frames/{shown}.jpg"), 404, "No stored frame has the id")
    frame = server.ask("red")["hits"][0]["frames"][0]["frame_id"]
    assert server.client.get(f"/v1/frames/{frame}.jpg").status_code == 200
    assert rollback(toy.library) == 3
    until_served(server, 3)
    assert served_bundle(server) == "toy"
    assert server.client.get(f"/v1/frames/{shown}.jpg").status_code == 200
    assert server.process.poll() is None


def test_searches_during_the_switch_are_each_answered_by_one_generation(
    toy: ToyLibrary, turned: Path, server: Server
) -> None:
    build(toy, turned)
    stop = threading.Event()

    def ask(colour: str) -> set[tuple[int, str, float]]:
        """Every answer that this client has had: the snapshot, the first video, and its score."""
        seen = set()
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60.0) as client:
            while not stop.is_set():
                response = client.post("/v1/search", json={"query": {"text": colour}})
                assert response.status_code == 200, response.text
                answer = response.json()
                best = answer["hits"][0]
                seen.add((answer["snapshot"], Path(best["path"]).stem, round(best["score"], 3)))
        return seen

    with ThreadPoolExecutor(len(COLOURS)) as pool:
        asking = [pool.submit(ask, colour) for colour in COLOURS]
        for number, switch in ((2, publish_generation), (1, rollback), (2, publish_generation)):
            assert switch(toy.library) == number
            until_served(server, number)
        stop.set()
        seen = [future.result(120) for future in asking]
    for colour, answers in zip(COLOURS, seen, strict=True):
        assert {stem for _, stem, _ in answers} == {colour}, "a text of one model searched among the other's"
        by_snapshot = {snapshot: score for snapshot, _, score in answers}
        assert by_snapshot.keys() == {1, 2}
        assert len(answers) == 2, "a score is of neither generation"
        # λ is 5 times as large, and the cosine is nearly 1.
        assert by_snapshot[2] - by_snapshot[1] > 3


def test_a_bundle_that_is_in_no_known_folder(toy: ToyLibrary, turned: Path, tmp_path: Path) -> None:
    build(toy, turned)
    publish_generation(toy.library)
    name = rf"made with the bundle 'turned by 3' \({Bundle.open(turned).checksum[:12]}\)"
    with running_server(*toy.options, *NO_POLLING, ready=False) as server:
        check_problem(server.client.get("/readyz"), 503, rf"{name}, .* in REELFIND_BUNDLES")
    rollback(toy.library)
    known, away = tmp_path / "known", tmp_path / "away"
    known.mkdir()
    turned.rename(away)
    environment = {"REELFIND_BUNDLES": f"{tmp_path / 'none'}:{known}"}
    with running_server(*toy.options, *NO_POLLING, environment=environment) as server:
        publish_generation(toy.library)
        refused = check_problem(server.client.post("/v1/library/reload"), 409, name)
        assert "Snapshot 1 is still served" in refused["detail"]
        assert firsts(server) == [(colour, 1) for colour in COLOURS]
        # The folder may have any name.
        away.rename(known / "renamed")
        assert server.client.post("/v1/library/reload").json() == {"snapshot": 2, "changed": True}
        assert firsts(server) == [(colour, 2) for colour in COLOURS]


def test_a_server_starts_with_the_bundle_that_is_served(toy: ToyLibrary, turned: Path) -> None:
    """Also where `REELFIND_BUNDLE` still names the one of before."""
    build(toy, turned)
    publish_generation(toy.library)
    with running_server(*toy.options, *NO_POLLING, environment={"REELFIND_BUNDLES": str(turned)}) as server:
        assert served_bundle(server) == "turned by 3"
        assert firsts(server) == [(colour, 2) for colour in COLOURS]


def test_a_damaged_generation_is_not_served(toy: ToyLibrary, turned: Path, server: Server) -> None:
    build(toy, turned)
    publish_generation(toy.library)
    until(lambda: served_bundle(server) == "turned by 3")
    rollback(toy.library)
    until(lambda: served_bundle(server) == "toy")
    shutil.rmtree(toy.library / "generations")
    (toy.library / "CURRENT").write_text("2\n")
    check_problem(server.client.post("/v1/library/reload"), 409, "Snapshot 1 is still served")
    assert current_number(toy.library) == 2
    assert firsts(server) == [(colour, 1) for colour in COLOURS]
