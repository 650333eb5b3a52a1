"""Films whose subtitles tell a part of what is shown: their plans, and the data set on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model.cli import app
from model.data.feature_sets import open_feature_source
from model.data.stills import read_stills
from model.experiments.feel_films import Film, FilmOptions, plan_films
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.settings import DataConfig
from tests.support.tiny_photos import make_photos_with_test
from tests.support.toy_bundle import IMAGE_SIZE, make_toy_bundle

CAPTIONS = [[f"thing {item}, text {number}" for number in range(3)] for item in range(400)]
PICTURES = [1 + item % 3 for item in range(400)]


def _plan(options: FilmOptions, seed: int = 0, rounds: int = 1) -> tuple[Film, ...]:
    items = np.arange(20, 400)
    rng = np.random.default_rng(seed)
    return plan_films(CAPTIONS, PICTURES, items, options, rng, name="film", rounds=rounds)


def test_a_round_uses_each_item_once() -> None:
    films = _plan(FilmOptions())
    shown = [shot.item for film in films for shot in film.shots]
    spoken = [line.item for film in films for line in film.subtitles if not line.shown]
    assert len(set(shown + spoken)) == len(shown + spoken)
    assert min(shown + spoken) >= 20
    assert len(shown + spoken) > 360
    twice = _plan(FilmOptions(), rounds=2)
    assert [film.name for film in twice] == [f"film_{i:05d}" for i in range(len(twice))]
    assert {film.shots[0].item for film in twice} - set(shown) <= set(spoken) | set(range(20, 400))
    assert len(twice) > 1.8 * len(films)


def test_shots_fill_the_film_and_the_pictures_follow_them() -> None:
    for film in _plan(FilmOptions()):
        assert film.shots[0].start_seconds == 0
        for shot, following in zip(film.shots, film.shots[1:], strict=False):
            assert shot.end_seconds == following.start_seconds
        for shot in film.shots:
            assert 2.98 <= shot.end_seconds - shot.start_seconds <= 9.02
        vectors = -(-film.duration_seconds // 1.5)
        assert len(film.pictures) == vectors
        for i, (item, number) in enumerate(film.pictures):
            middle = (1.5 * i + min(1.5 * i + 1.5, film.duration_seconds)) / 2
            (shown,) = [s for s in film.shots if s.start_seconds <= middle < s.end_seconds]
            assert item == shown.item
            assert 0 <= number < PICTURES[item]
            if i and film.pictures[i - 1][0] == item:
                assert film.pictures[i - 1][1] <= number


def test_subtitles_tell_a_part_and_queries_are_other_captions() -> None:
    options = FilmOptions(untold=0.4, unshown=0.25, jitter_seconds=0.8)
    films = [film for seed in range(6) for film in _plan(options, seed)]
    shots = [shot for film in films for shot in film.shots]
    lines = [line for film in films for line in film.subtitles]
    assert len(lines) / len(shots) == pytest.approx(0.6, abs=0.04)
    assert np.mean([not line.shown for line in lines]) == pytest.approx(0.25, abs=0.04)
    for film in films:
        shown = {shot.item for shot in film.shots}
        by_item = {line.item: line for line in film.subtitles}
        assert all(line.shown == (line.item in shown) for line in film.subtitles)
        for shot in film.shots:
            line = by_item.get(shot.item)
            assert shot.told == (line is not None)
            assert shot.query in CAPTIONS[shot.item]
            if line is not None:
                assert line.text in CAPTIONS[shot.item]
                assert shot.query != line.text
                assert abs(line.start_seconds - shot.start_seconds) <= 0.81
                assert abs(line.end_seconds - shot.end_seconds) <= 0.81
        assert all(0 <= x.start_seconds < x.end_seconds <= film.duration_seconds for x in film.subtitles)


def test_an_item_with_one_caption_is_told_or_asked_for() -> None:
    single = [["alone"]] * 40
    films = plan_films(single, [1] * 40, np.arange(40), FilmOptions(), np.random.default_rng(0), name="x")
    shots = [shot for film in films for shot in film.shots]
    assert {shot.told for shot in shots} == {True, False}
    assert all((shot.query is None) == shot.told for shot in shots)


def test_the_seed_decides() -> None:
    assert _plan(FilmOptions(), 3) == _plan(FilmOptions(), 3)
    assert _plan(FilmOptions(), 3) != _plan(FilmOptions(), 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"untold": 1.0}, "untold is 1.0: it must be in [0, 1)"),
        ({"min_shots": 7}, "min_shots is 7: it must be 1 to max_shots, 6"),
        ({"min_shot_seconds": 1.0}, "min_shot_seconds is 1.0"),
        ({"finetuning": 0.0}, "finetuning is 0.0"),
        ({"views": 0}, "views is 0"),
        ({"jitter_seconds": -1.0}, "jitter_seconds is -1.0"),
        ({"every_seconds": 0.0}, "every_seconds is 0.0"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        FilmOptions(**changes)
    assert message in str(error.value)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos to train on, 12 to validate and 12 to test."""
    return make_photos_with_test(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words of the command, and the folder that it made."""
    folder = tmp_path_factory.mktemp("films")
    bundle = make_toy_bundle(folder / "toy")
    output = folder / "out"
    words = ["feel-films", str(photos), "--bundle", str(bundle), "--output", str(output)]
    words += ["--finetuning", "0.5", "--views", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return words, output


def _open(output: Path, kind: str, split: Any) -> Any:
    task, texts = (
        ("pretraining", "transcripts.json") if kind == "clips" else ("finetuning", "subtitles.jsonl")
    )
    data = DataConfig(
        kind=kind,
        features=(str(output / task / "features"),),
        subtitles=str(output / task / texts),
        annotations="" if kind == "clips" else str(output / task / "annotations"),
    )
    return open_feature_source(data, split)


def test_the_set_opens_as_the_official_ones(made: tuple[list[str], Path], photos: Path) -> None:
    output = made[1]
    shown = {row["name"]: row for row in map(json.loads, (output / "films.jsonl").read_text().splitlines())}
    bundle = Bundle.open(output.parent / "toy")
    for split in ("val", "test"):
        source = _open(output, "tvr", split)
        stills = read_stills(photos, split)
        names = [path.name for path in stills.images]
        for i in range(len(source)):
            item, film = source.item(i), shown[source.item_ids[i]]
            assert item.duration_seconds == film["shots"][-1]["end"]
            assert [q.text for q in item.queries] == [s["query"] for s in film["shots"] if s["query"]]
            for query in item.queries:
                (shot,) = [s for s in film["shots"] if s["query"] == query.text]
                assert query.spans == ((shot["start"], shot["end"]),)
                lines = [line.text for line in item.lines]
                captions = stills.captions[names.index(shot["image"])]
                assert (query.kind == "vt") == any(caption in lines for caption in captions)
            middle = film["shots"][0]["end"] / 2
            pixels = stills.load(names.index(film["shots"][0]["image"]), IMAGE_SIZE)
            expected = bundle.encode_frames(pixels[None]).embedding[0]
            np.testing.assert_allclose(item.features[int(middle / 1.5)], expected, atol=1e-5)
    numbers = [n for split in ("train", "val", "test") for n in _open(output, "tvr", split).numbers]
    assert numbers == list(range(len(numbers)))


def test_pretraining_and_finetuning_share_no_photo(made: tuple[list[str], Path]) -> None:
    clips, videos = _open(made[1], "clips", "train"), _open(made[1], "tvr", "train")
    assert len(clips) > 2
    first, second = (
        {row.tobytes() for i in range(len(source)) for row in source.item(i).features}
        for source in (clips, videos)
    )
    assert first
    assert second
    assert first.isdisjoint(second)
    assert not any(clips.queries)
    assert all(clips.lines)


def test_films_are_made_once_and_not_mixed(made: tuple[list[str], Path]) -> None:
    words, output = made
    before = (output / "films.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert "test public films" in again.output
    assert (output / "films.json").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, [*words, "--seed", "1"])
    assert other.exit_code == 2
    assert "holds films of other settings: choose another folder" in other.output
