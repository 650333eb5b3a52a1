"""Every method of both clients against a real server."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.client import (
    ChangedError,
    Client,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NoKeyError,
    NotFoundError,
)
from service.client.requests import Filter
from tests.support.both_clients import BothClients
from tests.support.keys import WITH_KEYS, make_key
from tests.support.server import Server, running_server
from tests.support.toy_bundle import COLOURS
from tests.support.toy_library import FILMS, ToyLibrary, make_library

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("client"), FILMS, answers=True)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, "--writes") as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "red.png"
    Image.new("RGB", (60, 40), COLOURS["red"]).save(path)
    return path


def _search(client: Any, **arguments: Any) -> Any:
    return client.search(**arguments)


def _rename(client: Any, video_id: str) -> Any:
    return client.update_video(video_id, title="x")


def _sign(client: Any, url: str) -> Any:
    return client.sign_url(url, expires_seconds=60)


def names(hits: Any) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def test_an_answer_has_all_that_the_server_says(ask: BothClients, server: Server) -> None:
    options = {"explain": True, "group_by": "video", "num_candidates": 2, "deadline_ms": 60_000}
    found = ask(lambda client: client.search("red", **options))
    said = server.ask("red", **options)
    shown = found.model_dump(mode="json", exclude_unset=True)
    assert {**shown, "timings_ms": None} == {**said, "timings_ms": None}
    assert found.model_extra == {}
    assert all(hit.explanation.model_extra == {} for hit in found.hits)


def test_queries_of_every_kind(ask: BothClients, server: Server, picture: Path) -> None:
    red = server.search("red")[0]
    moment = {name: red[name] for name in ("video_id", "start_seconds", "end_seconds")}
    frame = {"frame_id": red["frames"][0]["frame_id"]}
    queries: list[Any] = [
        {"text": "red", "not_text": "blue"},
        {**frame, "include_example": True},
        {**moment, "include_example": True},
        {"video_id": red["video_id"], "include_example": True},
        {"text": "red", "example": {**frame, "include_example": True}},
        {"original": {"text": "red"}, "like": [frame], "unlike": [moment]},
        {"like": [frame]},
    ]
    for query in queries:
        assert names(ask(partial(_search, query=query)).hits)[0] == "red.mp4", query
    for image in (picture, picture.read_bytes()):
        found = ask(partial(_search, image=image, top_k=1))
        assert names(found.hits) == ["red.mp4"]
    mixed = {"text": "red", "example": {"image": "upload"}}
    assert names(ask(lambda client: client.search(mixed, image=picture)).hits)[0] == "red.mp4"
    sequence = ask(lambda client: client.search({"sequence": [{"text": "black"}, {"text": "cyan"}]}))
    assert names(sequence.hits)[0] == "long.mp4"
    assert [step.text for step in sequence.hits[0].steps] == ["black", "cyan"]


def test_a_search_is_filtered_sorted_and_cut(ask: BothClients) -> None:
    where: Filter = {
        "op": "and",
        "filters": [
            {"op": "range", "field": "duration_seconds", "lt": 10},
            {"op": "not", "filter": {"op": "contains", "field": "path", "value": "traffic"}},
        ],
    }
    found = ask(lambda client: client.search("red", filter=where, sort="-path", fields=["text_matches"]))
    assert names(found.hits) == ["ein Film, früher.mp4", "red.mp4", "green.mp4"]
    assert all(hit.frames == [] for hit in found.hits)
    assert (
        names(ask(lambda client: client.search("red", threshold={"similarity": 0.99})).hits)[0] == "red.mp4"
    )


def test_hits_of_all_pages(ask: BothClients, server: Server, picture: Path) -> None:
    all_at_once = [hit["video_id"] for hit in server.search("red", top_k=100, group_by="video")]
    assert len(all_at_once) == len(FILMS)
    paged = ask(lambda client: client.search_hits("red", top_k=2, group_by="video"))
    assert [hit.video_id for hit in paged] == all_at_once
    of_picture = ask(lambda client: client.search_hits(image=picture, top_k=2, group_by="video"))
    assert sorted(hit.video_id for hit in of_picture) == sorted(all_at_once)


def test_moments_of_one_video(ask: BothClients, server: Server) -> None:
    video_id = server.video_id("long.mp4")
    best = ask(lambda client: client.moments(video_id, "cyan", top_k=1)).hits[0]
    assert best.start_seconds == pytest.approx(24, abs=2)
    all_at_once = ask(lambda client: client.moments(video_id, "white", top_k=100)).hits
    every = ask(lambda client: client.moment_hits(video_id, "white", top_k=1))
    assert [hit.start_seconds for hit in every] == [hit.start_seconds for hit in all_at_once]


def test_a_batch_has_answers_and_problems(ask: BothClients) -> None:
    searches: list[Any] = ["red", {"query": {"text": "green"}, "top_k": 1}, {"query": {"text": ""}}]
    red, green, empty = ask(lambda client: client.search_batch(searches, deadline_ms=60_000)).results
    assert names(red.answer.hits)[0] == "red.mp4"
    assert names(green.answer.hits) == ["green.mp4"]
    assert (empty.answer, empty.problem.status) == (None, 422)


def test_a_question(ask: BothClients, server: Server) -> None:
    video_id = server.video_id("long.mp4")
    said = ask(lambda client: client.answer(video_id, "a colour", start_seconds=26, end_seconds=46, top_k=1))
    assert [each.answer for each in said.answers] == ["cyan"]
    assert said.frames


def test_videos_of_all_pages(ask: BothClients) -> None:
    assert sorted(names(ask(lambda client: client.videos(limit=2)))) == sorted(map(_name, FILMS))
    folder = str(Path(ask(lambda client: client.video_page(text="traffic")).videos[0].path).parent)
    in_folder = ask(lambda client: client.videos(folder=folder, limit=1, sort="-path"))
    assert names(in_folder) == ["traffic.mp4", "ein Film, früher.mp4"]
    where: Filter = {"op": "in", "field": "video_id", "values": [video.video_id for video in in_folder]}
    assert names(ask(lambda client: client.videos(filter=where, limit=1, sort="path"))) == names(
        reversed(in_folder)
    )
    after_one = ask(lambda client: client.videos(offset=1, limit=1, sort="path"))
    assert len(after_one) == len(FILMS) - 1
    with pytest.raises(ValueError, match="folder beside a filter"):
        ask(lambda client: client.video_page(filter=where, folder=folder))


def test_a_video_is_changed_unless_somebody_else_has_changed_it(ask: BothClients, server: Server) -> None:
    video_id = server.video_id("/green.mp4")
    before = ask(lambda client: client.video(video_id))
    assert (before.video_id, before.playable) == (video_id, True)
    tag = ask.kind.lower()
    changed = ask(lambda client: client.update_video(video_id, etag=before.etag, tags=[tag], note="a lawn"))
    assert (changed.tags, changed.note) == ([tag], "a lawn")
    with pytest.raises(ChangedError, match="Get it again") as caught:
        ask(lambda client: client.update_video(video_id, etag=before.etag, title="late"))
    assert (caught.value.status, caught.value.kind) == (412, "precondition-failed")
    assert tag in [each.tag for each in ask(lambda client: client.tags(limit=5)).tags]
    after = ask(lambda client: client.update_video(video_id, note=None))
    assert (after.tags, after.note) == ([tag], None)


def test_a_removed_video_is_gone(ask: BothClients, server: Server, toy: ToyLibrary) -> None:
    name = f"of {ask.kind}.mp4"
    toy.film(name, [("white" if ask.kind == "Client" else "yellow", 1.0)])
    toy.index()
    ask(lambda client: client.reload())
    video_id = server.video_id(name)
    with pytest.raises(ForbiddenError, match="--allow-delete-media"):
        ask(lambda client: client.delete_video(video_id, media=True))
    assert ask(lambda client: client.delete_video(video_id)) is None
    with pytest.raises(NotFoundError):
        ask(lambda client: client.video(video_id))
    (toy.media / name).unlink()


def test_a_file_is_saved_under_its_name(
    ask: BothClients, server: Server, toy: ToyLibrary, tmp_path: Path
) -> None:
    video_id = server.video_id("früher.mp4")
    original = (toy.media / "shelf" / "ein Film, früher.mp4").read_bytes()
    seen: list[tuple[int, int | None]] = []

    def saw(done: int, total: int | None) -> None:
        seen.append((done, total))

    saved = ask(lambda client: client.download_media(video_id, tmp_path, progress=saw))
    assert saved == tmp_path / "ein Film, früher.mp4"
    assert saved.read_bytes() == original
    assert seen[-1] == (len(original), len(original))
    named = tmp_path / "clip.mp4"
    named.write_bytes(b"an earlier one")
    assert ask(lambda client: client.download_clip(video_id, 0.5, 1.5, named)) == named
    assert b"ftyp" in named.read_bytes()[:16]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "ein Film, früher.mp4"]


def test_nothing_is_left_of_a_download_that_fails(ask: BothClients, server: Server, tmp_path: Path) -> None:
    video_id = server.video_id("red.mp4")

    def stop(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(lambda client: client.download_media(video_id, tmp_path, progress=stop))
    with pytest.raises(InvalidRequestError, match="is not after start"):
        ask(lambda client: client.download_clip(video_id, 1, 1, tmp_path / "clip.mp4"))
    with pytest.raises(NotFoundError):
        ask(lambda client: client.download_media("0" * 32, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_the_library_and_the_service_say(ask: BothClients, server: Server) -> None:
    frame_id = server.search("red")[0]["frames"][0]["frame_id"]
    assert Image.open(io.BytesIO(ask(lambda client: client.frame(frame_id)))).format == "JPEG"
    video_id = server.video_id("red.mp4")
    assert Image.open(io.BytesIO(ask(lambda client: client.poster(video_id)))).format == "JPEG"
    drawn = ask(lambda client: client.random_moments(limit=2, seed=1))
    assert drawn == ask(lambda client: client.random_moments(limit=2, seed=1))
    assert drawn.model_extra == ask(lambda client: client.example_queries(limit=2)).model_extra == {}
    level = ask(lambda client: client.folders())
    assert [Path(folder.path).name for folder in level.folders] == ["shelf"]
    assert ask(lambda client: client.folders(level.folders[0].path)).folder.num_videos == 2
    assert ask(lambda client: client.facets()).values["codec"][0].value == "h264"
    assert ask(lambda client: client.library()).bundle.name
    assert not ask(lambda client: client.reload()).changed
    assert ask(lambda client: client.health()).status == "alive"
    assert ask(lambda client: client.readiness()).status == "ready"
    assert "reelfind_" in ask(lambda client: client.metrics())


def test_a_problem_is_an_error_with_its_type(ask: BothClients, server: Server) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ask(lambda client: client.search("red", top_k=0))
    error = caught.value
    assert (error.status, error.kind, error.title) == (422, "invalid-request", "The request is invalid")
    assert [value.pointer for value in error.invalid_values] == ["#/top_k"]
    assert "top_k" in error.detail
    assert str(error) == f"{error.title} (422): {error.detail}"
    with pytest.raises(NotFoundError, match="No stored frame has the id"):
        ask(lambda client: client.frame("x y?z"))
    with pytest.raises(InvalidRequestError, match="topk"):
        ask(lambda client: client.search("red", topk=3))
    with pytest.raises(InvalidRequestError):
        ask(lambda client: client.search())


def test_a_key_opens_what_its_scopes_allow(toy: ToyLibrary) -> None:
    with running_server(*toy.options, "--writes", *WITH_KEYS) as server:
        key = make_key(toy, "media", name="player")
        for kind in ("Client", "AsyncClient"):
            ask = BothClients(kind, server.url)
            for none in ("", "rf_unknown"):
                with pytest.raises(NoKeyError, match="does not know who asks"):
                    ask(lambda client: client.library(), key=none)
            who = ask(lambda client: client.session(), key=key)
            assert (who.via, who.name) == ("key", "player")
            video = ask(lambda client: client.video_page(limit=1), key=key).videos[0]
            with pytest.raises(ForbiddenError):
                ask(partial(_rename, video_id=video.video_id), key=key)
            url = f"/v1/videos/{video.video_id}/media"
            signed = ask(partial(_sign, url=url), key=key)
            assert server.client.get(url).status_code == 401
            assert server.client.get(signed.url).status_code == 200


def test_a_bundle_without_an_answer_head_is_a_conflict(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    with running_server(*toy.options) as server, Client(server.url, trust_env=False) as client:
        assert client.library().cannot_answer == "no_answer_head"
        with pytest.raises(ConflictError, match="answer head"):
            client.answer(server.video_id("red.mp4"), "what is it")


def _name(film: str) -> str:
    return Path(film).name
