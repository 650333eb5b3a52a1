"""Joining readings over time: against a naive twin, and the cases that real films have."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.library.schema import LineRow
from indexer.stages import screen_lines
from indexer.stages.screen_lines import ScreenLines, edit_distance, joined_rows, letters_of, same_text
from indexer.stages.screen_reading import Reading

WORDS = ("lighthouse", "thunderstorm", "breakwater", "carnival parade", "number plate", "goodbye everyone")


def row(
    text: str, top: float = 100.0, left: float = 50.0, score: float = 0.95, height: float = 20.0
) -> Reading:
    return Reading(text, score, left, top, left + 10.0 * len(text), top + height)


def lines_of(*pictures: Sequence[Reading], step: float = 2.0) -> list[LineRow]:
    """The lines of pictures in the middle of steps of equal length, as the index samples them."""
    collected = ScreenLines()
    for number, readings in enumerate(pictures):
        collected.add(step * (number + 0.5), readings)
    return collected.done(step * len(pictures))


def summary(lines: Sequence[LineRow]) -> list[tuple[str, float, float]]:
    return [(line.text, line.start_seconds, line.end_seconds) for line in lines]


def naive_spans(shown: Sequence[frozenset[str]], step: float) -> set[tuple[str, float, float]]:
    """Each text's runs of pictures, in which one picture may be missing: the cells of their samples."""
    spans = set()
    for text in frozenset().union(*shown):
        numbers = [i for i, texts in enumerate(shown) if text in texts]
        runs = [[numbers[0]]]
        for before, number in itertools.pairwise(numbers):
            # With one picture missing, and no longer than the time for which it may be.
            if number - before <= 2 and (number - before) * step <= max(step, 5.0):
                runs[-1].append(number)
            else:
                runs.append([number])
        spans |= {(text, run[0] * step, (run[-1] + 1) * step) for run in runs}
    return spans


@given(
    shown=st.lists(st.frozensets(st.sampled_from(WORDS)), min_size=1, max_size=12),
    step=st.sampled_from([1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_lines_are_those_of_a_naive_twin(shown: list[frozenset[str]], step: float, seed: int) -> None:
    rng = random.Random(seed)

    def readings(texts: frozenset[str]) -> list[Reading]:
        """The texts in any order, at any place, far from each other; one letter of each may be misread."""
        rows = []
        for place, text in enumerate(rng.sample(sorted(texts), len(texts))):
            wrong = text[:3] + rng.choice("qxz") + text[4:] if rng.random() < 0.5 else text
            rows.append(row(wrong, top=200.0 * place + rng.randrange(40), left=rng.randrange(300)))
        return rows

    collected = ScreenLines()
    for number, texts in enumerate(shown):
        collected.add(step * (number + 0.5), readings(texts))
    lines = collected.done(step * len(shown))
    found = sorted((_nearest(line.text), line.start_seconds, line.end_seconds) for line in lines)
    assert found == sorted(naive_spans(shown, step))
    assert [line.start_seconds for line in lines] == sorted(line.start_seconds for line in lines)


def _nearest(text: str) -> str:
    return min(WORDS, key=lambda word: sum(a != b for a, b in itertools.zip_longest(word, text)))


def test_what_is_read_most_often_is_the_text() -> None:
    (line,) = lines_of(
        [row("The lightnouse keeper")], [row("The lighthouse keeper")], [row("The lighthouse keeper")]
    )
    assert (line.kind, line.text, line.language) == ("screen", "The lighthouse keeper", None)
    (line,) = lines_of([row("Thelighthouse keeper", score=0.9)], [row("The lighthouse keeper", score=0.9)])
    assert line.text == "The lighthouse keeper"


def test_a_line_lasts_half_the_way_to_the_pictures_around_it() -> None:
    found = lines_of([], [row("Harbour Street")], [row("Harbour Street")], [], [row("The End")])
    assert summary(found) == [("Harbour Street", 2.0, 6.0), ("The End", 8.0, 10.0)]


def test_of_pictures_that_stand_still_a_line_lasts_until_the_next_one() -> None:
    collected = ScreenLines()
    collected.add(0.0, [row("First slide")])
    collected.add(30.0, [row("Second slide")])
    collected.add(60.0, [row("First slide")])
    assert summary(collected.done(90.0)) == [
        ("First slide", 0.0, 29.0),
        ("Second slide", 29.0, 59.0),
        ("First slide", 59.0, 90.0),
    ]


def test_two_texts_at_once_are_two_lines_in_reading_order() -> None:
    pictures = [[row("Weather report", top=10), row("Rain in the north", top=300)]] * 2
    assert summary(lines_of(*pictures)) == [("Weather report", 0, 4), ("Rain in the north", 0, 4)]


def test_the_rows_of_a_subtitle_are_one_line() -> None:
    first = [row("And when the storm came,", top=300, left=100), row("nobody was there.", top=324, left=130)]
    second = [row("Only the keeper.", top=324, left=135)]
    assert summary(lines_of(first, first, second)) == [
        ("And when the storm came, nobody was there.", 0, 4),
        ("Only the keeper.", 4, 6),
    ]


@pytest.mark.parametrize(
    "other",
    [row("aside", top=124, left=600), row("far below", top=220), row("larger", top=124, height=60)],
)
def test_rows_that_do_not_stand_together_are_lines_of_their_own(other: Reading) -> None:
    assert len(joined_rows([row("a row of text"), other])) == 2


def test_text_that_scrolls_is_one_line() -> None:
    names = ["Directed by Ada", "Music by Grace", "Filmed by Edith"]
    pictures = [
        [
            row(name, top=400.0 + 90 * i - 120 * t)
            for i, name in enumerate(names)
            if 0 < 400 + 90 * i - 120 * t < 500
        ]
        for t in range(6)
    ]
    assert [line.text for line in lines_of(*pictures)] == names


def test_text_that_is_typed_is_one_line_with_all_of_it() -> None:
    typed = ["Once upon", "Once upon a time", "Once upon a time in", "Once upon a time in Lisbon"]
    assert summary(lines_of(*[[row(text)] for text in typed])) == [(typed[-1], 0, 8)]
    # A part of it elsewhere is another text.
    assert len(lines_of([row("Once upon")], [row("Once upon a time", top=300)])) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("lighthouse", "lighthuose", False),
        ("lighthouse", "lighthause", True),
        ("the lighthouse keeper", "The Iighthouse keeper.", True),
        ("house", "horse", False),
        ("Lesson 11", "Lesson 12", False),
        ("Room 14, second floor", "Room 14, second fioor", True),
        ("Room 14, second floor", "Room 17, second floor", False),
        ("2015/01/29 09:04:10", "2015/01/29 09:04:12", True),
        ("2:1", "3:1", False),
        ("Café", "CAFÉ", True),
        ("北京欢迎你", "北京欢迎他", False),
    ],
)
def test_which_readings_are_the_same_text(one: str, other: str, same: bool) -> None:
    assert (same_text(letters_of(one), letters_of(other)) is not None) == same
    assert (same_text(letters_of(other), letters_of(one)) is not None) == same


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.integers(0, 8))
def test_the_edit_distance_is_that_of_the_definition(one: str, other: str, most: int) -> None:
    def naive(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return naive(a[1:], b[1:])
        return 1 + min(naive(a[1:], b), naive(a, b[1:]), naive(a[1:], b[1:]))

    distance = naive(one[:5], other[:5])
    assert edit_distance(one[:5], other[:5], most) == (distance if distance <= most else None)


def test_a_doubtful_reading_of_one_picture_is_left_out() -> None:
    assert lines_of([row("vague pattern", score=0.7)], []) == []
    assert [
        x.text for x in lines_of([row("vague pattern", score=0.7)], [row("vague pattern", score=0.7)])
    ] == ["vague pattern"]


def test_the_same_text_twice_in_a_picture_counts_once() -> None:
    assert summary(lines_of([row("EXIT", top=10), row("EXIT", top=300)])) == [("EXIT", 0, 2)]


def test_a_picture_of_very_much_text_takes_little_time() -> None:
    rng = random.Random(0)
    pages = [[row(" ".join(rng.choices(WORDS, k=5)), top=30.0 * i) for i in range(300)] for _ in range(3)]
    start = time.process_time()
    assert len(lines_of(*pages)) > 20
    assert time.process_time() - start < 8.0


def test_no_pictures_give_no_lines() -> None:
    assert ScreenLines().done(0.0) == []


def test_a_running_clock_is_one_line_whose_cost_does_not_grow() -> None:
    def clock(number: int) -> str:
        seconds = 2 * number
        return f"CAM 3 2026-11-27 {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    collected = ScreenLines()
    start = time.process_time()
    for number in range(10_000):
        collected.add(2.0 * number + 1, [row(clock(number))])
    (line,) = collected.done(20_000.0)
    assert (line.start_seconds, line.end_seconds) == (0.0, 20_000.0)
    assert line.text.startswith("CAM 3 2026-11-27")
    assert time.process_time() - start < 15.0


def test_of_very_many_rows_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_lines, "MAX_ROWS", 3)
    collected = ScreenLines()
    for number, word in enumerate(WORDS):
        collected.add(10.0 * number, [row(word)])
    assert [line.text for line in collected.done(60.0)] == list(WORDS[:3])
    assert collected.left_out == 3
