"""Pages of searches and of lists over HTTP, while the library changes; orders, folders, parts of hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

FILMS = {f"{'a' if i % 2 else 'b'}/{i:02d}.mp4": [("red" if i % 3 else "green", 1.0)] for i in range(14)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("pages"), FILMS)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, environment={"REELFIND_RELOAD_SECONDS": "0"}) as server:
        yield server


def names(answer: dict[str, Any]) -> list[str]:
    return [Path(each["path"]).name for each in answer.get("hits", answer.get("videos", []))]


def listed(server: Server, **fields: Any) -> dict[str, Any]:
    response = server.client.get("/v1/videos", params=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_lists(server: Server, toy: ToyLibrary) -> None:
    plain = names(listed(server))
    assert names(listed(server, sort="-path")) == sorted(plain, key=lambda x: (int(x[:2]) % 2 == 0, x))[::-1]
    assert sorted(names(listed(server, folder=str(toy.media / "a")))) == [
        f"{i:02d}.mp4" for i in range(1, 14, 2)
    ]
    assert names(listed(server, text="/07.MP4")) == ["07.mp4"]
    assert listed(server, text="nowhere")["total"] == 0
    where = {"op": "under", "field": "path", "folder": str(toy.media / "b")}
    body = {"filter": where, "sort": "-path", "limit": 3}
    answer = server.client.post("/v1/videos/list", json=body).json()
    assert (answer["total"], names(answer)) == (7, ["12.mp4", "10.mp4", "08.mp4"])
    assert answer["hours"] == pytest.approx(7 / 3600, abs=1e-4)
    rest = server.client.post(
        "/v1/videos/list", json={**body, "limit": 9, "page_token": answer["next_page_token"]}
    )
    assert names(rest.json()) == ["06.mp4", "04.mp4", "02.mp4", "00.mp4"]
    assert rest.json()["next_page_token"] is None
    assert names(listed(server, offset=3, limit=2)) == plain[3:5]


def test_folders_and_facets(server: Server, toy: ToyLibrary) -> None:
    level = server.client.get("/v1/folders").json()
    assert level["folder"]["path"] == str(toy.media)
    assert [(Path(x["path"]).name, x["num_videos"], x["has_folders"]) for x in level["folders"]] == [
        ("a", 7, False),
        ("b", 7, False),
    ]
    assert server.client.get("/v1/folders", params={"parent": f"{toy.media}/a"}).json()["folders"] == []
    check_problem(
        server.client.get("/v1/folders", params={"parent": "/nowhere"}), 404, "No video is in /nowhere"
    )
    found = server.client.get("/v1/facets").json()
    assert (found["num_videos"], found["values"]["verdict"]) == (14, [{"value": "ok", "num_videos": 14}])


def test_parts_of_hits(server: Server) -> None:
    parts = {"frames", "text_matches", "moments"}
    whole = server.ask("red", group_by="video")["hits"][0]
    for fields in ([], ["frames"], ["moments", "text_matches"]):
        answer = server.ask("red", group_by="video", fields=fields)
        (hit, *_) = answer["hits"]
        assert set(hit) == set(whole) - (parts - set(fields))
        assert {name: hit[name] for name in hit if name != "moments"} == {
            name: whole[name] for name in hit if name != "moments"
        }
        for moment in hit.get("moments", []):
            assert not {"frames", "text_matches"} - set(fields) & set(moment)
    # An explanation names frames, whether they are wanted or not.
    (hit, *_) = server.ask("red", fields=[], explain=True)["hits"]
    assert "frames" not in hit
    assert hit["explanation"]["frames"]


@pytest.mark.parametrize(
    ("fields", "pointer", "said"),
    [
        ({"sort": "size"}, "#/sort", '"size" is not an order. Choose one of path'),
        ({"fields": ["path"]}, "#/fields/0", "fields.0 must be 'frames', 'text_matches' or 'moments'"),
        ({"threshold": {"similarity": 2}}, "#/threshold/similarity", "must be at most 1"),
        ({"page_token": "x"}, "#/page_token", '"x" is not a page_token. Send the next_page_token'),
        ({"page_token": "ü"}, "#/page_token", "is not a page_token"),
        ({"page_token": "A" * 5000}, "#/page_token", "is not a page_token"),
    ],
)
def test_what_cannot_be(server: Server, fields: dict[str, Any], pointer: str, said: str) -> None:
    response = server.client.post("/v1/search", json={"query": {"text": "red"}, **fields})
    assert check_problem(response, 422, said)["errors"][0]["pointer"] == pointer


def test_a_token_is_for_one_request(server: Server) -> None:
    token = server.ask("red", top_k=2)["next_page_token"]
    for other in ({"top_k": 3}, {"top_k": 2, "rerank": False}, {"top_k": 2, "group_by": "video"}):
        body = {"query": {"text": "red"}, "page_token": token, **other}
        check_problem(server.client.post("/v1/search", json=body), 422, "was given for another request")
    here = server.ask("red", top_k=2, page_token=token, fields=[], explain=True, deadline_ms=60_000)
    assert len(here["hits"]) == 2
    check_problem(server.client.get("/v1/videos", params={"page_token": token}), 422, "for another request")
    response = server.client.get("/v1/videos", params={"page_token": "x", "offset": 1})
    check_problem(response, 422, "offset is 1, and page_token says where")
    video = server.video_id("03.mp4")
    path = f"/v1/videos/{video}/moments"
    check_problem(
        server.client.post(path, json={"query": {"text": "red"}, "top_k": 2, "page_token": token}),
        422,
        "for another request",
    )


@pytest.mark.parametrize("group_by", ["moment", "video"])
def test_pages_while_the_library_changes(server: Server, toy: ToyLibrary, group_by: str) -> None:
    """Old pages go on in their snapshot; then it is let go of, and they say so."""
    expected = names(server.ask("red", top_k=100, group_by="video"))
    of_list = names(listed(server))
    answer = server.ask("red", top_k=3, group_by=group_by)
    page = listed(server, limit=4)
    before = answer["snapshot"]
    found, videos = names(answer), names(page)
    tokens = []
    for i in range(2):
        toy.film(f"new-{group_by}{i}.mp4", [("red", 1.0)])
        toy.index()
        assert server.client.post("/v1/library/reload").json()["changed"]
        tokens.append(answer["next_page_token"])
        answer = server.ask("red", top_k=3, group_by=group_by, page_token=tokens[-1])
        page = listed(server, limit=4, page_token=page["next_page_token"])
        assert answer["snapshot"] == page["snapshot"] == before
        found += names(answer)
        videos += names(page)
    while answer["next_page_token"]:
        answer = server.ask("red", top_k=3, group_by=group_by, page_token=answer["next_page_token"])
        found += names(answer)
    while page["next_page_token"]:
        page = listed(server, limit=4, page_token=page["next_page_token"])
        videos += names(page)
    assert sorted(found) == sorted(expected)
    assert videos == of_list
    # Newer snapshots take the place of this one.
    for i in range(3):
        server.ask("red", top_k=1)
        toy.film(f"newer-{group_by}{i}.mp4", [("blue", 1.0)])
        toy.index()
        server.client.post("/v1/library/reload")
    server.ask("red", top_k=1)
    body = {"query": {"text": "red"}, "top_k": 3, "group_by": group_by, "page_token": tokens[0]}
    check_problem(
        server.client.post("/v1/search", json=body), 410, "The library has changed since the first page"
    )
