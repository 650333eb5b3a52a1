"""Kill the indexer at every step of a run: what was served stays whole, and the next run completes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.library.manifest import current_number
from indexer.library.snapshot import Snapshot
from indexer.library.switching import publish_generation, rollback
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.crafted_library import as_made_without_texts
from tests.support.toy_bundle import COLOURS, make_toy_bundle, text_embedding
from tests.support.toy_generations import make_turned_bundle, turned
from tests.support.toy_library import data_file
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

#: Runs the real commands, each in a process of its own: forked, because imports would take most of the time.
#: Nothing is opened before the fork: Lance and ONNX Runtime start their threads in the child.
_SERVER = """
import importlib, json, os, sys, warnings
from pathlib import Path
import model.runtime.faults
from service.cli.index import index_command
from service.cli.library import (
    library_drop_command,
    library_publish_command,
    library_rollback_command,
)

warnings.simplefilter("ignore")
for line in sys.stdin:
    command, options, fault = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(fault)
        importlib.reload(model.runtime.faults)
        null = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(null, handle)
        options = {k: Path(v) if k in ("library", "bundle") else v for k, v in options.items()}
        try:
            {
                "index": index_command,
                "rollback": library_rollback_command,
                "publish": library_publish_command,
                "drop": library_drop_command,
            }[command](**options)
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

#: Everything a snapshot shows: videos with verdicts, answers to every colour with thumbnails and tokens, and
#: lines.
View = tuple[object, ...]


def view(library: Path, number: int | None = None, places: int = 0) -> View:
    """What a snapshot shows; `places` is by how many its bundle turns embeddings."""
    snapshot = Snapshot.open(library, number)
    videos = [(v.file.name, v.verdict, v.num_segments, v.sha256) for v in snapshot.videos(0, 100)]
    answers = {}
    for colour in COLOURS:
        scores, rows = snapshot.search(turned(text_embedding(colour), places)[None], 100)
        segments = snapshot.segments(rows[0])
        answers[colour] = sorted(
            (
                *(round(float(score), 4), s.video_id, s.segment_index, snapshot.thumbnail(s.frame_ids[0])),
                snapshot.frame_tokens([s.row] * len(s.frame_ids), range(len(s.frame_ids))).round(4).tolist(),
            )
            for score, s in zip(scores[0], segments, strict=True)
        )
    lines = sorted(
        (line.video_id, line.kind, line.start_seconds, line.end_seconds, line.language or "", line.text)
        for video in snapshot.videos(0, 100)
        for line in snapshot.lines_between(video.video_id)
    )
    said = sorted(line.text for line in snapshot.find_lines("said before after", 100))
    assert said == sorted(line[-1] for line in lines if "said" in line[-1])
    return videos, answers, lines


def write_line(path: Path, text: str) -> None:
    path.write_text(f"1\n00:00:00,100 --> 00:00:00,200\n{text}\n")


class Home:
    """Media, a bundle, a library published once, and changes to the media that the next run takes in."""

    def __init__(self, root: Path) -> None:
        self.media = root / "media"
        self.library = root / "library"
        self.bundle = Bundle.open(make_toy_bundle(root / "toy"))
        self.next_bundle = Bundle.open(make_turned_bundle(root / "turned", 3))
        make_video(self.media / "changed.mp4", parts=[("red", 0.3)])
        make_video(self.media / "gone.mp4", parts=[("green", 0.3)])
        make_video(self.media / "touched.mp4", parts=[("cyan", 0.3)])
        make_video(self.media / "spoken.mp4", parts=[("white", 0.3)])
        write_line(self.media / "changed.srt", "said before and after")
        write_line(self.media / "gone.srt", "said before")
        write_line(self.media / "spoken.en.srt", "said before")
        self.index(self.library)
        make_video(self.media / "changed.mp4", parts=[("blue", 33.0)], fps=1)
        (self.media / "gone.mp4").unlink()
        os.utime(self.media / "touched.mp4", (9, 9))
        make_video(self.media / "new.mp4", parts=[("yellow", 0.3)])
        (self.media / "noise.mp4").write_bytes(bytes(range(1, 256)) * 8)
        write_line(self.media / "spoken.en.srt", "said after it")
        write_line(self.media / "new.srt", "said after")
        self.server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.before = view(self.library)
        self.after = self.view_after(self.library)

    def index(self, library: Path, bundle: Bundle | None = None) -> None:
        options = IndexOptions(workers=0, prune=True, keep_snapshots=1, keep_seconds=0.0)
        index_paths([self.media], library, bundle or self.bundle, options, lambda _: None)

    def view_after(self, library: Path) -> View:
        """What an uninterrupted run on a copy gives."""
        copy = library.with_name("uninterrupted")
        shutil.copytree(library, copy)
        self.index(copy)
        return view(copy)

    def run(
        self,
        library: Path,
        command: str = "index",
        *,
        repair: bool = False,
        bundle: Bundle | None = None,
        **fault: str,
    ) -> int:
        """Run a command in a process of its own; its exit status."""
        options: dict[str, object] = {"library": str(library)}
        if command == "drop":
            options |= {"generation": self.bundle.checksum[:12], "keep_minutes": 0}
        if command == "index":
            options |= {"paths": [str(self.media)], "bundle": str((bundle or self.bundle).folder)}
            options |= {"prune": True, "workers": 0, "keep_snapshots": 1, "keep_minutes": 0}
            options |= {"repair": repair}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([command, options, fault]) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("faults"))
    yield home
    home.server.communicate()


def points(log: Path) -> Iterator[str]:
    """`name count` for each point that a run reached, the second time of a name included, not the third."""
    seen: dict[str, int] = {}
    for name in log.read_text().split("\n")[:-1]:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= 2:
            yield f"{name} {seen[name]}"


def kill_everywhere(home: Home, folder: Path, start: Path | None, served: set[int | None]) -> list[str]:
    """Kill a run at each of its points, each on a fresh copy of `start`; the points."""
    log = folder / "points"
    plain = folder / "plain"
    if start:
        shutil.copytree(start, plain)
    assert home.run(plain, REELFIND_FAULT_LOG=str(log)) == 0
    reached = list(points(log))

    for point in reached:
        library = folder / f"killed at {point}"
        if start:
            shutil.copytree(start, library)
        assert home.run(library, REELFIND_FAULT=f"kill {point}") == -signal.SIGKILL, point
        number = current_number(library) if library.exists() else None
        assert number in served, point
        if number is not None:
            assert verify_library(library).ok, point
            assert view(library) == (home.before if number == 1 and start else home.after), point
        home.index(library)
        assert view(library) == home.after, point
        assert verify_library(library).ok, point
        leftovers = [p.name for p in (library / "snapshots").iterdir() if not p.name.isdecimal()]
        assert leftovers == [], point
        assert list(library.glob(".*")) == [], point
        shutil.rmtree(library)
    return reached


def test_a_kill_at_any_step_of_an_update_leaves_a_whole_snapshot(home: Home, tmp_path: Path) -> None:
    reached = kill_everywhere(home, tmp_path, home.library, {1, 2})
    steps = {point.split(" ")[0].split(".")[0] for point in reached}
    assert steps >= {"write", "append", "upsert", "delete", "compact", "publish", "current", "prune"}


def test_a_kill_at_any_step_of_the_first_run_leaves_nothing_half_served(home: Home, tmp_path: Path) -> None:
    reached = kill_everywhere(home, tmp_path, None, {None, 1})
    assert {point.split(".")[0] for point in reached} >= {"create", "write", "publish", "current"}


def test_a_kill_at_any_step_of_adding_texts(home: Home, tmp_path: Path) -> None:
    """A library made before there were texts gets them."""
    start = tmp_path / "start"
    shutil.copytree(home.library, start)
    as_made_without_texts(start)
    log, plain = tmp_path / "points", tmp_path / "plain"
    shutil.copytree(start, plain)
    assert home.run(plain, REELFIND_FAULT_LOG=str(log)) == 0
    reached = [point for point in points(log) if point.split()[0].endswith((".texts", "upsert.videos"))]
    assert {point.split(".")[0] for point in reached} >= {"create", "write", "append", "index", "indexed"}
    for point in reached:
        library = tmp_path / f"killed at {point}"
        shutil.copytree(start, library)
        assert home.run(library, REELFIND_FAULT=f"kill {point}") == -signal.SIGKILL, point
        number = current_number(library)
        assert verify_library(library).ok, point
        if number == 1:
            videos, answers, lines = view(library)
            assert (videos, answers, lines) == (*home.before[:2], []), point
        home.index(library)
        assert view(library) == home.after, point
        assert verify_library(library).ok, point
        shutil.rmtree(library)


def test_a_kill_at_any_step_of_a_rollback(home: Home, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(home.library, start)
    index_paths([home.media], start, home.bundle, IndexOptions(workers=0, prune=True), lambda _: None)
    names = [f"rollback.{table}" for table in ("videos", "segments", "frames", "texts")]
    names += [f"rollback.current.{step}" for step in ("write", "fsync", "rename", "renamed")]
    for name in names:
        library = tmp_path / name
        shutil.copytree(start, library)
        assert home.run(library, "rollback", REELFIND_FAULT=f"kill {name} 1") == -signal.SIGKILL, name
        assert view(library) == (home.before if current_number(library) == 1 else home.after), name
        assert verify_library(library).ok, name
        if current_number(library) == 2:
            assert rollback(library) == 1
        assert view(library) == home.before, name
        home.index(library)
        assert view(library) == home.after, name
        assert verify_library(library).ok, name


@pytest.fixture(scope="module")
def built(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that serves snapshot 1, and has 2 of the next generation beside it."""
    library = tmp_path_factory.mktemp("built") / "library"
    shutil.copytree(home.library, library)
    home.index(library, home.next_bundle)
    assert view(library, 2, 3) == home.after
    return library


def test_a_kill_at_any_step_of_building_a_generation(home: Home, tmp_path: Path) -> None:
    """At those steps that an update has not, and at some of the others."""
    log, plain = tmp_path / "points", tmp_path / "plain"
    shutil.copytree(home.library, plain)
    assert home.run(plain, bundle=home.next_bundle, REELFIND_FAULT_LOG=str(log)) == 0
    chosen = [f"create.{step} 1" for step in ("texts", "videos", "done")]
    chosen += ["write.frames 1", "append.segments 1", "upserted.videos 1"]
    chosen += [f"stage.{step} {count}" for step in ("rename", "renamed") for count in (1, 2)]
    chosen += ["publish.rename 1", "publish.done 1"]
    assert set(chosen) <= set(points(log))
    for point in chosen:
        library = tmp_path / f"killed at {point}"
        shutil.copytree(home.library, library)
        killed = home.run(library, bundle=home.next_bundle, REELFIND_FAULT=f"kill {point}")
        assert killed == -signal.SIGKILL, point
        assert current_number(library) == 1, point
        assert view(library) == home.before, point
        assert verify_library(library).ok, point
        home.index(library, home.next_bundle)
        number = publish_generation(library)
        assert view(library, number, 3) == home.after, point
        assert verify_library(library).ok, point
        leftovers = [p.name for p in (library / "snapshots").iterdir() if not p.name.isdecimal()]
        assert leftovers == [], point
        shutil.rmtree(library)


@pytest.mark.parametrize("step", ["write", "fsync", "rename", "renamed"])
def test_a_kill_at_any_step_of_publishing_a_generation(
    home: Home, built: Path, tmp_path: Path, step: str
) -> None:
    library = tmp_path / "library"
    shutil.copytree(built, library)
    name = f"publish_generation.current.{step}"
    assert home.run(library, "publish", REELFIND_FAULT=f"kill {name} 1") == -signal.SIGKILL
    number = current_number(library)
    assert number == (2 if step == "renamed" else 1)
    assert view(library, None, 3 if number == 2 else 0) == (home.after if number == 2 else home.before)
    assert verify_library(library).ok
    if number == 1:
        assert publish_generation(library) == 2
    assert rollback(library) == 1
    assert view(library) == home.before
    assert verify_library(library).ok


def test_a_kill_at_any_step_of_dropping_a_generation(home: Home, built: Path, tmp_path: Path) -> None:
    """The first one, whose tables are moved one by one."""
    start, log = tmp_path / "start", tmp_path / "points"
    shutil.copytree(built, start)
    publish_generation(start)
    plain = tmp_path / "plain"
    shutil.copytree(start, plain)
    assert home.run(plain, "drop", REELFIND_FAULT_LOG=str(log)) == 0
    assert not (plain / "videos.lance").exists()
    reached = list(points(log))
    assert {"prune.rename 1", "drop.videos 1", "drop.segments 1", "drop.remove 1"} <= set(reached)
    for point in reached:
        library = tmp_path / f"killed at {point}"
        shutil.copytree(start, library)
        assert home.run(library, "drop", REELFIND_FAULT=f"kill {point}") == -signal.SIGKILL, point
        assert view(library, None, 3) == home.after, point
        assert verify_library(library).ok, point
        if point != "drop.remove 1":
            assert home.run(library, "drop") == 0, point
        home.index(library, home.next_bundle)
        assert view(library, None, 3) == home.after, point
        assert sorted(p.name for p in library.iterdir()) == ["CURRENT", "LOCK", "generations", "snapshots"]
        assert [p.name for p in (library / "generations").iterdir()] == [home.next_bundle.checksum[:12]]
        assert verify_library(library).ok, point
        shutil.rmtree(library)


def test_a_kill_at_any_step_of_a_repair(home: Home, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(home.library, start)
    for table, value in (("files", b"touched.mp4"), ("frames", b"\xff\xd8"), ("texts", b"said before")):
        path = data_file(start, table)
        data = bytearray(path.read_bytes())
        data[data.rindex(value) + 1] ^= 1
        path.write_bytes(data)
    assert not verify_library(start).ok
    log = tmp_path / "points"
    plain = tmp_path / "plain"
    shutil.copytree(start, plain)
    assert home.run(plain, repair=True, REELFIND_FAULT_LOG=str(log)) == 0
    reached = list(points(log))
    assert {"repair.files 1", "repaired.files 1", "append.frames 1", "repaired.frames 1"} <= set(reached)
    for point in reached[reached.index("repair.files 1") : reached.index("repaired.frames 1") + 4]:
        library = tmp_path / f"killed at {point}"
        shutil.copytree(start, library)
        assert home.run(library, repair=True, REELFIND_FAULT=f"kill {point}") == -signal.SIGKILL, point
        assert current_number(library) == 1, point
        assert home.run(library, repair=True) == 0, point
        assert view(library) == home.after, point
        assert verify_library(library).ok, point
        shutil.rmtree(library)
