"""What users say of videos: cleaned, within bounds, and found by its words as a naive search finds it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.library.annotations import (
    Annotation,
    TagCount,
    clean_note,
    clean_tags,
    clean_title,
    count_tags,
    folded_tag,
)
from indexer.library.curated_names import CuratedNames
from indexer.library.lines import QueryWords
from model.runtime.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
#: Few different words, in scripts with and without spaces, so that queries find something.
WORDS = st.sampled_from(
    ["café", "CAFE", "harbour", "海边", "海边的猫", "边", "a", "x-ray", "ลงทะเล", "Straße", "strasse"]
)
LINES = st.lists(WORDS, max_size=4).map(" ".join)


def test_titles_and_notes_are_cleaned() -> None:
    assert clean_title("  Cafe\u0301\n by the  sea ") == "Café by the sea"
    assert clean_note(" one\r\ntwo\n") == "one\ntwo"
    assert [clean_title(empty) for empty in (None, "", " \t")] == [None] * 3
    assert [clean_note(empty) for empty in (None, "", "\n")] == [None] * 3


def test_of_tags_that_differ_in_case_alone_the_first_stays() -> None:
    assert clean_tags([" Sea ", "sea", "SEA", "Straße", "STRASSE", "dog"]) == ("Sea", "Straße", "dog")
    assert clean_tags(None) == ()


@pytest.mark.parametrize(
    ("clean", "value", "field", "words"),
    [
        (clean_title, "x" * 501, "title", "501 characters"),
        (clean_title, "a\x00b", "title", r"U\+0000"),
        (clean_note, "x" * 10_001, "note", "10,001 characters"),
        (clean_note, "a\ud800", "note", r"U\+D800"),
        (clean_tags, ["x" * 101], "tags", "101 characters"),
        (clean_tags, ["a", " "], "tags", "empty tag"),
        (clean_tags, [str(n) for n in range(101)], "tags", "101 tags"),
        (clean_tags, ["a\x1bb"], "tags", r"U\+001B"),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    clean: Callable[[Any], object], value: object, field: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        clean(value)
    assert caught.value.field == field


@given(TEXTS)
def test_any_text_is_cleaned_once_or_refused(text: str) -> None:
    for clean in (clean_title, clean_note):
        try:
            once = clean(text)
        except InputError:
            continue
        assert clean(once) == once
        assert once is None or (once == once.strip() and unicodedata.is_normalized("NFC", once))


@given(st.lists(st.lists(st.sampled_from(["Sea", "sea", "SEA", "dog", "Dog"]), max_size=5), max_size=8))
def test_tags_are_counted_once_a_video(all_tags: list[list[str]]) -> None:
    annotations = [Annotation(tags=clean_tags(tags)) for tags in all_tags]
    counts = count_tags(annotations)
    naive = {key: sum(key in map(str.casefold, tags) for tags in all_tags) for key in ("sea", "dog")}
    assert {folded_tag(tag): count for tag, count in counts} == {k: n for k, n in naive.items() if n}
    assert counts == sorted(counts, key=lambda each: (-each.num_videos, folded_tag(each.tag)))


def test_a_tag_is_listed_as_it_is_written_most_often() -> None:
    tags = (("Sea",), ("sea", "Dog"), ("sea",))
    assert count_tags(Annotation(tags=each) for each in tags) == [TagCount("sea", 3), TagCount("Dog", 1)]


@given(
    st.dictionaries(st.integers(0, 9).map(str), LINES, max_size=8),
    st.lists(st.dictionaries(st.integers(0, 9).map(str), LINES, max_size=3), max_size=3),
    LINES,
)
def test_videos_are_found_as_by_looking_through_all_lines(
    first: dict[str, str], changes: list[dict[str, str]], text: str
) -> None:
    """In the table, and among those that changed since."""
    names, lines = CuratedNames(first), dict(first)
    for change in changes:
        names, lines = names.changed(change), lines | change
    query = QueryWords(text)
    found = names.find(query, 100, lambda _: True)
    assert set(found) == {video_id for video_id, line in lines.items() if query.matches(line)}
    assert len(found) == len(set(found))
    if not query.is_unspaced:
        coverages = [query.coverage(lines[video_id]) for video_id in found]
        assert coverages == sorted(coverages, reverse=True)
    assert names.find(query, 2, lambda video_id: video_id != "1") == [v for v in found if v != "1"][:2]


def test_many_changes_make_the_table_anew() -> None:
    names = CuratedNames({"0": "sea"})
    for number in range(1200):
        names = names.changed({str(number): f"harbour {number}"})
    query = QueryWords("harbour 7")
    assert names.find(query, 3, lambda _: True) == ["7", "0", "1"]
    assert names.find(QueryWords("sea"), 3, lambda _: True) == []
