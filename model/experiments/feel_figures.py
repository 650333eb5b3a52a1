"""Figures 3, 4 and 5 of the FEEL paper, from what `measure_model` found.

Shapes: C queries, and their films, of a matrix.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.arrays import Array
from model.runtime.errors import InputError
from model.runtime.files import replace_text, replacing

_INK, _GREY, _PAPER, _RULE = (28, 28, 30), (120, 120, 126), (255, 255, 255), (226, 226, 230)
_COLOURS = ((206, 32, 41), (42, 97, 173), (90, 140, 60), (150, 110, 20))
_MARGIN, _CELL, _TEXT = 28, 84, 420
_THUMBNAIL = 96
_STYLE = """:root{color-scheme:light dark}
body{font:16px/1.4 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
h2{font-size:1.1em;border-top:1px solid #8886;padding-top:1em}.q{color:#d0303a}
.film{display:flex;gap:.5em;flex-wrap:wrap;align-items:start}figure{margin:0;width:110px;font-size:.75em}
img{display:block;width:96px;height:96px;object-fit:cover;border:3px solid transparent;margin-bottom:.3em}
.right img{border-color:#3a8a3a}td{vertical-align:top;padding:.3em 1em .3em 0}
.said{opacity:.7;font-size:.85em}.unshown{font-style:italic}"""


def draw_sensitivity(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Image.Image:
    """Figure 4: how the score of the right film changes as unrelated words are added, a line for each model.

    Args:
        curves: `sensitivity` of `measure_model`, or means of several, by the model's name.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("a figure without curves: pass at least one")
    width, height, left, top, bottom = 760, 430, 90, 60, 70
    image = Image.new("RGB", (width, height + 26 * len(curves)), _PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((_MARGIN, 18), "Change of the score of the right film", _INK, _font(22))
    steps = [point["words"] for point in next(iter(curves.values()))]
    lowest = min(point["change"] for curve in curves.values() for point in curve)
    highest = max(0.0, *(point["change"] for curve in curves.values() for point in curve))
    reach = max(highest - lowest, 1e-6)

    def place(index: int, change: float) -> tuple[float, float]:
        x = left + index * (width - left - _MARGIN) / max(1, len(steps) - 1)
        return x, top + (highest - change) / reach * (height - top - bottom)

    for value in np.linspace(lowest, highest, 5):
        _, y = place(0, float(value))
        pen.line((left, y, width - _MARGIN, y), _RULE, 1)
        pen.text((_MARGIN, y - 9), _number(float(value)), _GREY, _font(15))
    for index, step in enumerate(steps):
        x, _ = place(index, lowest)
        pen.text((x - 4, height - bottom + 12), f"{step:g}", _GREY, _font(15))
    pen.text((left, height - bottom + 34), "unrelated words added to each query", _GREY, _font(15))
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [place(i, point["change"]) for i, point in enumerate(curve)]
        pen.line(points, colour, 3)
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        y = height + 26 * number - 8
        pen.line((left, y + 10, left + 34, y + 10), colour, 3)
        pen.text((left + 46, y), name, _INK, _font(17))
    return image


def draw_similarity(
    matrix: Array, queries: Sequence[str], films: Sequence[Sequence[Image.Image]] = ()
) -> Image.Image:
    """Figure 5: cosines of queries (rows) and films (columns); each query's own film is on the diagonal.

    Args:
        matrix: shape [C, C].
        queries: the texts.
        films: pictures of each film, of which three are drawn; empty: only their numbers.

    Raises:
        ValueError: the matrix is no square, or the texts or films are not as many.
    """
    count = len(queries)
    if matrix.shape != (count, count) or (films and len(films) != count):
        raise ValueError(f"matrix {list(matrix.shape)}, {count} queries, {len(films)} films: pass as many")
    top = _MARGIN + (3 * _CELL if films else 24)
    image = Image.new("RGB", (2 * _MARGIN + _TEXT + count * _CELL, top + count * _CELL + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(image)
    low, high = float(matrix.min()), float(matrix.max())
    for column in range(count):
        left = _MARGIN + _TEXT + column * _CELL
        for place, picture in enumerate(films[column][:3] if films else ()):
            image.paste(picture.resize((_CELL - 4, _CELL - 4)), (left, _MARGIN + place * _CELL))
        if not films:
            pen.text((left + _CELL // 2 - 6, _MARGIN - 4), str(column + 1), _GREY, _font(17))
    for row, text in enumerate(queries):
        y = top + row * _CELL
        for number, line in enumerate(_wrapped(f"{row + 1}. {text}", _TEXT - 14)[:3]):
            pen.text((_MARGIN, y + 6 + 22 * number), line, _INK, _font(17))
        for column in range(count):
            share = (float(matrix[row, column]) - low) / max(high - low, 1e-6)
            x = _MARGIN + _TEXT + column * _CELL
            shade = tuple(round(255 - share * (255 - part)) for part in _COLOURS[1])
            pen.rectangle((x, y, x + _CELL - 3, y + _CELL - 3), shade)
            ink = _PAPER if share > 0.55 else _INK
            pen.text((x + 18, y + _CELL // 2 - 12), _number(float(matrix[row, column])), ink, _font(17))
    return image


def choose_cases(
    before: Mapping[str, Any], after: Mapping[str, Any], count: int
) -> tuple[list[int], list[int]]:
    """Queries whose film comes first only after, and only before, of which the other model is furthest off.

    Args:
        before: a result of `measure_model`.
        after: that of another model, on the same queries.
        count: how many of each.

    Returns:
        The places of the gained and of the lost queries.
    """
    first, second = np.array(before["ranks"]), np.array(after["ranks"])

    def furthest(won: Array, lost: Array) -> list[int]:
        rows = np.flatnonzero((won == 1) & (lost > 1))
        return [int(row) for row in rows[np.argsort(-lost[rows], kind="stable")][:count]]

    return furthest(second, first), furthest(first, second)


def write_cases(
    path: Path,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    films: Mapping[str, Mapping[str, Any]],
    pictures: Sequence[Path] = (),
    count: int = 6,
) -> None:
    """Figure 3: a page of queries with the film found first, before and after; also those that got worse.

    Args:
        path: the HTML file to write; pictures are inside it.
        before: a result of the ablation.
        after: that of another row, on the same queries.
        films: what each film shows, as `films.jsonl` has it, by name.
        pictures: folders of the films' images; empty: texts alone.
        count: cases of each kind.
    """
    gained, lost = choose_cases(before, after, count)
    introduction = (
        f"Before: {html.escape(before['row'])}. After: {html.escape(after['row'])}. Seed {after['seed']}. A "
        f"green border marks the shot that the query describes. Of {len(after['ranks'])} queries "
        f"{_only(after, before)} find their film first only after, {_only(before, after)} only before."
    )
    body = [f"<p>{introduction}</p>"]
    for title, rows in (("Found after", gained), ("Lost after", lost)):
        body.append(f"<h2>{title}</h2>" + ("" if rows else "<p>None.</p>"))
        for row in rows:
            query = after["asked"][row]
            told = "told by a subtitle too" if query["kind"] == "vt" else "not told"
            body.append(f'<h3 class="q">{html.escape(query["query"])}</h3><p>{told}</p><table>')
            for name, result in (("before", before), ("after", after)):
                place = result["ranks"][row]
                cell = _film(films[result["first"][row]], query["query"], pictures)
                body.append(f"<tr><td>{name}<br>place {place}</td><td>{cell}</td></tr>")
            body.append("</table>")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Before and after</title><style>{_STYLE}'
    )
    replace_text(path, page + "</style><h1>Before and after</h1>" + "\n".join(body) + "</html>\n")


def read_shown(path: Path) -> dict[str, dict[str, Any]]:
    """`films.jsonl` by the films' names."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture whole."""
    with replacing(path) as temporary:
        image.save(temporary)


def film_pictures(film: Mapping[str, Any], folders: Sequence[Path]) -> list[Image.Image]:
    """A picture of each shot of a film.

    Raises:
        InputError: a picture is in none of the folders.
    """
    return [Image.open(_find(shot["image"], folders)).convert("RGB") for shot in film["shots"]]


def _find(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    named = ", ".join(map(str, folders))
    raise InputError(f"no {name} in {named}: pass the folders that the films were made of as --photos")


def _only(more: Mapping[str, Any], less: Mapping[str, Any]) -> int:
    return sum(a == 1 < b for a, b in zip(more["ranks"], less["ranks"], strict=True))


def _film(film: Mapping[str, Any], query: str, pictures: Sequence[Path]) -> str:
    parts = []
    for shot in film["shots"]:
        right = ' class="right"' if shot["query"] == query else ""
        shown = html.escape(shot["query"] or "")
        if pictures:
            shown = f'<img src="{_inline(_find(shot["image"], pictures))}" alt="{shown}">{shown}'
        parts.append(f"<figure{right}>{shown}</figure>")
    said = [
        f"<span{'' if line['shown'] else unshown}>{line['start']:.0f}–{line['end']:.0f} s: "
        f"{html.escape(line['text'])}</span>"
        for unshown in [' class="unshown"']
        for line in film["subtitles"]
    ]
    return f'<div class="film">{"".join(parts)}</div><div class="said">{"<br>".join(said)}</div>'


def _inline(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _number(value: float) -> str:
    # Pillow's own font has no minus sign but this one.
    return f"{value:.2f}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(17).getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
