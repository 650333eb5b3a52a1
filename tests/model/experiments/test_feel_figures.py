"""Figures 3 to 5 of FEEL's paper, drawn from given results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.experiments.feel_figures import choose_cases, draw_sensitivity, draw_similarity, write_cases
from model.runtime.errors import InputError

RED, BLUE = (206, 32, 41), (42, 97, 173)


def _places(image: Image.Image, colour: tuple[int, int, int], column: int) -> list[int]:
    """The rows of a column's pixels of one colour."""
    pixels = np.asarray(image.convert("RGB"))
    return np.flatnonzero((pixels[:, column] == colour).all(-1)).tolist()


def test_a_larger_change_is_drawn_lower() -> None:
    curve = [{"words": 0, "change": 0.0}, {"words": 2, "change": -0.1}, {"words": 8, "change": -0.2}]
    steeper = [{**point, "change": 2 * point["change"]} for point in curve]
    image = draw_sensitivity({"without": curve, "with": steeper})
    column = image.width - 32
    (red, *_), (blue, *_) = _places(image, RED, column), _places(image, BLUE, column)
    assert blue > red + 50
    alone = draw_sensitivity({"flat": [{"words": 0, "change": 0.0}, {"words": 1, "change": 0.0}]})
    assert _places(alone, RED, 400)
    with pytest.raises(ValueError, match="without curves"):
        draw_sensitivity({})


def test_the_matrix_is_darkest_where_it_is_highest() -> None:
    matrix = np.array([[0.9, 0.1], [0.2, 0.5]], np.float32)
    image = draw_similarity(matrix, ["a red car", "a dog on a beach " * 20])
    pixels = np.asarray(image.convert("L")).astype(int)
    left, top, cell = 28 + 420, 28 + 24, 84
    shades = [[pixels[top + r * cell + 5, left + c * cell + 5] for c in range(2)] for r in range(2)]
    assert shades[0][0] < shades[1][1] < shades[1][0] < shades[0][1]
    pictures = [[Image.new("RGB", (9, 9), colour)] * 4 for colour in ("red", "lime")]
    drawn = np.asarray(draw_similarity(matrix, ["a", "b"], pictures))
    assert drawn[28 + 2 * cell + 9, left + 9].tolist() == [255, 0, 0]
    assert drawn[28 + 9, left + cell + 9].tolist() == [0, 255, 0]
    with pytest.raises(ValueError, match="pass as many"):
        draw_similarity(matrix, ["alone"])


def _result(row: str, ranks: list[int]) -> dict[str, Any]:
    asked = [{"query": f"query <{i}>", "film": "a", "kind": "v" if i else "vt"} for i in range(len(ranks))]
    first = ["a" if rank == 1 else "b" for rank in ranks]
    return {"row": row, "seed": 0, "ranks": ranks, "first": first, "asked": asked}


def test_cases_are_those_that_only_one_model_finds() -> None:
    before, after = _result("old", [1, 3, 9, 1, 2, 1]), _result("new", [1, 1, 1, 4, 3, 2])
    assert choose_cases(before, after, 5) == ([2, 1], [3, 5])
    assert choose_cases(before, after, 1) == ([2], [3])


def test_the_page_shows_both_models(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "one.png")
    shots = [{"start": 0.0, "end": 4.0, "image": "one.png", "query": "query <1>"}]
    other = [{"start": 0.0, "end": 4.0, "image": "one.png", "query": None}]
    said = [{"start": 0.0, "end": 3.2, "text": "a & b", "shown": False}]
    films = {"a": {"shots": shots, "subtitles": said}, "b": {"shots": other, "subtitles": []}}
    before, after = _result("old & bold", [1, 3, 1]), _result("new", [1, 1, 2])
    page = tmp_path / "cases.html"
    write_cases(page, before, after, films, [tmp_path])
    text = page.read_text(encoding="utf-8")
    assert "Before: old &amp; bold. After: new." in text
    assert "Of 3 queries 1 find their film first only after, 1 only before." in text
    assert text.index("query &lt;1&gt;") < text.index("Lost after") < text.index("query &lt;2&gt;")
    assert text.count("place 3") == 1
    assert text.count('<figure class="right">') == 1
    assert 'class="unshown">0–3 s: a &amp; b' in text
    assert text.count("data:image/jpeg;base64,") == 4
    with pytest.raises(InputError, match=r"no one.png in .*pass the folders"):
        write_cases(page, before, after, films, [tmp_path / "empty"])
    write_cases(page, before, after, films)
    assert "<img" not in page.read_text(encoding="utf-8")
