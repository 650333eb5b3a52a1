"""Spliced films: every clip is in one of them, at the time that the query file says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import Segment, VideoReader, probe
from model.runtime.video.splicing import (
    FRAMES_PER_SECOND,
    HEIGHT,
    WIDTH,
    Part,
    SplicedFilm,
    plan_films,
    write_spliced_film,
)
from service.bench.splice import QUERIES_FILE, splice_clips
from service.errors import QueryError
from tests.support.toy_bundle import COLOURS
from tests.support.toy_videos import make_video

HUES = ("red", "green", "blue", "yellow", "cyan", "magenta", "white", "black")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of one colour each, of several sizes, rates and lengths."""
    folder = tmp_path_factory.mktemp("clips")
    for number, colour in enumerate(HUES):
        size = (64, 48) if number % 2 else (48, 64)
        make_video(folder / f"{colour}.mp4", parts=[(colour, 1.0 + 0.25 * number)], size=size, fps=8 + number)
    rows = [{"query": f"{colour} things", "video": f"{colour}.mp4", "set": "hues"} for colour in HUES]
    rows.append({"query": "red again", "video": "red.mp4", "set": "others"})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def colours_at(film: Path, seconds: list[float]) -> list[str]:
    """The colour nearest to the middle of the picture at each time."""
    with VideoReader(film) as reader:
        frames = [f for segment in reader.segments(1.0, FRAMES_PER_SECOND) for f in _frames(segment)]
    names = list(COLOURS)
    table = np.array(list(COLOURS.values()), np.int64)
    found = []
    for time in seconds:
        rgb = [data for pts, data in frames if pts <= time + 1e-6][-1][HEIGHT // 2, WIDTH // 2]
        found.append(names[int(((table - rgb) ** 2).sum(axis=1).argmin())])
    return found


def _frames(segment: Segment) -> list[tuple[float, NDArray[np.uint8]]]:
    return list(zip(segment.frames.pts_seconds, segment.frames.data, strict=True))


def test_each_query_finds_its_clip_where_the_row_says(clips: Path, tmp_path: Path) -> None:
    made = splice_clips(clips, clips / "clips.jsonl", tmp_path / "films", seed=1)
    rows = [json.loads(line) for line in (tmp_path / "films" / QUERIES_FILE).read_text().splitlines()]
    assert (len(made.films), made.num_queries, len(rows)) == (3, 9, 9)
    assert [row["query"] for row in rows] == [*(f"{colour} things" for colour in HUES), "red again"]
    for film in made.films:
        path = made.folder / film.name
        info = probe(path)
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        assert info.duration_seconds == pytest.approx(film.parts[-1].end / FRAMES_PER_SECOND, abs=0.01)
        own = [row for row in rows if row["video"] == film.name]
        middles = [(row["start_seconds"] + row["end_seconds"]) / 2 for row in own]
        assert colours_at(path, middles) == [row["clip"].removesuffix(".mp4") for row in own]


def test_a_fade_mixes_both_and_a_cut_does_not(clips: Path, tmp_path: Path) -> None:
    faded = (Part("black.mp4", 0, 0, 25, 0), Part("white.mp4", 0, 15, 25, 10))
    film = SplicedFilm("film.mp4", faded)
    write_spliced_film(clips, film, tmp_path / "fade.mp4")
    cut = replace(film, parts=(faded[0], replace(faded[1], start=25, fade=0)))
    write_spliced_film(clips, cut, tmp_path / "cut.mp4")
    brightness = {}
    for name in ("fade", "cut"):
        with VideoReader(tmp_path / f"{name}.mp4") as reader:
            frames = next(reader.segments(32.0, 200)).frames
        brightness[name] = frames.data.mean(axis=(1, 2, 3))
    assert (len(brightness["fade"]), len(brightness["cut"])) == (40, 50)
    assert brightness["cut"][:25].max() < 8
    assert brightness["cut"][25:].min() > 247
    mixed = brightness["fade"][15:25]
    assert np.allclose(mixed, 255 * np.arange(1, 11) / 11, atol=6)
    assert brightness["fade"][:15].max() < 8
    assert brightness["fade"][25:].min() > 247


def test_the_plan_follows_from_the_seed_and_uses_every_clip_once(clips: Path) -> None:
    names = sorted(path.name for path in clips.glob("*.mp4"))
    plans = [plan_films(clips, names, seed) for seed in (0, 0, 1, 2)]
    assert plans[0] == plans[1]
    assert len({repr(plan) for plan in plans}) == 3
    for plan in plans:
        assert sorted(part.clip for film in plan for part in film.parts) == names
        assert [len(film.parts) for film in plan] == [3, 3, 2]
        for film in plan:
            assert film.parts[0].start == film.parts[0].fade == 0
            for before, part in zip(film.parts, film.parts[1:], strict=False):
                assert part.start == before.end - part.fade
                assert 0 <= 3 * part.fade <= min(part.frames, before.frames)
    assert {bool(part.fade) for plan in plans for film in plan for part in film.parts[1:]} == {True, False}


def test_films_are_the_same_every_time_and_made_once(clips: Path, tmp_path: Path) -> None:
    made: list[str] = []

    def again(folder: str, seed: int = 3) -> dict[str, bytes]:
        splice_clips(
            clips, clips / "clips.jsonl", tmp_path / folder, seed=seed, on_made=lambda f: made.append(f.name)
        )
        return {path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())}

    first = again("one")
    assert again("two") == first
    assert len(made) == 6
    (tmp_path / "one" / "spliced-001.mp4").unlink()
    assert again("one") == first
    assert made[6:] == ["spliced-001.mp4"]
    # Another plan leaves none of the old films.
    other = again("one", seed=4)
    assert len(made) == 10
    assert other.keys() == first.keys()
    assert other["spliced-000.mp4"] != first["spliced-000.mp4"]


def test_one_set_can_be_spliced_alone(clips: Path, tmp_path: Path) -> None:
    made = splice_clips(clips, clips / "clips.jsonl", tmp_path / "films", seed=0, only_set="others")
    assert [[part.clip for part in film.parts] for film in made.films] == [["red.mp4"]]
    row = json.loads((tmp_path / "films" / QUERIES_FILE).read_text())
    assert (row["query"], row["set"], row["video"]) == ("red again", "others", "spliced-000.mp4")


def test_a_missing_clip_is_named_with_its_line(clips: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('\n{"query": "a", "video": "red.mp4"}\n{"query": "b", "video": "gone.mp4"}\n')
    with pytest.raises(QueryError, match=r"queries\.jsonl, line 3: .*gone\.mp4 is missing"):
        splice_clips(clips, queries, tmp_path / "films", seed=0)
