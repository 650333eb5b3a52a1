"""Filters over HTTP: which videos a search finds, and what is said of filters that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.problems import check_problem
from tests.support.server import Server
from tests.support.toy_library import FILMS, ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("filters"))


def names(server: Server, where: dict[str, Any] | None, **fields: Any) -> set[str]:
    return {Path(hit["path"]).name for hit in server.search("red", top_k=100, filter=where, **fields)}


def test_a_search_finds_only_what_the_filter_leaves(server: Server, toy: ToyLibrary) -> None:
    shelf = {"op": "under", "field": "path", "folder": f"{toy.media}/shelf"}
    short = {"op": "range", "field": "duration_seconds", "lt": 2.5}
    titled = {"op": "not", "filter": {"op": "is_null", "field": "title"}}
    every = {Path(name).name for name in FILMS}
    for group_by in ("moment", "video"):
        assert names(server, shelf, group_by=group_by) == {"ein Film, früher.mp4", "traffic.mp4"}
        assert names(server, {"op": "and", "filters": [shelf, short]}, group_by=group_by) == {
            "ein Film, früher.mp4"
        }
        assert names(server, {"op": "or", "filters": [titled, short]}) == every - {"long.mp4"}
        assert names(server, {"op": "not", "filter": shelf}) == {"red.mp4", "green.mp4", "long.mp4"}
    assert names(server, {"op": "contains", "field": "title", "value": "TRAFFIC"}) == {"traffic.mp4"}
    some_id = server.video_id("red.mp4")
    assert names(server, {"op": "equals", "field": "video_id", "value": some_id}) == {"red.mp4"}
    assert names(server, {"op": "in", "field": "verdict", "values": ["corrupt"]}) == set()
    assert names(server, {"op": "range", "field": "indexed_at", "gte": "2020-01-01"}) == every
    assert names(server, None) == every


RANGE = {"op": "range", "field": "duration_seconds", "gte": 1}


@pytest.mark.parametrize(
    ("where", "pointer", "said"),
    [
        ("codec", "", 'filter must be a JSON object, not "codec". Send {"op": "range"'),
        ({}, "", 'filter has no "op". Write one like {"op": "range"'),
        ({"op": "like"}, "/op", "filter.op must be one of 'and', 'or', .*, not \"like\""),
        ({"op": "and"}, "/filters", '"filter.filters" is missing'),
        ({"op": "and", "filters": []}, "/filters", "filter.filters has 0 values; give at least 1"),
        ({"op": "or", "filters": [RANGE, 5]}, "/filters/1", "filter.filters.1 must be a JSON object, not 5"),
        (
            {"op": "or", "filters": [RANGE, {"op": "in"}]},
            "/filters/1/field",
            '"filter.filters.1.field" is miss',
        ),
        ({"op": "not", "filter": {"op": "is"}}, "/filter/op", "filter.filter.op must be one of"),
        ({**RANGE, "to": 5}, "/to", '"filter.to" is not a known field'),
        (
            {**RANGE, "field": "length"},
            "/field",
            '"length" is not a field to filter by. Choose one of video_id',
        ),
        ({**RANGE, "field": 5}, "/field", "filter.field must be text, not 5"),
        (
            {**RANGE, "field": "codec"},
            "/op",
            'codec is text and cannot be compared by "range". Use one of equals',
        ),
        ({**RANGE, "gte": "1"}, "/gte", 'duration_seconds is a number: compare .* such as 60, not "1"'),
        ({**RANGE, "gte": True}, "/gte", "duration_seconds is a number.*not true"),
        ({**RANGE, "gte": 10**400}, "/gte", "duration_seconds is a number"),
        ({**RANGE, "gte": None}, "", 'The range of duration_seconds has no bound. Give "gte", "gt"'),
        ({**RANGE, "field": "indexed_at"}, "/gte", 'a time such as "2024-05-01T12:00:00Z", or a day.*not 1'),
        ({"op": "equals", "field": "codec", "value": ["h264"]}, "/value", "codec is text.*not .*h264"),
        ({"op": "equals", "field": "codec", "value": None}, "/value", "codec is text.*not null"),
        ({"op": "equals", "field": "verdict", "value": "good"}, "/value", "verdict is one of ok, partial"),
        ({"op": "in", "field": "width", "values": [64, "x"]}, "/values/1", "width is a number"),
        ({"op": "in", "field": "width", "values": []}, "/values", "filter.values has 0 values"),
        (
            {"op": "in", "field": "width", "values": [1] * 1001},
            "",
            '"in" may compare with up to 1,000 values',
        ),
        ({"op": "under", "field": "path", "folder": ""}, "/folder", "The folder is empty"),
        ({"op": "under", "field": "title", "folder": "/"}, "/op", "title is text and cannot be compared"),
        (
            {"op": "contains", "field": "title", "value": "x" * 5000},
            "/value",
            "5,000 characters; at most 4,096",
        ),
        ({"op": "or", "filters": [RANGE] * 100}, "", "A filter may have 100 parts, nested up to 10 levels"),
    ],
    ids=str,
)
def test_filters_that_cannot_be(server: Server, where: Any, pointer: str, said: str) -> None:
    response = server.client.post("/v1/search", json={"query": {"text": "red"}, "filter": where})
    problem = check_problem(response, 422, said)
    assert problem["errors"][0]["pointer"] == f"#/filter{pointer}"


def test_a_filter_that_is_nested_without_end(server: Server) -> None:
    where: dict[str, Any] = RANGE
    for _ in range(9):
        where = {"op": "not", "filter": where}
    assert names(server, where) == set()
    for _ in range(300):
        where = {"op": "not", "filter": where}
    response = server.client.post("/v1/search", json={"query": {"text": "red"}, "filter": where})
    check_problem(response, 422, "nested up to 10 levels deep")


def test_the_moments_of_a_video_have_no_filter(server: Server) -> None:
    path = f"/v1/videos/{server.video_id('red.mp4')}/moments"
    body = {"query": {"text": "red"}, "filter": RANGE}
    check_problem(server.client.post(path, json=body), 422, '"filter" is not a known field')
