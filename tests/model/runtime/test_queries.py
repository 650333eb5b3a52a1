"""Files of labelled queries: what is read, and what is said of what cannot be read."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime.errors import InputError
from model.runtime.queries import AnyQuery, LabelledQuery, read_any_queries, read_queries
from tests.support.any_json import anything
from tests.support.documented import result_or


def queries_of(path: Path, *rows: object, only_set: str | None = None) -> list[LabelledQuery]:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_queries(path, only_set)


def test_a_line_gives_its_number_text_video_and_set(tmp_path: Path) -> None:
    rows = [
        {"query": " red\tcar ", "video": "a b/one.mp4", "set": "x"},
        "\n",
        {"video": "two.mp4", "query": "blue", "clip": 7},
        {"query": "green", "video": "three.mp4", "set": 5},
    ]
    assert queries_of(tmp_path / "queries.jsonl", *rows) == [
        LabelledQuery(1, " red\tcar ", "a b/one.mp4", "x"),
        LabelledQuery(3, "blue", "two.mp4", None),
        LabelledQuery(4, "green", "three.mp4", None),
    ]


def test_queries_whose_answers_need_not_be_known(tmp_path: Path) -> None:
    rows = [{"query": "red", "video": "one.mp4"}, {"query": "blue"}, {"query": "green", "video": None}]
    file = tmp_path / "queries.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read_any_queries(file) == [
        AnyQuery(1, "red", "one.mp4"),
        AnyQuery(2, "blue"),
        AnyQuery(3, "green"),
    ]
    for text, said in (
        ("", "holds no query"),
        ('{"query": "a", "video": 3}', 'line 1: "video" must be text'),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_any_queries(file)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"query": "red"', "line 2 is not JSON"),
        ("red\tone.mp4", "line 2 is not JSON"),
        ('["red", "one.mp4"]', r"line 2 holds \[\"red\""),
        ('{"video": "one.mp4"}', 'line 2: "query" is missing'),
        ('{"query": "red"}', 'line 2: "video" is missing'),
        ('{"query": 5, "video": "one.mp4"}', 'line 2: "query" must be text, not 5'),
        ('{"query": "red", "video": null}', 'line 2: "video" must be text, not null'),
        ('{"query": "red", "video": " "}', 'line 2: "video" must be text'),
        ('{"query": "", "video": "one.mp4"}', 'line 2: "query" must be text, not ""'),
        ('{"query": "a", "video": "b", "start_seconds": 1}', 'line 2: "end_seconds" is null'),
        ('{"query": "a", "video": "b", "end_seconds": 1}', 'line 2: "start_seconds" is null'),
        ('{"query": "a", "video": "b", "start_seconds": "1", "end_seconds": 2}', '"start_seconds" is "1"'),
        ('{"query": "a", "video": "b", "start_seconds": true, "end_seconds": 2}', '"start_seconds" is true'),
        ('{"query": "a", "video": "b", "start_seconds": -1, "end_seconds": 2}', '"start_seconds" is -1'),
        (
            '{"query": "a", "video": "b", "start_seconds": 0, "end_seconds": Infinity}',
            '"end_seconds" is Infinity',
        ),
        (
            '{"query": "a", "video": "b", "start_seconds": 2, "end_seconds": 2}',
            '"end_seconds" 2 is not after',
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        queries_of(tmp_path / "queries.jsonl", {"query": "red", "video": "one.mp4"}, row)


def test_a_span_is_read_where_it_is_stated(tmp_path: Path) -> None:
    row = {"query": "red", "video": "a.mp4"}
    spans: list[dict[str, object]] = [
        {},
        {"start_seconds": None, "end_seconds": None},
        {"start_seconds": 0, "end_seconds": 2.5},
    ]
    read = queries_of(tmp_path / "queries.jsonl", *({**row, **span} for span in spans))
    assert [query.span for query in read] == [None, None, (0.0, 2.5)]


def test_a_set_is_kept_and_the_rest_left_unread(tmp_path: Path) -> None:
    rows = [
        {"query": "red", "video": "a.mp4", "set": "x"},
        {"query": "red", "video": 5, "set": "y"},
        {"query": "blue", "video": "b.mp4", "set": "x", "more": [1]},
    ]
    kept = queries_of(tmp_path / "queries.jsonl", *rows, only_set="x")
    assert [(query.line, query.text, query.video) for query in kept] == [
        (1, "red", "a.mp4"),
        (3, "blue", "b.mp4"),
    ]
    with pytest.raises(InputError, match='holds no query of the set "z"'):
        queries_of(tmp_path / "queries.jsonl", *rows, only_set="z")


def test_line_breaks_of_windows_a_byte_order_mark_and_odd_separators(tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"query": "red\xe2\x80\xa8car", "video": "a.mp4"}\r\n\r\n{"query": "b", "video": "c"}'
    )
    assert [(query.line, query.text) for query in read_queries(file)] == [
        (1, "red\u2028car"),
        (3, "b"),
    ]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe{}", None])
def test_a_file_without_queries(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "queries.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"queries\.jsonl (holds no query|cannot be read)"):
        read_queries(file)


@settings(deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.lists(anything, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
)
def test_any_content_gives_queries_or_says_what_is_wrong(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.jsonl"
        file.write_bytes(data)
        queries = result_or(InputError, read_queries, file)
        if isinstance(queries, InputError):
            assert str(queries).startswith(str(file))
        else:
            assert all(query.text.strip() and query.video.strip() for query in queries)
