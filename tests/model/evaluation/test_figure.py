"""The picture of salient frames, and the table of an evaluation."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from model.evaluation.encoders import BundleEncoder
from model.evaluation.figure import FigureRow, choose_segment, draw_figure, save_figure
from model.evaluation.tables import metrics_table
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

RED = (206, 32, 41)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle"), threads=1))


def row(
    count: int = 5, salient: tuple[int, ...] = (1, 3), size: tuple[int, int] = (60, 80), text: str = "x"
) -> FigureRow:
    frames = np.full((count, *size, 3), 90, np.uint8)
    chosen = np.isin(np.arange(count), salient)
    return FigureRow(
        text, frames, np.linspace(-0.5, 0.5, count, dtype=np.float32), chosen, tuple(range(count))
    )


def frames_in_red(image: Image.Image) -> list[tuple[int, int]]:
    """Left and right edge of each red frame, from a line of pixels that crosses their upper bars."""
    pixels = (np.asarray(image).astype(int) == RED).all(axis=2)
    line = pixels[np.argmax(pixels.sum(axis=1))]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_salient_frames_are_framed_in_red() -> None:
    framed = frames_in_red(draw_figure([row(salient=(1, 3))]))
    widths = {right - left for left, right in framed}
    assert len(framed) == 2
    assert len(widths) == 1
    step = widths.pop() + 14
    # The second and the fourth column.
    assert framed[1][0] - framed[0][0] == 2 * step
    assert framed[0][0] == 28 + step
    assert frames_in_red(draw_figure([row(salient=(0,))]))[0][0] == 28
    assert not (np.asarray(draw_figure([row(salient=())])).astype(int) == RED).all(axis=2).any()


def test_a_picture_grows_with_its_rows_and_texts() -> None:
    one = draw_figure([row()])
    assert draw_figure([row(), row()]).height > 1.8 * (one.height - 28)
    assert draw_figure([row(count=3)]).width < one.width
    lines = draw_figure([row(text="many words " * 20)])
    assert one.height < lines.height < draw_figure([row(text="many words " * 500)]).height + 1
    # Portrait video stays within its column.
    tall = draw_figure([row(size=(800, 200))])
    assert tall.height < one.height + 120
    with pytest.raises(ValueError, match="a figure without rows"):
        draw_figure([])


def test_the_best_segment_is_shown_with_the_models_choice(encoder: BundleEncoder, tmp_path: Path) -> None:
    video = make_video(
        tmp_path / "film.mp4", parts=[("blue", 40.0), ("green", 2.0), ("red", 4.0), ("green", 4.0)], fps=4
    )
    found = choose_segment(encoder, "red", video, caption="film.mp4")
    # The second half of it, of 25 seconds, sampled at 27.5, 32.5, 37.5, 42.5 and 47.5: red from 42 to 46.
    assert [round(t, 1) for t in found.times] == [27.5, 32.5, 37.5, 42.5, 47.5]
    assert found.salient.sum() == 2
    assert found.salient[3]
    assert found.relevance.argmax() == 3
    assert found.frames.shape == (5, 48, 64, 3)
    alone = choose_segment(encoder, "red", video, num_salient=1)
    assert alone.salient.tolist() == [False, False, False, True, False]
    with pytest.raises(ValueError, match="17 frames in a figure: show 1 to 16"):
        choose_segment(encoder, "red", video, frames=17)
    with pytest.raises(ReelfindError, match=r"none\.mp4"):
        choose_segment(encoder, "red", tmp_path / "none.mp4")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    save_figure([row()], tmp_path / "figure.png", "A note.")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
    for name in ("none/figure.png", "figure.words"):
        with pytest.raises(ValueError, match="the figure cannot be written to"):
            save_figure([row()], tmp_path / name)


def metrics(value: float) -> dict[str, Any]:
    way = {"n": 1234, "R@1": value, "R@5": 50.0, "R@10": 60.0, "MdR": 2.0, "MnR": 1234.5}
    return {"text_to_video": way, "video_to_text": {**way, "n": 7}, "R@SUM": 2 * (value + 110)}


def test_a_table_names_what_was_measured() -> None:
    result = {
        "settings": {
            "rerank": True,
            "match": "matcher",
            "mode": "all-pairs",
            "num_candidates": None,
            "num_salient_frames": 2,
            "ensemble_lambda": 8.5,
            "tokens": "int8",
            "tokens_per_frame": None,
        },
        "tuned": {"split": "val", "ensemble_lambda": 8.5, "tried": [{}, {}, {}]},
        "photos": {
            "test": {
                "global": metrics(10.0),
                "local": metrics(11.0),
                "ensemble": metrics(12.04),
                "salient_frames": {"1": {"local": metrics(13.0), "ensemble": metrics(14.0)}},
            }
        },
        "videos": {"panda": {"own": {"global": metrics(15.0)}}},
    }
    expected = """
        all pairs matched on 2 salient frames (int8 tokens); λ = 8.5
        λ = 8.5 was best of 3 on val

        photos, test: 1,234 texts, 7 videos
                                                text to video                      video to text
                                R@1   R@5  R@10    MdR    MnR      R@1   R@5  R@10    MdR    MnR    R@SUM
        global                 10.0  50.0  60.0    2.0 1234.5     10.0  50.0  60.0    2.0 1234.5    240.0
        local                  11.0  50.0  60.0    2.0 1234.5     11.0  50.0  60.0    2.0 1234.5    242.0
        ensemble               12.0  50.0  60.0    2.0 1234.5     12.0  50.0  60.0    2.0 1234.5    244.1
        local, 1 frame         13.0  50.0  60.0    2.0 1234.5     13.0  50.0  60.0    2.0 1234.5    246.0
        ensemble, 1 frame      14.0  50.0  60.0    2.0 1234.5     14.0  50.0  60.0    2.0 1234.5    248.0

        videos, panda, gallery own: 1,234 texts, 7 videos
                                                text to video                      video to text
                                R@1   R@5  R@10    MdR    MnR      R@1   R@5  R@10    MdR    MnR    R@SUM
        global                 15.0  50.0  60.0    2.0 1234.5     15.0  50.0  60.0    2.0 1234.5    250.0
    """
    assert metrics_table(result) == textwrap.dedent(expected).strip()
