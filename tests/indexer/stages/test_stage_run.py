"""The second phase of a run: which videos a stage reads, what it leaves behind, and what ends it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from indexer.events import Event, StageFileDone, StageFileStarted, StageRead, StageStarted
from indexer.library.schema import LINE_KINDS, VideoRow
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from indexer.stages.base import AnyStage
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.copies import distinct_copy
from tests.support.crafted_library import as_made_without_texts
from tests.support.speech import make_spoken_video, silence
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_stages import ColourStage, LoudStage
from tests.support.toy_videos import make_video

NOISE = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loud one, a quiet one, one without a stream of sound, and one that is no video."""
    folder = tmp_path_factory.mktemp("films")
    make_spoken_video(folder / "loud.mp4", NOISE)
    make_spoken_video(folder / "quiet.mkv", silence(1.0), colour="blue", codec="pcm_s16le")
    make_spoken_video(folder / "without.mp4", None, colour="green", seconds=1.0)
    (folder / "broken.mp4").write_bytes(bytes(range(256)) * 20)
    return folder


class Home:
    """A folder of films, and a library of it."""

    def __init__(self, bundle: Bundle, films: Path, folder: Path) -> None:
        self.bundle = bundle
        self.media = folder / "media"
        self.library = folder / "library"
        self.events: list[Event] = []
        shutil.copytree(films, self.media)

    def index(
        self, *stages: AnyStage, stop: threading.Event | None = None, on_event: Any = None, **options: Any
    ) -> Any:
        self.events = []

        def note(event: Event) -> None:
            self.events.append(event)
            if on_event is not None:
                on_event(event)

        return index_paths(
            [self.media],
            self.library,
            self.bundle,
            IndexOptions(**{"workers": 0, **options}),
            note,
            stop,
            stages=stages,
        )

    def lines(self, kind: str) -> list[tuple[str, str]]:
        """The file name and the text of all lines of a kind that a search finds."""
        snapshot = Snapshot.open(self.library)
        found = []
        for video in snapshot.videos(0, 99):
            lines = snapshot.lines_between(video.video_id)
            found += [(video.file.name, line.text) for line in lines if line.kind == kind]
        return sorted(found)

    def sources(self, column: str = "speech_source") -> dict[str, str | None]:
        videos = lance.dataset(str(self.library / "videos.lance")).to_table(columns=["video_id", column])
        return {self.name_of(row["video_id"]): row[column] for row in videos.to_pylist()}

    def name_of(self, video_id: str) -> str:
        files = lance.dataset(str(self.library / "files.lance")).to_table().to_pylist()
        (path,) = [file["path"] for file in files if file["video_id"] == video_id]
        return Path(os.fsdecode(path)).name

    def read_by(self, stage: LoudStage) -> list[str]:
        return sorted(self.name_of(video_id) for video_id in stage.read_videos)

    def pictures(self) -> list[int]:
        return [lance.dataset(str(self.library / f"{name}.lance")).version for name in ("segments", "frames")]


@pytest.fixture
def home(bundle: Bundle, films: Path, tmp_path: Path) -> Home:
    return Home(bundle, films, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_reads_each_video_once(home: Home, workers: int) -> None:
    stage = LoudStage()
    summary = home.index(stage, workers=workers)
    assert summary.verdicts["ok"] == 3
    done = summary.stages["speech"]
    assert (done.videos, done.done_before, done.left, done.lines, done.problems) == (3, 0, 0, 1, [])
    assert done.video_seconds == pytest.approx(3.0, abs=0.1)
    assert home.read_by(stage) == ["loud.mp4", "quiet.mkv", "without.mp4"]
    assert stage.closed == 1
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]
    assert home.sources() == {
        "broken.mp4": None,
        **dict.fromkeys(("loud.mp4", "quiet.mkv", "without.mp4"), "loud 1"),
    }
    again = LoudStage()
    summary = home.index(again)
    assert (home.read_by(again), summary.published, summary.stages["speech"].done_before) == ([], False, 3)
    assert verify_library(home.library).ok


def test_the_events_of_a_stage(home: Home) -> None:
    home.index(LoudStage())
    events = [
        e for e in home.events if isinstance(e, StageStarted | StageFileStarted | StageRead | StageFileDone)
    ]
    assert events[0] == StageStarted("speech", 3)
    loud = home.media / "loud.mp4"
    (read,) = [e for e in events if isinstance(e, StageRead) and e.path == loud]
    assert read.seconds == pytest.approx(1.0, abs=0.1)
    assert StageFileDone("speech", loud, None) in events


def test_a_library_indexed_before_gets_a_stage_and_keeps_its_pictures(home: Home) -> None:
    home.index()
    before = home.pictures()
    summary = home.index(LoudStage())
    assert (summary.unchanged, summary.published) == (4, True)
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]
    assert home.pictures() == before


def test_a_library_made_before_there_were_stages(home: Home) -> None:
    home.index()
    as_made_without_texts(home.library)
    assert Snapshot.open(home.library).find_lines("loud", 5) == []
    home.index(LoudStage())
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]
    assert ("loud.mp4", "loud") in home.lines("name")
    assert verify_library(home.library).ok


def test_another_model_reads_again(home: Home) -> None:
    home.index(LoudStage())
    other = LoudStage("loud 2")
    home.index(other)
    assert home.read_by(other) == ["loud.mp4", "quiet.mkv", "without.mp4"]
    assert home.lines("transcript") == [("loud.mp4", "it is loud")], "not twice"
    assert home.sources()["quiet.mkv"] == "loud 2"


def test_stages_and_subtitles_keep_the_lines_of_each_other(home: Home) -> None:
    subtitle = "1\n00:00:00,100 --> 00:00:00,900\n{}\n"
    (home.media / "loud.srt").write_text(subtitle.format("first words"))
    home.index(LoudStage(), ColourStage())
    colours = [("loud.mp4", "painted red"), ("quiet.mkv", "painted blue"), ("without.mp4", "painted green")]
    heard = [("loud.mp4", "it is loud")]
    assert (home.lines("transcript"), home.lines("screen")) == (heard, colours)
    assert home.lines("speech") == [("loud.mp4", "first words")]
    (home.media / "loud.srt").write_text(subtitle.format("other, longer words"))
    summary = home.index()
    assert summary.unchanged == 4
    assert home.lines("speech") == [("loud.mp4", "other, longer words")]
    assert (home.lines("transcript"), home.lines("screen")) == (heard, colours)
    home.index(ColourStage("colour 2"))
    assert (home.lines("transcript"), home.lines("screen")) == (heard, colours)
    assert home.lines("speech") == [("loud.mp4", "other, longer words")]
    assert verify_library(home.library).ok


def test_a_file_that_changes_loses_what_stages_found(home: Home) -> None:
    home.index(LoudStage())
    make_spoken_video(home.media / "loud.mp4", silence(2.0))
    make_spoken_video(home.media / "quiet.mkv", np.tile(NOISE, 2), codec="pcm_s16le")
    home.index()
    assert home.lines("transcript") == []
    assert home.sources() == {
        **dict.fromkeys(("loud.mp4", "quiet.mkv", "broken.mp4")),
        "without.mp4": "loud 1",
    }
    stage = LoudStage()
    home.index(stage)
    assert home.read_by(stage) == ["loud.mp4", "quiet.mkv"]
    assert home.lines("transcript") == [("quiet.mkv", "it is loud")]


def test_a_touched_file_keeps_what_stages_found(home: Home) -> None:
    home.index(LoudStage())
    os.utime(home.media / "loud.mp4", (5, 5))
    stage = LoudStage()
    home.index(stage)
    assert home.read_by(stage) == []
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]


def test_a_stopped_run_keeps_what_is_done_and_the_next_one_goes_on(home: Home) -> None:
    stop = threading.Event()
    for name in "abc":
        distinct_copy(home.media / "loud.mp4", home.media / f"{name}.mp4")

    def stop_at_the_second(_: VideoRow) -> None:
        if len(stage.read_videos) == 2:
            stop.set()

    stage = LoudStage(each=stop_at_the_second)
    summary = home.index(stage, stop=stop)
    assert (summary.interrupted, summary.published) == (True, True)
    assert (summary.stages["speech"].videos, summary.stages["speech"].left) == (1, 5)
    assert home.lines("transcript") == [("a.mp4", "it is loud")]
    assert verify_library(home.library).ok
    stage = LoudStage()
    summary = home.index(stage)
    assert home.read_by(stage) == ["b.mp4", "c.mp4", "loud.mp4", "quiet.mkv", "without.mp4"]
    assert len(home.lines("transcript")) == 4


def test_a_stage_does_not_start_after_a_run_was_stopped(home: Home) -> None:
    stop = threading.Event()
    stop.set()
    stage = LoudStage()
    summary = home.index(stage, stop=stop)
    assert (summary.interrupted, summary.stages, stage.read_videos) == (True, {}, [])


def test_a_killed_run_leaves_a_whole_library(home: Home) -> None:
    for name in "abc":
        distinct_copy(home.media / "loud.mp4", home.media / f"{name}.mp4")

    code = """
from pathlib import Path
import sys
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.toy_stages import LoudStage
bundle, media, library = sys.argv[1:]
options = IndexOptions(workers=0, flush_seconds=0.0)
index_paths([media], library, Bundle.open(Path(bundle)), options, lambda _: None, stages=[LoudStage()])
"""
    command = [sys.executable, "-c", code, str(home.bundle.folder), str(home.media), str(home.library)]
    environment = os.environ | {"REELFIND_FAULT": "kill media.c.mp4 1"}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert verify_library(home.library).ok
    stage = LoudStage()
    home.index(stage)
    assert home.read_by(stage) == ["c.mp4", "loud.mp4", "quiet.mkv", "without.mp4"]
    assert len(home.lines("transcript")) == 4
    assert verify_library(home.library).ok


def test_a_video_on_which_a_stage_fails_is_not_tried_for_ever(home: Home) -> None:
    def fail(video: VideoRow) -> None:
        if home.name_of(video.video_id) == "loud.mp4":
            raise RuntimeError("no such operator")

    home.index(LoudStage("loud 0"))
    summary = home.index(LoudStage(each=fail))
    (problem,) = summary.stages["speech"].problems
    assert (problem.path.name, problem.verdict) == ("loud.mp4", "corrupt")
    assert "RuntimeError: no such operator" in problem.reason
    assert home.sources()["loud.mp4"] == "failed: loud 1"
    snapshot = Snapshot.open(home.library)
    read = sum(source == "loud 1" for source in home.sources().values())
    assert snapshot.stage_counts() == {"speech": read, "screen": 0, "shots": 0}
    assert snapshot.line_counts() == {kind: len(home.lines(kind)) for kind in LINE_KINDS}
    assert snapshot.line_counts()["transcript"]
    assert home.lines("transcript") == [("loud.mp4", "it is loud")], "what another model heard stays"
    stage = LoudStage()
    home.index(stage)
    assert home.read_by(stage) == []
    home.index(stage, retry_failed=True)
    assert home.read_by(stage) == ["loud.mp4"]
    assert home.sources()["loud.mp4"] == "loud 1"


def test_a_stage_that_cannot_work_ends_the_run_and_keeps_what_is_done(home: Home) -> None:
    def fail(video: VideoRow) -> None:
        if home.name_of(video.video_id) == "quiet.mkv":
            raise InputError("the model is damaged")

    stage = LoudStage(each=fail)
    with pytest.raises(InputError, match="damaged"):
        home.index(stage)
    assert stage.closed == 1
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]
    assert verify_library(home.library).ok


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_go_away_or_change_meanwhile_are_left_for_the_next_run(home: Home, workers: int) -> None:
    def disturb(event: Event) -> None:
        if event == StageStarted("speech", 3):
            (home.media / "loud.mp4").rename(home.media.parent / "away.mp4")
            os.utime(home.media / "quiet.mkv", (9, 9))

    stage = LoudStage()
    summary = home.index(stage, on_event=disturb, workers=workers)
    done = summary.stages["speech"]
    assert (done.videos, done.left) == (1, 2)
    assert {(p.path.name, p.verdict) for p in done.problems} == {("loud.mp4", None), ("quiet.mkv", None)}
    (home.media.parent / "away.mp4").rename(home.media / "loud.mp4")
    stage = LoudStage()
    home.index(stage)
    assert home.read_by(stage) == ["loud.mp4", "quiet.mkv"]
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]


def test_sound_that_is_damaged_is_heard_in_part(home: Home) -> None:
    path = home.media / "loud.mp4"
    make_spoken_video(path, np.tile(NOISE, 30))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    shutil.rmtree(home.media)
    home.media.mkdir()
    path = make_spoken_video(home.media / "cut.mkv", np.tile(NOISE, 30), codec="pcm_s16le")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    summary = home.index(LoudStage())
    assert summary.verdicts == {"partial": 1}
    assert summary.stages["speech"].videos == 1
    assert 1 <= len(home.lines("transcript")) <= 3
    assert home.sources() == {"cut.mkv": "loud 1"}


def test_a_video_that_lacks_lines_is_heard_again(home: Home) -> None:
    home.index(LoudStage(), ColourStage())
    lance.dataset(str(home.library / "texts.lance")).delete("kind = 'transcript'")
    # The run that finds them missing reads the texts again, and what stages find, if they are asked for.
    home.index()
    assert home.sources()["loud.mp4"] is None
    assert home.lines("name") != []
    stage = LoudStage()
    home.index(stage, ColourStage())
    assert home.read_by(stage) == ["loud.mp4"]
    assert home.lines("transcript") == [("loud.mp4", "it is loud")]
    assert len(home.lines("screen")) == 3
    assert verify_library(home.library).ok


def test_other_files_than_those_given_are_not_read(home: Home, tmp_path: Path) -> None:
    home.index()
    make_video(tmp_path / "else/a.mp4")
    stage = LoudStage()
    index_paths(
        [tmp_path / "else"],
        home.library,
        home.bundle,
        IndexOptions(workers=0),
        lambda _: None,
        stages=[stage],
    )
    assert home.read_by(stage) == ["a.mp4"]


def test_many_videos_are_committed_together(home: Home) -> None:
    for number in range(12):
        distinct_copy(home.media / "loud.mp4", home.media / f"{number}.mp4")
    home.index()
    before = lance.dataset(str(home.library / "texts.lance")).version
    home.index(LoudStage(), ColourStage())
    assert len(home.lines("transcript")) == 13
    assert lance.dataset(str(home.library / "texts.lance")).version - before < 12


def test_stages_see_a_picture_in_two_seconds_whatever_the_index_samples(tmp_path: Path) -> None:
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy", frames_per_segment=4, num_salient_frames=1))
    assert bundle.manifest.segment_seconds / bundle.manifest.frames_per_segment > 2
    parts = [(colour, 2.0) for colour in ("red", "green", "blue", "white", "black", "yellow", "cyan")]
    make_video(tmp_path / "media/film.mp4", parts=parts)
    options = IndexOptions(workers=0)
    library = tmp_path / "library"
    index_paths([tmp_path / "media"], library, bundle, options, lambda _: None, stages=[ColourStage()])
    snapshot = Snapshot.open(library)
    (video,) = snapshot.videos(0, 9)
    lines = [line for line in snapshot.lines_between(video.video_id) if line.kind == "screen"]
    assert [line.text for line in lines] == [f"painted {colour}" for colour, _ in parts]
