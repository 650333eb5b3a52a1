"""Ranges and conditions of media requests, after RFC 9110; the whole path is in test_files.py."""

import pytest
from starlette.datastructures import Headers

from service.api.media import RangeError, byte_range, is_fresh

ETAG, MODIFIED = '"abc"', "Sat, 01 Nov 2025 10:00:00 GMT"


@pytest.mark.parametrize(
    "value", ["bytes=0-0", "bytes=0-", "bytes=99-", "bytes=-1", "bytes=-500", "bytes=10-5000", "Bytes=1-2"]
)
def test_one_range_in_the_file_is_answered(value: str) -> None:
    assert byte_range(Headers({"range": value}), 100, ETAG, MODIFIED) is not None


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=0-1,5-6",
        "bytes=--5",
        "lines=0-5",
        "bytes 0-5",
        "bytes=٣-٤".encode().decode("latin-1"),
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_no_single_range_is_ignored(value: str) -> None:
    assert byte_range(Headers({"range": value}), 100, ETAG, MODIFIED) is None


@pytest.mark.parametrize(("value", "size"), [("bytes=100-", 100), ("bytes=500-600", 100), ("bytes=-0", 100),
                                             ("bytes=0-", 0), ("bytes=-5", 0)])  # fmt: skip
def test_a_range_outside_the_file(value: str, size: int) -> None:
    with pytest.raises(RangeError) as caught:
        byte_range(Headers({"range": value}), size, ETAG, MODIFIED)
    assert caught.value.size == size


@pytest.mark.parametrize(
    ("condition", "ranged"), [(ETAG, True), (MODIFIED, True), ('"old"', False), ('W/"abc"', False)]
)
def test_if_range_of_another_version_gives_the_whole_file(condition: str, ranged: bool) -> None:
    headers = Headers({"range": "bytes=0-1", "if-range": condition})
    assert (byte_range(headers, 100, ETAG, MODIFIED) is not None) is ranged
    outside = Headers({"range": "bytes=100-", "if-range": '"old"'})
    assert byte_range(outside, 100, ETAG, MODIFIED) is None


@pytest.mark.parametrize(
    ("headers", "fresh"),
    [
        ({}, False),
        ({"if-none-match": ETAG}, True),
        ({"if-none-match": f'"x", W/{ETAG}'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"x"'}, False),
        ({"if-modified-since": MODIFIED}, True),
        ({"if-modified-since": "Sun, 02 Nov 2025 10:00:00 GMT"}, True),
        ({"if-modified-since": "Fri, 31 Oct 2025 10:00:00 GMT"}, False),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-modified-since": "Sun, 02 Nov 2025 10:00:00 -0000"}, False),
        ({"if-none-match": '"x"', "if-modified-since": MODIFIED}, False),
    ],
)
def test_whether_the_clients_copy_is_right(headers: dict[str, str], fresh: bool) -> None:
    assert is_fresh(Headers(headers), ETAG, MODIFIED) is fresh
