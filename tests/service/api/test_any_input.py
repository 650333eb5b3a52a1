"""Whatever a client sends: an answer, or a problem document that says what is wrong; never a failure."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.any_json import almost, anything, deep
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import make_library

GOOD = {
    "query": {"text": "red"},
    "top_k": 3,
    "rerank": True,
    "num_candidates": 2,
    "num_salient_frames": 2,
    "explain": True,
    "deadline_ms": 60_000,
    "sort": "-duration_seconds",
    "threshold": {"score": -100, "similarity": -1},
    "fields": ["frames", "moments"],
    "page_token": None,
    "filter": {
        "op": "or",
        "filters": [
            {"op": "not", "filter": {"op": "is_null", "field": "has_cuts"}},
            {"op": "in", "field": "codec", "values": ["h264", "hevc"]},
            {"op": "range", "field": "duration_seconds", "gte": 0.5, "lt": 60},
            {"op": "range", "field": "indexed_at", "gt": "2024-05-01"},
            {"op": "under", "field": "path", "folder": "/media"},
        ],
    },
}
many = settings(deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    toy = make_library(
        tmp_path_factory.mktemp("any"), {"red.mp4": [("red", 1.0)], "blue.mp4": [("blue", 1.0)]}
    )
    with running_server(*toy.options, environment={"REELFIND_ACCESS_LOG": "false"}) as server:
        yield server
        assert server.search("red")[0]["path"].endswith("red.mp4"), "the server does not serve on"
        assert "Traceback" not in server.log()


def check(response: httpx.Response, *statuses: int) -> None:
    """The answer is good, or a problem of one of these statuses."""
    if response.status_code != 200:
        assert response.status_code in statuses, response.text
        check_problem(response, response.status_code, r"\S")


def post(server: Server, body: bytes) -> httpx.Response:
    return server.client.post("/v1/search", content=body, headers={"content-type": "application/json"})


@many
@given(data=st.binary(max_size=200))
def test_any_bytes_as_a_search(server: Server, data: bytes) -> None:
    check(post(server, data), 422)


@many
@given(document=anything)
def test_any_json_as_a_search(server: Server, document: Any) -> None:
    check(post(server, json.dumps(document).encode()), 422)


@settings(many, max_examples=300)
@given(document=almost(GOOD))
def test_a_search_with_changed_values(server: Server, document: dict[str, Any]) -> None:
    check(post(server, json.dumps(document).encode()), 413, 422)


@pytest.fixture(scope="module")
def others(server: Server) -> list[dict[str, Any]]:
    """A good query of each kind."""
    hit = server.search("red")[0]
    frame, video = {"frame_id": hit["frames"][0]["frame_id"]}, {"video_id": hit["video_id"]}
    moment = {**video, "start_seconds": 0.0, "end_seconds": 1.0}
    return [
        {"text": "red", "not_text": "blue", "not_weight": 0.5},
        {**frame, "include_example": True},
        {**moment, "include_example": False},
        video,
        {"text": "red", "example": moment, "text_weight": 0.25},
        {"original": {"text": "red"}, "like": [frame, moment], "unlike": [frame], "gamma": 0.5},
        {"sequence": [{"text": "red"}, {"text": "blue"}], "within_seconds": 5.0},
    ]


@settings(many, max_examples=400)
@given(data=st.data())
def test_a_query_of_any_kind_with_changed_values(
    server: Server, others: list[dict[str, Any]], data: st.DataObject
) -> None:
    document = data.draw(almost({**GOOD, "query": data.draw(st.sampled_from(others))}))
    check(post(server, json.dumps(document).encode()), 413, 422)


@many
@given(document=almost({"searches": [GOOD, {"query": {"text": "blue"}}], "deadline_ms": 60_000}))
def test_a_batch_with_changed_values(server: Server, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    response = server.client.post(
        "/v1/search/batch", content=body, headers={"content-type": "application/json"}
    )
    check(response, 413, 422)
    if response.status_code == 200:
        results = response.json()["results"]
        assert all((result["answer"] is None) != (result["problem"] is None) for result in results)


@many
@given(
    body=st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                b"--x\r\n",
                b"--x--\r\n",
                b'Content-Disposition: form-data; name="image"; filename="a"\r\n',
                b'Content-Disposition: form-data; name="request"\r\n',
                b"\r\n",
                b'{"query": {"image": "upload"}}',
                b"\xff\xd8\xff\xe0",
            ]
        )
        | st.binary(max_size=20),
        max_size=12,
    ).map(b"".join)
)
def test_any_form_as_a_search(server: Server, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = server.client.post("/v1/search", content=body, headers=headers)
    assert response.status_code == 422
    check(response, 422)


@many
@given(text=st.text(max_size=1100))
def test_any_text_as_a_query(server: Server, text: str) -> None:
    response = post(server, json.dumps({"query": {"text": text}}).encode())
    check(response, 422)
    if response.status_code == 200:
        hits = response.json()["hits"]
        assert sorted(hit["path"].rpartition("/")[2] for hit in hits) == ["blue.mp4", "red.mp4"]


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deep_json_as_a_search(server: Server, bracket: str) -> None:
    check(post(server, deep(bracket, 5000)), 422)


@many
@given(
    offset=st.text(max_size=12) | st.integers().map(str),
    limit=st.text(max_size=12) | st.integers(-5, 2000).map(str),
    verdict=st.sampled_from(["ok", "corrupt", "", "OK", "\x00"]) | st.none(),
)
def test_any_page_of_the_videos(server: Server, offset: str, limit: str, verdict: str | None) -> None:
    query = {"offset": offset, "limit": limit, **({} if verdict is None else {"verdict": verdict})}
    response = server.client.get(
        "/v1/videos?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in query.items())
    )
    check(response, 422)
    if response.status_code == 200:
        listed = response.json()
        total = {None: 2, "ok": 2}.get(verdict, 0)
        assert listed["total"] == total
        assert len(listed["videos"]) == max(0, min(int(limit), total - int(offset)))


@many
@given(
    name=st.text(min_size=1, max_size=60)
    | st.from_regex(r"[0-9a-f]{16}(-[0-9]{5}-[0-9]{2})?", fullmatch=True)
)
def test_any_id(server: Server, name: str) -> None:
    try:
        shown = quote(name, safe="")
    except UnicodeEncodeError:
        return
    for path in (f"/v1/videos/{shown}", f"/v1/videos/{shown}/media", f"/v1/frames/{shown}.jpg"):
        # `.` and `..` make another path.
        if shown not in (".", ".."):
            assert server.client.get(path).status_code == 404


def visible(text: str) -> bool:
    return not set(text) & set("\r\n\x00") and text == text.strip()


ranges = (
    st.text(alphabet="bytes=-,0123456789 \t;x*", max_size=30)
    | st.tuples(st.integers(0, 5000), st.integers(0, 5000)).map("bytes={0[0]}-{0[1]}".format)
    | st.integers(0, 5000).map("bytes=-{}".format)
    | st.integers(0, 5000).map("bytes={}-".format)
    | st.integers().map("bytes={}-".format)
).filter(visible)


@settings(many, max_examples=300)
@given(value=ranges, condition=st.sampled_from(["", "etag", "modified", '"other"', "W/x"]))
def test_any_range(server: Server, value: str, condition: str) -> None:
    """The naive reading: one range `bytes=A-B`, `bytes=A-` or `bytes=-N`, and anything else is ignored."""
    video = server.client.get("/v1/videos").json()["videos"][0]["video_id"]
    whole = server.client.get(f"/v1/videos/{video}/media")
    size = len(whole.content)
    given_condition = {"etag": whole.headers["etag"], "modified": whole.headers["last-modified"]}.get(
        condition, condition
    )
    headers = {"range": value, **({"if-range": given_condition} if condition else {})}
    response = server.client.get(f"/v1/videos/{video}/media", headers=headers)
    start, end = _naive_range(value, size) if condition in ("", "etag", "modified") else (0, size)
    if start is None:
        assert response.headers["content-range"] == f"bytes */{size}"
        check_problem(response, 416, f"The file has {size:,} bytes")
    elif (start, end) == (0, size):
        assert response.content == whole.content
        assert response.status_code in (200, 206)
    else:
        assert response.status_code == 206, response.text
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert response.content == whole.content[start:end]


def _naive_range(value: str, size: int) -> tuple[int | None, int]:
    unit, _, rest = value.partition("=")
    first, dash, last = rest.partition("-")
    if (
        unit.lower() != "bytes"
        or not dash
        or re.search(r"[^0-9]", first + last)
        or len(max(first, last, key=len)) > 18
    ):
        return 0, size
    if not first and not last:
        return 0, size
    if not first:
        return (None, 0) if int(last) == 0 else (max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return 0, size
    if int(first) >= size:
        return None, 0
    return int(first), min(size, int(last) + 1) if last else size
