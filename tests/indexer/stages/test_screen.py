"""What is written in the pictures is read by RapidOCR in films that show it, and found over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.library.schema import LineRow
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.media import PictureChunk
from indexer.stages.screen import ScreenStage
from indexer.stages.screen_reading import Reading, TextReader
from model.runtime.installing import install_command
from tests.support.indexed_home import index, pictures_of
from tests.support.screen_texts import Picture, Written, busy, make_written_video, plain, write_on
from tests.support.server import running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
FERRY = "The ferry leaves at noon"
ICE = ("Danger: thin ice.", "Keep off the lake.")


@pytest.fixture(scope="module")
def stage() -> Iterator[ScreenStage]:
    made = ScreenStage()
    yield made
    made.close()


def read(stage: ScreenStage, pictures: list[Picture], step: float = 2.0) -> list[LineRow]:
    """The lines of pictures that are sampled in the middle of steps."""
    chunks = (
        PictureChunk(np.array([step * (i + 0.5)]), picture[None], step * (i + 1))
        for i, picture in enumerate(pictures)
    )
    return list(stage.read(None, chunks).lines)  # type: ignore[arg-type]  # the stage needs no row


def test_text_has_the_times_at_which_it_is_shown(stage: ScreenStage) -> None:
    scenes = [busy(seed=i) for i in range(6)]
    subtitle = Written(FERRY, (60, 320))
    title = Written("Harbour Stories", (200, 80), 40)
    shown = [
        write_on(scenes[0], title),
        write_on(scenes[1], title, subtitle),
        write_on(scenes[2], subtitle),
        scenes[3],
        write_on(scenes[4], Written("Goodbye", (250, 200), 60)),
        scenes[5],
    ]
    lines = read(stage, shown)
    assert [(line.text, line.start_seconds, line.end_seconds) for line in lines] == [
        ("Harbour Stories", 0.0, 4.0),
        (FERRY, 2.0, 6.0),
        ("Goodbye", 8.0, 10.0),
    ]
    assert {line.kind for line in lines} == {"screen"}


def test_moving_text_is_one_line(stage: ScreenStage) -> None:
    scene = busy(seed=7)
    shown = [write_on(scene, Written("Filmed in Lisbon", (40 + 50 * i, 330 - 40 * i))) for i in range(6)]
    (line,) = read(stage, shown)
    assert (line.text, line.start_seconds, line.end_seconds) == ("Filmed in Lisbon", 0.0, 12.0)


class CountingReader(TextReader):
    """The reader, which counts the pictures that it reads."""

    count = 0

    def read(self, picture: Picture) -> list[Reading]:
        self.count += 1
        return super().read(picture)


def test_only_pictures_that_may_show_something_new_are_read(stage: ScreenStage, monkeypatch: Any) -> None:
    reader = CountingReader()
    monkeypatch.setattr(stage, "_reader", reader)
    rng = np.random.default_rng(0)

    def noisy(picture: Picture) -> Picture:
        """The picture as a camera sees it again."""
        noise = rng.integers(-4, 5, picture.shape)
        return np.asarray(np.clip(picture + noise, 0, 255), np.uint8)

    slide = write_on(plain(shade=200), Written("Lesson one: tides", (60, 100)))
    (line,) = read(stage, [plain(shade=0), *(noisy(slide) for _ in range(20)), plain(shade=90)])
    assert (line.text, line.start_seconds, line.end_seconds) == ("Lesson one: tides", 2.0, 42.0)
    assert reader.count == 1
    # Short videos have more pictures than anybody reads.
    read(stage, [write_on(busy(seed=i), Written(FERRY, (60, 320))) for i in range(16)], step=0.25)
    assert reader.count == 1 + 4


def test_nothing_is_loaded_where_nothing_is_shown() -> None:
    code = """
import sys
import numpy as np
from indexer.media import PictureChunk
from indexer.stages.screen import ScreenStage
stage = ScreenStage()
grey = np.full((16, 720, 1280, 3), 120, np.uint8)
chunks = (PictureChunk(32.0 * n + 2 * np.arange(16), grey + n % 100, 32.0 * n + 32) for n in range(20))
assert stage.read(None, chunks).lines == ()
assert not {"rapidocr", "cv2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films and a bundle."""
    home = tmp_path_factory.mktemp("home")
    make_toy_bundle(home / "toy")
    sea = busy(seed=1)
    warning = [Written(ICE[0], (80, 290)), Written(ICE[1], (80, 320))]
    harbour = [(sea, 2.0), (write_on(sea, Written(FERRY, (60, 320))), 4.0), (sea, 3.0)]
    make_written_video(home / "media/harbour.mp4", harbour)
    # Larger than what is read.
    large = write_on(busy((1920, 1080), seed=2), *(_larger(each) for each in warning))
    make_written_video(home / "media/lake.mkv", [(large, 3.0)], fps=2)
    make_video(home / "media/plain.mp4", parts=[("red", 3.0)])
    (home / "media/broken.mp4").write_bytes(bytes(range(256)) * 20)
    return home


def _larger(text: Written) -> Written:
    return Written(text.text, (text.at[0] * 3, text.at[1] * 3), text.size * 3)


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A home of its own for a test, with a library that was made without the stage."""
    shutil.copytree(home, tmp_path / "home")
    index(tmp_path / "home")
    return tmp_path / "home"


def lines_of(library: Path) -> dict[str, list[str]]:
    """The lines that were read in each film."""
    snapshot = Snapshot.open(library)
    return {
        video.file.name: [x.text for x in snapshot.lines_between(video.video_id) if x.kind == "screen"]
        for video in snapshot.videos(0, 99)
    }


def test_films_of_a_library_are_found_by_what_is_written_in_them(copy: Path) -> None:
    before = pictures_of(copy / "library")
    found = index(copy, "--screen")
    done = found["stages"]["screen"]
    assert (done["videos"], done["lines"], done["problems"]) == (3, 2, [])
    assert found["verdicts"].get("ok", 0) == 0, "no picture is indexed again"
    assert pictures_of(copy / "library") == before
    assert lines_of(copy / "library") == {
        "harbour.mp4": [FERRY],
        "lake.mkv": [" ".join(ICE)],
        "plain.mp4": [],
        "broken.mp4": [],
    }
    assert verify_library(copy / "library").ok
    with running_server("--library", str(copy / "library"), "--bundle", str(copy / "toy")) as server:
        first = server.search("ferry at noon")[0]
        assert Path(first["path"]).name == "harbour.mp4"
        (match,) = first["text_matches"]
        assert (match["kind"], match["source"], match["text"]) == ("screen", "seen", FERRY)
        assert [match["text"][a:b] for a, b in match["marks"]] == ["ferry", "at", "noon"]
        assert match["start_seconds"] == pytest.approx(2.0, abs=1.0)
        assert match["end_seconds"] == pytest.approx(6.0, abs=1.0)
        # A sentence on two rows of a subtitle.
        hits = server.search("thin ice on the lake", modalities={"visual": 0})
        assert [[line["text"] for line in hit["text_matches"]] for hit in hits] == [[" ".join(ICE)]]
        nothing = {"visual": 1, "speech": 1, "screen": 0, "name": 1}
        assert not any(hit["text_matches"] for hit in server.search("red ferry at noon", modalities=nothing))
    again = index(copy, "--screen")
    assert (again["published"], again["stages"]["screen"]["done_before"]) == (False, 3)


def test_an_interrupted_run_goes_on(copy: Path) -> None:
    # Files are read in the order of their names: harbour, lake, plain.
    index(copy, "--screen", "--workers", "0", code=-signal.SIGKILL, REELFIND_FAULT="kill media.plain.mp4 1")
    assert verify_library(copy / "library").ok
    done = index(copy, "--screen")["stages"]["screen"]
    assert done["videos"] + done["done_before"] == 3
    found = lines_of(copy / "library")
    assert (found["harbour.mp4"], found["lake.mkv"]) == ([FERRY], [" ".join(ICE)])


def test_a_package_that_is_missing_is_told_before_anything_is_read(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'rapidocr':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    search = os.pathsep.join([str(tmp_path / "hidden"), *filter(None, [os.environ.get("PYTHONPATH")])])
    make_video(copy / "media/new.mp4")
    error = index(copy, "--screen", code=2, PYTHONPATH=search)["error"]
    assert error.startswith("reelfind: --screen")
    assert install_command("screen") in error
    assert index(copy)["verdicts"]["ok"] == 1, "the new film was not read"


def test_weights_that_are_missing_are_told(copy: Path, tmp_path: Path) -> None:
    # A package of this name without its weights.
    (tmp_path / "empty/rapidocr").mkdir(parents=True)
    (tmp_path / "empty/rapidocr/__init__.py").write_text("")
    search = os.pathsep.join([str(tmp_path / "empty"), *filter(None, [os.environ.get("PYTHONPATH")])])
    error = index(copy, "--screen", code=2, PYTHONPATH=search)["error"]
    assert "PP-OCRv6_det_small.onnx" in error
    assert "pip install" in error
