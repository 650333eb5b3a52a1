"""What a query may be."""

import pytest

from service.errors import QueryError
from service.search.query import check_top_k, clean_text

LIMIT = 1000


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a dog", "a dog"),
        ("  a dog \n", "a dog"),
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("?!", "?!"),
        ("12", "12"),
        ("собака", "собака"),
        ("犬が走る", "犬が走る"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
        ("नमस्ते", "नमस्ते"),
        ("x" * LIMIT, "x" * LIMIT),
    ],
)
def test_what_people_type_is_kept(text: str, cleaned: str) -> None:
    assert clean_text(text, LIMIT) == cleaned


@pytest.mark.parametrize("text", ["", "   ", "\n\t\r", "\u00a0", "\u200b\u200d", "\ufeff"])
def test_nothing_visible_is_empty(text: str) -> None:
    with pytest.raises(QueryError, match="query is empty") as caught:
        clean_text(text, LIMIT)
    assert caught.value.field == "/query/text"


@pytest.mark.parametrize(
    ("text", "named"),
    [("a\x00b", r"U\+0000"), ("a\x1b[31m", r"U\+001B"), ("\x7fa", r"U\+007F"), ("a\ud800", r"U\+D800")],
)
def test_control_characters_and_lone_surrogates_are_named(text: str, named: str) -> None:
    with pytest.raises(QueryError, match=named):
        clean_text(text, LIMIT)


def test_a_text_that_is_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(QueryError, match=r"5,000 characters; at most 1,000"):
        clean_text("x" * 5000, LIMIT)


@pytest.mark.parametrize("top_k", [1, 1000])
def test_top_k_within_its_bounds(top_k: int) -> None:
    assert check_top_k(top_k, 1000) == top_k


@pytest.mark.parametrize("top_k", [0, -1, 1001, 1_000_000, pytest.param(10**5000, id="5,001 digits")])
def test_top_k_out_of_bounds(top_k: int) -> None:
    with pytest.raises(QueryError, match=r"top_k is .*; ask for 1 to 1,000 hits"):
        check_top_k(top_k, 1000)
