"""A library in an object store, as a user has it: indexed, searched and served on several computers."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.object_store import BUCKET, KEYS, Faults, faulty_proxy, object_store
from tests.support.server import Server, run_reelfind, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
ADDRESS = f"s3://{BUCKET}/films"
#: Of a service that looks for changes often.
FOLLOWING = ("--reload-seconds", "0.2", "--writes")


@dataclass(frozen=True)
class Home:
    """Videos, a bundle, a store with a library, and the faults on the way to it."""

    folder: Path
    faults: Faults
    endpoint: str

    def environment(self, computer: str) -> dict[str, str]:
        """The environment on one of several computers."""
        return {
            **KEYS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "XDG_CACHE_HOME": str(self.folder / computer),
            "REELFIND_BUNDLE": str(self.folder / "bundle"),
            "REELFIND_LIBRARY": ADDRESS,
        }

    def reelfind(self, *arguments: str, computer: str = "indexer", code: int = 0) -> str:
        """Run a command. → What it prints on stdout, or on stderr if it fails."""
        return run_reelfind(*arguments, environment=self.environment(computer), code=code)

    def film(self, name: str, colour: str) -> None:
        make_video(self.folder / "media" / name, parts=[(colour, 2.0)], size=(64, 48), fps=4)

    def index(self) -> None:
        self.reelfind("index", str(self.folder / "media"), "--prune", "--workers", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    make_toy_bundle(folder / "bundle")
    (folder / "media").mkdir()
    faults = Faults()
    with object_store() as store, faulty_proxy(store, faults) as proxy:
        home = Home(folder, faults, proxy)
        for colour in ("red", "green", "blue"):
            home.film(f"{colour}.mp4", colour)
        home.index()
        yield home


def test_commands_name_the_library_as_the_user_does(home: Home) -> None:
    for command in (["library", "info"], ["library", "verify"], ["search", "red"]):
        assert home.reelfind(*command, computer="another")
    assert json.loads(home.reelfind("library", "info", "--json"))["library"] == ADDRESS
    assert ADDRESS in home.reelfind("library", "info")
    assert str(home.folder / "indexer") not in home.reelfind("library", "info")
    wrong = home.reelfind("search", "red", "--library", f"s3://{BUCKET}/nothing", code=3)
    assert f"s3://{BUCKET}/nothing is not a library" in wrong
    assert f"`reelfind index PATH --library s3://{BUCKET}/nothing`" in wrong
    wrong = home.reelfind("search", "red", "--library", "s3://no-such-bucket/films", code=3)
    assert "there is no such bucket" in wrong
    assert "Traceback" not in wrong


def eventually(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 180
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def replicas(home: Home) -> Iterator[tuple[Server, Server]]:
    with (
        running_server(*FOLLOWING, environment=home.environment("first")) as first,
        running_server(*FOLLOWING, environment=home.environment("second")) as second,
    ):
        yield first, second


def finds(server: Server, text: str, name: str) -> bool:
    response = server.client.post("/v1/search", json={"query": {"text": text}, "top_k": 20}, timeout=120)
    # While the store is coming back, a search may still fail.
    hits = response.json()["hits"] if response.status_code == 200 else ()
    return any(hit["path"].endswith(name) for hit in hits)


def test_each_replica_follows_what_is_published(home: Home, replicas: tuple[Server, Server]) -> None:
    for server in replicas:
        assert finds(server, "red", "red.mp4")
        assert not finds(server, "yellow", "yellow.mp4")
    home.film("yellow.mp4", "yellow")
    home.index()
    for server in replicas:
        eventually(lambda server=server: finds(server, "yellow", "yellow.mp4"))  # type: ignore[misc]
        assert server.client.get("/v1/library").json()["snapshot"] == 2


def test_what_is_said_to_one_replica_counts_for_the_other(replicas: tuple[Server, Server]) -> None:
    first, second = replicas
    video = f"/v1/videos/{first.video_id('green.mp4')}"
    for number in range(3):
        for server in replicas:
            tags = {"tags": [f"tag {number}"]}
            assert server.client.patch(video, json=tags).status_code == 200
    assert first.client.patch(video, json={"title": "A meadow"}).status_code == 200
    eventually(lambda: second.client.get(video).json()["title"] == "A meadow")
    assert second.client.get(video).json()["tags"] == ["tag 2"]
    removed = second.client.delete(f"/v1/videos/{first.video_id('blue.mp4')}")
    assert removed.status_code in (200, 204), removed.text
    eventually(lambda: not finds(first, "blue", "blue.mp4"))


def test_a_store_that_is_away_is_said_and_comes_back(home: Home, replicas: tuple[Server, Server]) -> None:
    first, _ = replicas
    home.faults.is_away = True
    try:
        answer = first.client.post("/v1/search", json={"query": {"text": "red"}}, timeout=120)
        # What is in memory may do for a search.
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert "cannot be rea" in answer.json()["detail"]
            assert int(answer.headers["retry-after"]) >= 1
        assert "Traceback" not in first.log()
        assert first.client.get("/healthz").status_code == 200
    finally:
        home.faults.is_away = False
    eventually(lambda: finds(first, "red", "red.mp4"))
    home.film("white.mp4", "white")
    home.index()
    eventually(lambda: finds(first, "white", "white.mp4"))
