"""Titles, tags and notes over HTTP, and removing videos, while other processes write too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from indexer.library.curation import Curation
from indexer.library.exclusions import NewExclusion
from indexer.library.lock import lock_library
from indexer.library.snapshot import Snapshot
from service.client import ChangedError, Client
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

MERGE_PATCH = {"content-type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("curation"))


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, "--writes", "--allow-delete-media") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_said(toy: ToyLibrary) -> Iterator[None]:
    yield
    (toy.library / "curation.sqlite").unlink(missing_ok=True)


def url_of(server: Server, name: str) -> str:
    return f"/v1/videos/{server.video_id(name)}"


def patch(server: Server, name: str, **fields: object) -> dict[str, Any]:
    response = server.client.patch(url_of(server, name), json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_title_and_tags_are_shown_and_found_at_once(server: Server) -> None:
    before = server.client.get(url_of(server, "traffic.mp4")).json()
    assert (before["title"], before["file_title"]) == ("Traffic lights", "Traffic lights")
    assert (before["tags"], before["note"], before["annotated_at"]) == ([], None, None)
    said = patch(
        server, "traffic.mp4", title=" Crossing  at noon", tags=["Zürich", "zürich"], note="by\r\nnight"
    )
    expected = {"title": "Crossing at noon", "tags": ["Zürich"], "note": "by\nnight"}
    assert said.pop("annotated_at") is not None
    assert said == {key: each for key, each in (before | expected).items() if key in said}
    video = server.client.get(url_of(server, "traffic.mp4")).json()
    assert {key: video[key] for key in expected} == expected
    assert video["file_title"] == "Traffic lights"
    listed = server.client.get("/v1/videos").json()["videos"]
    assert {key: video[key] for key in listed[0]} in listed
    for text in ("zurich crossing", "Crossing", "traffic lights"):
        hit = server.search(text, top_k=1, rerank=False)[0]
        assert (hit["video_id"], hit["title"]) == (video["video_id"], "Crossing at noon")
        assert (hit["file_title"], hit["tags"]) == ("Traffic lights", ["Zürich"])
    (match,) = server.search("zurich noon", top_k=1)[0]["text_matches"]
    assert (match["kind"], match["source"]) == ("name", "user")
    assert match["text"] == "Crossing at noon · Zürich"
    assert match["marks"] == [[12, 16], [19, 25]]
    moments = server.client.post(
        url_of(server, "traffic.mp4") + "/moments", json={"query": {"text": "zurich"}}
    ).json()
    assert moments["hits"][0]["text_matches"][0]["source"] == "user"
    # The weight of names counts for it too.
    weightless = server.search("red zurich", modalities={"name": 0})
    assert all(not hit["text_matches"] for hit in weightless)


def test_null_removes_and_what_is_absent_stays(server: Server) -> None:
    patch(server, "/red.mp4", title="A", tags=["b", "c"], note="d")
    assert patch(server, "/red.mp4", title=None)["title"] is None
    after = patch(server, "/red.mp4", tags=["e"])
    assert (after["title"], after["tags"], after["note"]) == (None, ["e"], "d")
    response = server.client.patch(url_of(server, "/red.mp4"), content='{"tags": null}', headers=MERGE_PATCH)
    assert (response.json()["tags"], response.json()["note"]) == ([], "d")
    assert patch(server, "/red.mp4")["note"] == "d"


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"title": "x" * 501}, "#/title", "501 characters"),
        ({"tags": ["x" * 101]}, "#/tags", "101 characters"),
        ({"tags": [""]}, "#/tags", "empty tag"),
        ({"note": "x" * 10_001}, "#/note", "10,001 characters"),
        ({"title": 7}, "#/title", "must be text"),
        ({"tags": [7]}, "#/tags/0", "must be text"),
        ({"colour": "red"}, "#/colour", "not a known field"),
        ("red", "#", "JSON object"),
    ],
)
def test_a_change_that_is_invalid_is_refused_by_name(
    server: Server, body: object, pointer: str, words: str
) -> None:
    response = server.client.patch(url_of(server, "/red.mp4"), json=body)
    problem = check_problem(response, 422, words)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_a_change_of_what_has_changed_meanwhile_is_refused(server: Server) -> None:
    url = url_of(server, "/green.mp4")
    first = server.client.get(url)
    etag = first.headers["etag"]
    assert server.client.get(url, headers={"if-none-match": etag}).status_code == 304
    changed = server.client.patch(url, json={"note": "one"}, headers={"if-match": etag})
    assert changed.status_code == 200
    check_problem(
        server.client.patch(url, json={"note": "two"}, headers={"if-match": etag}), 412, "Get it again"
    )
    again = server.client.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.json()["note"]) == (200, "one")
    assert again.headers["etag"] == changed.headers["etag"]
    for condition in (again.headers["etag"], f'"x", {again.headers["etag"]}', "*"):
        answer = server.client.patch(url, json={}, headers={"if-match": condition})
        assert answer.status_code == (200 if condition != f'"x", {again.headers["etag"]}' else 412), condition


def test_tags_are_counted(server: Server) -> None:
    patch(server, "/red.mp4", tags=["Dog", "sea"])
    patch(server, "/green.mp4", tags=["dog"])
    patch(server, "long.mp4", tags=["dog", "night"])
    answer = server.client.get("/v1/tags").json()
    counts = [("dog", 3), ("night", 1), ("sea", 1)]
    assert [(each["tag"], each["num_videos"]) for each in answer["tags"]] == counts
    assert answer["total"] == 3
    first = server.client.get("/v1/tags", params={"limit": 1}).json()
    assert (len(first["tags"]), first["total"]) == (1, 3)
    check_problem(server.client.get("/v1/tags", params={"limit": 0}), 422, "at least 1")
    server.client.delete(url_of(server, "long.mp4"))
    assert server.client.get("/v1/tags").json()["total"] == 2


def test_filters_see_titles_and_tags_at_once(server: Server) -> None:
    def listed(**where: object) -> list[str]:
        answer = server.client.post("/v1/videos/list", json={"filter": where}).json()
        return sorted(Path(video["path"]).name for video in answer["videos"])

    assert listed(op="equals", field="tags", value="dog") == []
    patch(server, "/red.mp4", tags=["Dog"], title="At sea", note="by night")
    assert listed(op="equals", field="tags", value="DOG") == ["red.mp4"]
    assert listed(op="contains", field="title", value="SEA") == ["red.mp4"]
    assert listed(op="contains", field="note", value="night") == ["red.mp4"]
    (hit,) = server.search("red", filter={"op": "in", "field": "tags", "values": ["cat", "dog"]})
    assert hit["path"].endswith("red.mp4")
    assert server.client.get("/v1/videos", params={"text": "at sea"}).json()["total"] == 1
    patch(server, "/red.mp4", tags=None)
    assert listed(op="equals", field="tags", value="dog") == []
    assert len(listed(op="is_null", field="tags")) == 5


@pytest.mark.parametrize("kind", ["search", "list"])
def test_further_pages_do_not_have_what_was_excluded_since(
    server: Server, toy: ToyLibrary, kind: str
) -> None:
    def page(token: str | None) -> dict[str, Any]:
        if kind == "search":
            body = {"query": {"text": "red"}, "top_k": 1, "group_by": "video", "page_token": token}
            response = server.client.post("/v1/search", json=body)
        else:
            response = server.client.post("/v1/videos/list", json={"limit": 1, "page_token": token})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def rest(answer: dict[str, Any]) -> list[str]:
        found = []
        while token := answer["next_page_token"]:
            answer = page(token)
            found += [each["video_id"] for each in answer["hits" if kind == "search" else "videos"]]
        return found

    first = page(None)
    others = rest(first)
    assert len(others) == 4
    server.client.delete(f"/v1/videos/{others[1]}")
    assert rest(first) == [others[0], *others[2:]]


def check_gone(server: Server, video: dict[str, Any], frame_id: str) -> None:
    """The video is in no answer."""
    url, video_id = f"/v1/videos/{video['video_id']}", video["video_id"]
    client = server.client
    question = {"question": {"text": "what is it"}}
    for response in (
        client.get(url),
        client.get(f"{url}/media"),
        client.get(f"/v1/frames/{frame_id}.jpg"),
        client.post(f"{url}/moments", json={"query": {"text": "red"}}),
        client.patch(url, json={}),
        client.delete(url),
    ):
        assert response.status_code == 404, response.text
    assert client.post(f"{url}/answer", json=question).status_code in (404, 409)
    assert video_id not in [each["video_id"] for each in client.get("/v1/videos").json()["videos"]]
    everything = client.post("/v1/videos/list", json={"sort": "-duration_seconds"}).json()
    assert (video_id not in [each["video_id"] for each in everything["videos"]], everything["total"]) == (
        True,
        4,
    )
    assert client.get("/v1/folders").json()["folder"]["num_videos"] == 4
    assert client.get("/v1/facets").json()["num_videos"] == 4
    for text in ("red", "black", "green", f"red {Path(video['path']).stem}"):
        for group in ("moment", "video"):
            assert video_id not in [hit["video_id"] for hit in server.search(text, top_k=50, group_by=group)]


@pytest.mark.parametrize("how", ["delete", "content", "folder"])
def test_what_is_excluded_is_gone_at_once_while_a_run_holds_the_lock(
    server: Server, toy: ToyLibrary, how: str
) -> None:
    """By a request, or by another process that excludes a content, or a folder."""
    video = server.client.get(url_of(server, "traffic.mp4")).json()
    frame_id = server.search("yellow", top_k=1)[0]["frames"][0]["frame_id"]
    total = server.client.get("/v1/videos").json()["total"]
    library = server.client.get("/v1/library").json()
    curation = Curation(toy.library)
    with lock_library(toy.library):
        if how == "delete":
            response = server.client.delete(f"/v1/videos/{video['video_id']}")
            assert (response.status_code, response.content) == (204, b"")
        elif how == "content":
            record = Snapshot.open(toy.library).video(video["video_id"])
            assert record is not None
            curation.exclude([NewExclusion.of_video(record, "excluded")])
        else:
            curation.exclude(
                [NewExclusion("excluded", path=str(toy.media / "shelf" / "traffic.mp4").encode())]
            )
        check_gone(server, video, frame_id)
        assert server.client.get("/v1/videos").json()["total"] == total - 1
        assert server.client.get("/v1/library").json()["num_videos"] == library["num_videos"] - 1
        assert Path(video["path"]).exists()
        curation.include([each.number for each in curation.read().exclusions.items])
        assert server.client.get(f"/v1/videos/{video['video_id']}").status_code == 200
        assert server.client.get(f"/v1/frames/{frame_id}.jpg").status_code == 200
    curation.close()


def test_what_others_say_is_seen_at_once(server: Server, toy: ToyLibrary) -> None:
    curation, video_id = Curation(toy.library), server.video_id("/red.mp4")
    for number in range(5):
        tags = tuple(f"t{n}" for n in range(number + 1))
        said = curation.annotate(video_id, lambda before: replace(before, tags=tags))  # noqa: B023
        video = server.client.get(f"/v1/videos/{video_id}").json()
        assert video["tags"] == list(said.tags)
        assert datetime.fromisoformat(video["annotated_at"]) == said.updated_at
        assert server.search(f"t{number}", top_k=1)[0]["video_id"] == video_id
    curation.close()


def test_a_damaged_file_is_told_and_searches_are_answered(server: Server, toy: ToyLibrary) -> None:
    patch(server, "/red.mp4", title="Kept")
    assert server.search("red", top_k=1)[0]["title"] == "Kept"
    file = toy.library / "curation.sqlite"
    whole = file.read_bytes()
    file.write_bytes(b"no database " * 2000)
    answer = server.ask("red", top_k=1)
    assert answer["hits"][0]["title"] == "Kept"
    (warning,) = answer["library_warnings"]
    assert warning["kind"] == "unreadable_curation"
    assert "restore it from a backup" in warning["message"]
    degraded = server.client.get("/readyz").json()["degraded"]
    assert [each["kind"] for each in degraded] == ["curation_unreadable"]
    problem = check_problem(
        server.client.patch(url_of(server, "/red.mp4"), json={"title": "x"}), 503, "restore it from a backup"
    )
    assert "Traceback" not in problem["detail"]
    file.unlink()
    file.write_bytes(whole)

    def is_whole() -> bool:
        return not server.ask("red", top_k=1)["library_warnings"]

    until(is_whole)
    assert patch(server, "/red.mp4", note="x")["title"] == "Kept"


class TestMedia:
    @pytest.fixture
    def own(self, tmp_path: Path) -> ToyLibrary:
        return make_library(tmp_path, {"a.mp4": [("red", 1.0)], "b.mp4": [("blue", 1.0)]})

    def test_a_file_is_deleted_if_that_is_asked_for(self, own: ToyLibrary) -> None:
        with running_server(*own.options, "--writes", "--allow-delete-media") as server:
            for name, body in (("a.mp4", {"media": "true"}), ("b.mp4", {"media": "false"})):
                url = url_of(server, name)
                assert server.client.delete(url, params=body).status_code == 204
                assert server.client.get(url).status_code == 404
            assert [path.name for path in own.media.iterdir()] == ["b.mp4"]

    def test_all_copies_are_deleted_or_none(self, own: ToyLibrary, tmp_path: Path) -> None:
        for copy in ("copy.mp4", "gone.mp4", "link.mp4"):
            shutil.copy(own.media / "a.mp4", own.media / copy)
        own.index()
        (own.media / "gone.mp4").unlink()
        (own.media / "link.mp4").rename(tmp_path / "kept.mp4")
        (own.media / "link.mp4").symlink_to(tmp_path / "kept.mp4")
        with running_server(*own.options, "--writes", "--allow-delete-media") as server:
            url = url_of(server, "a.mp4")
            check_problem(server.client.delete(url, params={"media": "true"}), 403, "link")
            assert (own.media / "a.mp4").exists()
            (own.media / "link.mp4").unlink()
            assert server.client.delete(url, params={"media": "true"}).status_code == 204
        assert [path.name for path in own.media.iterdir()] == ["b.mp4"]
        assert (tmp_path / "kept.mp4").exists()

    def test_a_link_is_not_deleted_nor_what_lies_elsewhere(self, own: ToyLibrary, tmp_path: Path) -> None:
        (own.media / "a.mp4").rename(own.media / "real.mp4")
        (own.media / "a.mp4").symlink_to("real.mp4")
        elsewhere = tmp_path / "elsewhere.mp4"
        (own.media / "b.mp4").rename(elsewhere)
        (own.media / "b.mp4").symlink_to(elsewhere)
        with running_server(*own.options, "--writes", "--allow-delete-media") as server:
            for name, words in (("a.mp4", "is a link"), ("b.mp4", "link")):
                url = url_of(server, name)
                check_problem(server.client.delete(url, params={"media": "true"}), 403, words)
                # Nothing was done by halves.
                assert server.client.get(url).status_code == 200
        assert (own.media / "real.mp4").exists()
        assert elsewhere.exists()

    def test_only_if_the_settings_allow_it(self, own: ToyLibrary) -> None:
        with running_server(*own.options, environment={"REELFIND_WRITES": "1"}) as server:
            url = url_of(server, "a.mp4")
            response = server.client.delete(url, params={"media": "true"})
            check_problem(response, 403, "--allow-delete-media")
            check_problem(server.client.delete(url, params={"media": "perhaps"}), 422, "media")
            assert server.client.get(url).status_code == 200
        with running_server(*own.options) as server:
            requests = (server.client.delete(url), server.client.patch(url, json={"title": "x"}))
            for response in requests:
                check_problem(response, 403, "reelfind serve --writes")
            assert server.client.get("/v1/tags").json() == {"tags": [], "total": 0}
        assert len(list(own.media.iterdir())) == 2


def test_clients_that_change_the_same_lose_nothing(server: Server) -> None:
    """Each repeats its change until nobody was in between."""
    video_id = server.video_id("/green.mp4")

    def add(name: str) -> int:
        refused = 0
        with Client(server.url, trust_env=False) as client:
            for number in range(4):
                while True:
                    video = client.video(video_id)
                    tags = [*video.tags, f"{name}{number}"]
                    try:
                        client.update_video(video_id, etag=video.etag, tags=tags)
                        break
                    except ChangedError:
                        refused += 1
        return refused

    with ThreadPoolExecutor(3) as pool:
        refused = sum(pool.map(add, "xyz"))
    assert len(server.client.get(f"/v1/videos/{video_id}").json()["tags"]) == 12
    assert refused
