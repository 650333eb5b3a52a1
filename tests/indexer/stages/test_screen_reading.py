"""Reading one picture: sizes, colours, places and scripts; what is no text; and what needs no reading."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from indexer.stages.screen_pictures import LastPicture, brightness, is_blank
from indexer.stages.screen_reading import Reading, TextReader, in_reading_order, is_text
from tests.support.screen_texts import Picture, Written, busy, plain, write_on


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader(threads=1)


def compressed(picture: Picture) -> Picture:
    """A picture as a video's compression leaves it, about."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 70])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def texts(reader: TextReader, picture: Picture) -> list[str]:
    return [reading.text for reading in reader.read(picture)]


@pytest.mark.parametrize(
    ("size", "letters"), [((640, 360), 12), ((640, 360), 24), ((1280, 720), 18), ((1280, 720), 60)]
)
def test_subtitles_and_small_captions_are_read_on_busy_pictures(
    reader: TextReader, size: tuple[int, int], letters: int
) -> None:
    line = Written("The lighthouse keeper waits", (size[0] // 12, size[1] - size[1] // 9), letters)
    assert texts(reader, compressed(write_on(busy(size), line))) == [line.text]


def test_text_of_any_colour_is_read(reader: TextReader) -> None:
    yellow = Written("Platform seven", (60, 80), 26, (250, 220, 40))
    dark = Written("Closed on Mondays", (60, 200), 26, (20, 30, 90), outline=None)
    faint = Written("Photograph by Ada", (60, 300), 22, (150, 150, 150), outline=None)
    assert texts(reader, write_on(plain(shade=95), yellow)) == [yellow.text]
    assert texts(reader, write_on(plain(shade=230), dark)) == [dark.text]
    assert texts(reader, write_on(plain(shade=90), faint)) == [faint.text]


def test_scripts_that_the_model_knows_are_read(reader: TextReader) -> None:
    lines = [
        Written("Größe und Übung", (40, 60)),
        Written("Où est la gare", (40, 120)),
        Written("今日は天気がいい", (40, 180)),
        Written("北京欢迎你", (40, 240)),
    ]
    assert texts(reader, write_on(plain(), *lines)) == [line.text for line in lines]


def test_rows_come_in_reading_order(reader: TextReader) -> None:
    lines = [
        Written("Left title", (30, 60)),
        Written("Right title", (380, 64)),
        Written("Below in the middle", (180, 200)),
        Written("At the bottom", (30, 340)),
    ]
    assert texts(reader, write_on(plain(), *lines[::-1])) == [line.text for line in lines]


def test_boxes_are_in_pixels_of_the_picture(reader: TextReader) -> None:
    (reading,) = reader.read(write_on(plain((1280, 720)), Written("Harbour office", (400, 500), 40)))
    assert 370 < reading.left < 405 < 600 < reading.right < 800
    assert 440 < reading.top < 475 < 495 < reading.bottom < 530


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_read_where_nothing_is_written(reader: TextReader, seed: int) -> None:
    assert texts(reader, busy(seed=seed)) == []
    noise = np.random.default_rng(seed).integers(0, 256, (360, 640, 3)).astype(np.uint8)
    assert texts(reader, noise) == []


def test_single_letters_and_doubtful_readings_are_no_text() -> None:
    def row(text: str, score: float) -> Reading:
        return Reading(text, score, 0.0, 0.0, 50.0, 20.0)

    assert not is_text(row("x", 1.0))
    assert not is_text(row("?!…", 1.0))
    assert not is_text(row("ox", 0.8))
    assert is_text(row("ox", 0.9))
    assert is_text(row("oxen graze", 0.65))
    assert not is_text(row("oxen graze", 0.5))


def test_a_picture_on_its_head_costs_no_more_and_gives_no_words(reader: TextReader) -> None:
    picture = write_on(plain(), Written("The lighthouse keeper waits", (60, 200)))
    turned = np.ascontiguousarray(picture[::-1, ::-1])
    reader.read(picture)
    took = []
    for each in (picture, turned):
        start = time.process_time()
        found = texts(reader, each)
        took.append(time.process_time() - start)
    assert "lighthouse" not in " ".join(found)
    assert took[1] < 3 * took[0] + 0.1


def test_reading_order_is_that_of_a_naive_sort() -> None:
    rng = np.random.default_rng(5)
    rows = [
        Reading(
            f"{row} {column}", 1.0, 200.0 * column, 50.0 * row + jitter, 200.0 * column + 150, 50.0 * row + 30
        )
        for row in range(6)
        for column in range(3)
        for jitter in [float(rng.integers(0, 10))]
    ]
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    assert in_reading_order(shuffled) == rows


def test_blank_pictures_are_told_from_small_words() -> None:
    assert is_blank(brightness(plain(shade=0)))
    assert is_blank(brightness(plain(shade=255)))
    slope = np.repeat(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], 360, axis=0)
    assert is_blank(brightness(np.repeat(slope, 3, axis=2)))
    dim = np.random.default_rng(0).integers(0, 12, (360, 640, 3)).astype(np.uint8)
    assert is_blank(brightness(dim))
    small = write_on(plain(), Written("ok", (600, 340), 10, (120, 120, 120), outline=None))
    assert not is_blank(brightness(compressed(small)))


def test_the_same_picture_is_known_again_and_a_changed_word_is_seen() -> None:
    scene = busy((1280, 720))
    last = LastPicture()
    first = write_on(scene, Written("Chapter one", (80, 650), 20))
    assert not last.is_like(brightness(first))
    assert last.is_like(brightness(first))
    assert last.is_like(brightness(compressed(first)))
    assert not last.is_like(brightness(write_on(scene, Written("Chapter two", (80, 650), 20))))
    assert not last.is_like(brightness(first))
    assert not last.is_like(brightness(plain((640, 360))))


def test_slow_changes_add_up() -> None:
    last = LastPicture()
    assert not last.is_like(brightness(plain(shade=100)))
    seen = [last.is_like(brightness(plain(shade=shade))) for shade in range(101, 121)]
    assert seen.count(False) == 3


def test_brightness_is_that_of_rec_601() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    exact = picture @ np.array([0.299, 0.587, 0.114])
    assert np.abs(brightness(picture) - exact).max() <= 1.5
