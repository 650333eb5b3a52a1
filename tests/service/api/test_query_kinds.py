"""Queries of every kind over HTTP: pictures as multipart/form-data, examples, and what is refused."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.problems import check_problem
from tests.support.server import PATIENT, Server, running_server
from tests.support.toy_bundle import COLOURS
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import FILMS, ToyLibrary, make_library

pytestmark = pytest.mark.slow
SEARCH = "/v1/search"
TAPE = [("black", 8.0), ("red", 6.0), ("white", 4.0), ("blue", 6.0), ("black", 8.0)]
UPLOAD = {"query": {"image": "upload"}}
#: Small, so that the budget of all pictures is small too.
MAX_IMAGE_BYTES = 20_000


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {**FILMS, "tape.mp4": TAPE}
    return make_library(
        tmp_path_factory.mktemp("kinds"), films, moments="edges", calibration=toy_calibration()
    )


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    environment = {**PATIENT, "REELFIND_MAX_IMAGE_BYTES": str(MAX_IMAGE_BYTES)}
    with running_server(*toy.options, environment=environment) as server:
        yield server
        assert server.search("red")[0]["path"].endswith("red.mp4"), "the server does not serve on"
        assert "Traceback" not in server.log()


def picture(colour: str, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), COLOURS[colour]).convert(mode).save(out, kind, **options)
    return out.getvalue()


def upload(server: Server, image: bytes, request: object = None, path: str = SEARCH) -> httpx.Response:
    parts: dict[str, Any] = {"image": ("photo", image)}
    if request is not None:
        parts["request"] = (None, json.dumps(request), "application/json")
    return server.client.post(path, files=parts)


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [Path(hit["path"]).name for hit in response.json()["hits"]]


def ask(server: Server, query: object, **fields: object) -> httpx.Response:
    return server.client.post(SEARCH, json={"query": query, **fields})


def frame_of(server: Server, name: str) -> str:
    hit = next(hit for hit in server.search("red", top_k=100) if hit["path"].endswith(name))
    found: str = hit["frames"][0]["frame_id"]
    return found


def test_a_picture_is_sent_alone_or_with_a_request(server: Server) -> None:
    alone = upload(server, picture("red"))
    assert names(alone)[0] == "red.mp4"
    assert alone.json()["hits"] == upload(server, picture("red"), UPLOAD).json()["hits"]
    assert names(upload(server, picture("red"), {**UPLOAD, "top_k": 1})) == ["red.mp4"]
    answer = alone.json()
    assert (answer["rerank_skipped"], answer["probability_skipped"]) == ("no_text", "not_a_text")
    assert answer["timings_ms"]["encode_image"] > 0
    assert answer["timings_ms"]["encode_text"] == 0


def test_the_request_may_be_a_file_part_as_browsers_send_it(server: Server) -> None:
    request = ("blob", json.dumps({**UPLOAD, "top_k": 1}), "application/json")
    response = server.client.post(SEARCH, files={"request": request, "image": ("a", picture("blue"))})
    assert len(names(response)) == 1


def test_a_picture_with_a_text_with_feedback_and_in_one_video(server: Server) -> None:
    mixed = {"query": {"text": "blue", "example": {"image": "upload"}, "text_weight": 0.9}}
    assert names(upload(server, picture("red"), mixed))[0] != "red.mp4"
    liked = {
        "query": {"original": {"image": "upload"}, "like": [{"frame_id": frame_of(server, "/green.mp4")}]}
    }
    assert set(names(upload(server, picture("red"), liked))[:2]) & {"green.mp4", "traffic.mp4"}
    tape = server.video_id("tape.mp4")
    inside = upload(server, picture("blue"), path=f"/v1/videos/{tape}/moments").json()["hits"]
    assert {hit["video_id"] for hit in inside} == {tape}
    assert (inside[0]["start_seconds"], inside[0]["end_seconds"]) == pytest.approx((18, 24), abs=1.5)


@pytest.mark.parametrize(
    "image",
    [
        picture("red", "JPEG", "CMYK", quality=95),
        picture("red", "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "blue")]),
        picture("red", "WEBP", "RGBA"),
        picture("red", "AVIF"),
        picture("red", "PNG", "P"),
    ],
)
def test_odd_pictures_are_read(server: Server, image: bytes) -> None:
    assert names(upload(server, image, {**UPLOAD, "top_k": 1})) == ["red.mp4"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "empty: it has 0 bytes"),
        (b"\x00" * 100, "no JPEG, PNG, WebP, GIF, AVIF or BMP file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Convert it to one of these"),
        (picture("red", "PNG")[:60], "damaged"),
        (picture("red", "TIFF"), "is no JPEG"),
    ],
)
def test_pictures_that_cannot_be_read(server: Server, image: bytes, said: str) -> None:
    problem = check_problem(upload(server, image, UPLOAD), 422, said)
    assert problem["errors"][0]["pointer"] == "#/query/image"


def test_a_picture_that_is_too_large(server: Server) -> None:
    bomb = io.BytesIO()
    Image.new("1", (8000, 7000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < MAX_IMAGE_BYTES
    check_problem(
        upload(server, bomb.getvalue()), 422, r"8000 × 7000 = 56,000,000 pixels; at most 50,000,000"
    )
    check_problem(upload(server, b"x" * (MAX_IMAGE_BYTES + 1)), 422, r"`image` has more than 20,000 bytes")
    check_problem(upload(server, b"x" * 200_000), 413, "larger than the limit of 93,728 bytes")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"request": (None, "{}")}, "The part `image` is missing. Send it as in: curl"),
        ({"image": ("a", b"x"), "other": ("b", b"y")}, "part 'other' is unknown"),
        ({"image": (None, "x")}, "`image` has no file name"),
        ({"image": ("a", picture("red")), "request": (None, "{")}, "The body is not JSON"),
        ({"image": ("a", picture("red")), "request": (None, "[]")}, "must be a JSON object"),
        ({"image": ("a", picture("red")), "request": (None, "{}")}, '"query" is missing'),
        ({"image": ("a", picture("red")), "request": (None, b"\xff\xfe")}, "JSON"),
        (
            {"image": ("a", picture("red")), "request": (None, '{"query": {"text": "red"}}')},
            "`image` was sent, but the query does not name it",
        ),
        (
            {"image": ("a", picture("red")), "request": (None, '{"query": {"image": "http://127.0.0.1/"}}')},
            "query.image must be 'upload'",
        ),
    ],
)
def test_parts_that_are_wrong(server: Server, parts: dict[str, Any], said: str) -> None:
    check_problem(server.client.post(SEARCH, files=parts), 422, said)


@pytest.mark.parametrize(
    ("content", "boundary"),
    [
        (b"", "; boundary=x"),
        (b"nothing", ""),
        (b"nothing", "; boundary=x"),
        (b"--x\r\nno header\r\n\r\n--x--", "; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nunended', "; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", "; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\na\r\n' * 9 + b"--x--\r\n",
            "; boundary=x",
        ),
    ],
)
def test_bodies_that_are_no_form(server: Server, content: bytes, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    check_problem(server.client.post(SEARCH, content=content, headers=headers), 422, "Send it as in: curl")


def test_a_form_is_taken_by_searches_alone(server: Server) -> None:
    video = server.video_id("red.mp4")
    for path in ("/v1/search/batch", f"/v1/videos/{video}/answer", "/v1/library/reload", "/v1/videos/list"):
        check_problem(server.client.post(path, files={"image": b"x"}), 415, "not declared as JSON")
    assert server.client.put(SEARCH, files={"image": b"x"}).status_code == 415
    check_problem(
        upload(server, picture("red"), path="/v1/videos/nothing/moments"), 404, "No video has the id"
    )


def test_a_page_of_another_site_cannot_send_a_picture(server: Server) -> None:
    for headers in ({"origin": "https://example.org"}, {"sec-fetch-site": "cross-site", "origin": "null"}):
        response = server.client.post(SEARCH, files={"image": picture("red")}, headers=headers)
        check_problem(response, 403, "comes from a page of")


def test_pictures_that_wait_share_a_budget(server: Server) -> None:
    """Bodies that do not end hold what they have sent; once they hold all, a further one is refused."""
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"x" * 18_000
    release, begun = threading.Event(), threading.Semaphore(0)

    def unended() -> Iterator[bytes]:
        yield part
        begun.release()
        release.wait(60)

    def send() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            client.post(
                SEARCH, content=unended(), headers={"content-type": "multipart/form-data; boundary=x"}
            )

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    try:
        response = None
        for _ in range(200):
            response = server.client.post(SEARCH, files={"image": ("a", b"x" * 18_000)})
            if response.status_code == 503:
                break
        assert response is not None
        problem = check_problem(response, 503, "holds as many pictures as it may")
        assert problem["type"].endswith(":overloaded")
        assert response.headers["retry-after"] == "1"
    finally:
        release.set()
        for thread in threads:
            thread.join()
    assert names(upload(server, picture("red")))[0] == "red.mp4"


def test_examples_of_the_library(server: Server) -> None:
    red = server.video_id("/red.mp4")
    frame = frame_of(server, "/red.mp4")
    for query in (
        {"frame_id": frame},
        {"video_id": red},
        {"video_id": red, "start_seconds": 0, "end_seconds": 2},
    ):
        assert "red.mp4" not in names(ask(server, query, top_k=100))
        assert names(ask(server, {**query, "include_example": True}, top_k=1)) == ["red.mp4"]


def test_a_sequence_has_its_steps(server: Server) -> None:
    steps = [{"text": "red"}, {"text": "blue"}]
    hits = ask(server, {"sequence": steps}, explain=True).json()["hits"]
    tape = next(hit for hit in hits if hit["path"].endswith("tape.mp4"))
    assert [step["text"] for step in tape["steps"]] == ["red", "blue"]
    assert tape["steps"][0]["moment"]["start_seconds"] == pytest.approx(8, abs=1.5)
    assert tape["steps"][1]["explanation"]["formula"]
    assert tape["explanation"] is None
    back = ask(server, {"sequence": steps[::-1]}).json()["hits"]
    assert all(not hit["path"].endswith("tape.mp4") or hit["score"] < tape["score"] - 1 for hit in back)
    tape_id = tape["video_id"]
    inside = server.client.post(f"/v1/videos/{tape_id}/moments", json={"query": {"sequence": steps}})
    assert inside.json()["hits"][0]["steps"][0]["text"] == "red"
    assert ask(server, {"text": "red"}).json()["hits"][0]["steps"] is None


@pytest.mark.parametrize(
    ("query", "pointer", "said"),
    [
        ({"text": "red", "not_text": ""}, "#/query/not_text", "The query is empty"),
        ({"text": "red", "not_text": "red", "not_weight": 1}, "#/query", "cancel each other out"),
        ({"text": "red", "not_weight": -1}, "#/query/not_weight", "at least 0, not -1"),
        ({"image": "upload"}, "#/query/image", "No picture was sent. Send multipart/form-data"),
        ({"image": "file:///etc/passwd"}, "#/query/image", "must be 'upload'"),
        ({"frame_id": "x"}, "#/query/frame_id", 'No stored frame has the id "x"'),
        ({"frame_id": 5}, "#/query/frame_id", "query.frame_id must be text, not 5"),
        ({"frame_id": "x", "text": "red"}, "#/query/text", '"query.text" is not a known field'),
        ({"video_id": "x"}, "#/query/video_id", 'No video has the id "x"'),
        ({"video_id": "x", "start_seconds": 1}, "#/query/end_seconds", '"query.end_seconds" is missing'),
        ({"video_id": "x", "start_seconds": 2, "end_seconds": 2}, "#/query/end_seconds", "is not after"),
        ({"text": "red", "example": {}}, "#/query/example", 'should have "image", "frame_id" or "video_id"'),
        ({"text": "red", "example": {"frame_id": "x"}}, "#/query/example/frame_id", "No stored frame"),
        ({"text": "red", "example": {"frame_id": "x"}, "text_weight": 2}, "#/query/text_weight", "at most 1"),
        ({"sequence": []}, "#/query/sequence", "query.sequence has 0 values; give at least 2"),
        ({"sequence": [{"text": "red"}] * 6}, "#/query/sequence", "has too many values; give at most 5"),
        ({"sequence": [{"text": "red"}, {"text": ""}]}, "#/query/sequence/1/text", "The query is empty"),
        ({"sequence": [{"text": "red"}, {"text": "zzz"}]}, "#/query/sequence/1/text", 'does not know "zzz"'),
        ({"like": []}, "#/query/like", "neither an original query nor anything to be like"),
        ({"like": [{"frame_id": "x"}]}, "#/query/like/0/frame_id", "No stored frame"),
        ({"like": [{"text": "x"}]}, "#/query/like/0", 'should have "frame_id"'),
        ({"original": {"text": 5}, "like": []}, "#/query/original/text", "query.original.text must be text"),
        ({"original": {"sequence": []}}, "#/query/original", "is invalid"),
        ({"like": [{"frame_id": "x"}] * 33}, "#/query/like", "too many values; give at most 32"),
    ],
)
def test_queries_that_cannot_be_used(server: Server, query: object, pointer: str, said: str) -> None:
    problem = check_problem(ask(server, query), 422, said)
    assert problem["errors"][0]["pointer"] == pointer


def test_only_a_text_has_probabilities(server: Server) -> None:
    assert server.ask("red", min_probability=0)["probability_skipped"] is None
    problem = upload(server, picture("red"), {**UPLOAD, "min_probability": 0.1})
    check_problem(problem, 422, "only if the query is one text")
    answer = upload(server, picture("red")).json()
    assert (answer["probability_skipped"], answer["best_guess"]) == ("not_a_text", None)
    assert answer["hits"][0]["probability"] is None


def test_a_bundle_without_a_frame_encoder_names_the_capability(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)], "blue.mp4": [("blue", 1.0)]}, video=True)
    with running_server(*toy.options) as server:
        problem = check_problem(upload(server, picture("red")), 409, "lacks the capability image_query")
        assert problem["type"].endswith(":no-image-query")
        frame = server.search("red")[0]["frames"][0]["frame_id"]
        check_problem(ask(server, {"frame_id": frame}), 409, "image_query")
        assert names(ask(server, {"video_id": server.video_id("red.mp4")})) == ["blue.mp4"]
        assert server.client.get("/v1/library").json()["cannot_query_image"] == "no_image_query"


def test_pictures_can_be_turned_off(toy: ToyLibrary, server: Server) -> None:
    assert server.client.get("/v1/library").json()["cannot_query_image"] is None
    with running_server(*toy.options, environment={"REELFIND_IMAGE_QUERIES": "false"}) as off:
        check_problem(upload(off, picture("red")), 409, "turned off the capability image_query")
        assert off.client.get("/v1/library").json()["cannot_query_image"] == "turned_off"


def test_openapi_tells_the_kinds(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    for path, model in ((SEARCH, "SearchRequest"), ("/v1/videos/{video_id}/moments", "MomentsRequest")):
        body = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(body) == {"application/json", "multipart/form-data"}
        parts = body["multipart/form-data"]["schema"]["properties"]
        assert parts["request"]["allOf"] == [{"$ref": f"#/components/schemas/{model}"}]
    kinds = document["components"]["schemas"]["SearchRequest"]["properties"]["query"]["oneOf"]
    names = {kind["$ref"].rpartition("/")[2] for kind in kinds}
    assert {"TextQuery", "UploadedImageQuery", "FrameQuery", "SequenceQuery", "FeedbackQuery"} <= names
    assert len(names) == 8
