"""The next generation of a library: built beside the one that is served, published, rolled back, dropped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.events import Event, FileDone, FileStarted, IndexSummary, Note
from indexer.library.errors import BusyError, LibraryError
from indexer.library.folder import Library
from indexer.library.generations import generations, staged
from indexer.library.manifest import current_number, read_snapshot_manifest, snapshot_numbers
from indexer.library.overview import list_generations, videos_lacking
from indexer.library.schema import CUTS
from indexer.library.snapshot import Snapshot
from indexer.library.switching import drop_generation, publish_generation, rollback
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from indexer.stages.base import AnyStage
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.toy_bundle import make_toy_bundle, text_embedding
from tests.support.toy_generations import make_turned_bundle, turned
from tests.support.toy_stages import ColourStage
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

COLOURS = ("blue", "green", "red")


class Home:
    """Media, two bundles, and a library; every test has a copy of the library."""

    def __init__(self, media: Path, library: Path, first: Bundle, second: Bundle) -> None:
        self.media, self.library, self.first, self.second = media, library, first, second
        self.names = {b.checksum: b.checksum[:12] for b in (first, second)}
        self.events: list[Event] = []

    def run(
        self,
        bundle: Bundle,
        *,
        paths: list[Path] | None = None,
        stages: list[AnyStage] | None = None,
        stop_at: int | None = None,
        **options: Any,
    ) -> IndexSummary:
        """Index, in this process; when it begins with file number `stop_at`, the run is asked to stop."""
        self.events = []
        stop = threading.Event()

        def see(event: Event) -> None:
            self.events.append(event)
            if stop_at is not None and sum(isinstance(e, FileStarted) for e in self.events) >= stop_at:
                stop.set()

        chosen = IndexOptions(**{"workers": 0, "keep_seconds": 0.0, **options})
        return index_paths([*(paths or [self.media])], self.library, bundle, chosen, see, stop, stages=stages)

    @property
    def decoded(self) -> list[str]:
        """The files that the last run has decoded."""
        return [event.path.name for event in self.events if isinstance(event, FileDone) and event.verdict]

    def found(self, number: int | None = None) -> list[str]:
        """The file that each colour finds first, with the text of the snapshot's bundle."""
        snapshot = Snapshot.open(self.library, number)
        places = 0 if snapshot.bundle_checksum == self.first.checksum else 3
        best = []
        for colour in COLOURS:
            _, rows = snapshot.search(turned(text_embedding(colour), places)[None], 1)
            record = snapshot.video(snapshot.video_id_of(int(rows[0, 0])))
            assert record is not None
            best.append(record.file.stem)
        return best


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A library that is served, made with the first bundle from three films, one of them with subtitles."""
    root = tmp_path_factory.mktemp("generations")
    first = Bundle.open(make_toy_bundle(root / "first"))
    second = Bundle.open(make_turned_bundle(root / "second", 3))
    for colour in COLOURS:
        make_video(root / f"media/{colour}.mp4", parts=[(colour, 0.5)])
    write_line(root / "media/red.srt", "said in red")
    home = Home(root / "media", root / "library", first, second)
    home.run(first)
    return home


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    shutil.copytree(template.library, tmp_path / "library")
    return Home(template.media, tmp_path / "library", template.first, template.second)


def write_line(path: Path, text: str) -> None:
    path.write_text(f"1\n00:00:00,100 --> 00:00:00,200\n{text}\n")


def hashes(library: Path) -> dict[str, str]:
    return {
        str(path.relative_to(library)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(library.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }


def lines_of(library: Path, number: int | None = None) -> set[tuple[str, str, str]]:
    """Every line of a snapshot: its file, its kind and its text."""
    snapshot = Snapshot.open(library, number)
    return {
        (video.file.name, line.kind, line.text)
        for video in snapshot.videos(0, 100)
        for line in snapshot.lines_between(video.video_id)
    }


def test_the_next_generation_is_built_beside_the_one_that_is_served(home: Home) -> None:
    before = hashes(home.library)
    summary = home.run(home.second)
    after = hashes(home.library)
    assert {name: after.get(name) for name in before} == before, "what is served was touched"
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"generations", "snapshots"}
    name = home.second.checksum[:12]
    assert (summary.generation, summary.served, summary.published, summary.snapshot) == (
        name,
        False,
        False,
        2,
    )
    assert any(isinstance(e, Note) and "is served; this run writes" in e.text for e in home.events)
    assert home.found() == home.found(2) == list(COLOURS)
    assert (current_number(home.library), staged(home.library, 2)) == (1, "complete")
    report = verify_library(home.library)
    assert report.ok
    assert [snapshot.staged for snapshot in report.snapshots] == [None, "complete"]
    states = list_generations(home.library)
    assert [(s.name, s.state, s.snapshot, s.num_videos) for s in states] == [
        (home.first.checksum[:12], "served", 1, 3),
        (name, "complete", 2, 3),
    ]
    assert all(state.bytes > 1000 for state in states)


def test_publishing_and_returning_change_one_number(home: Home) -> None:
    home.run(home.second)
    before = hashes(home.library)
    assert publish_generation(home.library) == 2
    after = hashes(home.library)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"CURRENT", "snapshots/2/staged", "snapshots/1/retired"}
    assert Snapshot.open(home.library).bundle_checksum == home.second.checksum
    assert home.found() == list(COLOURS)
    assert home.run(home.second).unchanged == 3, "the next run continues with the published generation"
    assert current_number(home.library) == 2
    assert rollback(home.library) == 1
    assert home.found() == list(COLOURS)
    assert publish_generation(home.library, home.second.checksum[:5]) == 2
    with pytest.raises(LibraryError, match="is the one that is served: there is nothing to do"):
        publish_generation(home.library, home.second.checksum[:12])
    with pytest.raises(LibraryError, match=r"no generation 'ffff': name one of [0-9a-f]{12} \(toy\)"):
        publish_generation(home.library, "ffff")
    assert verify_library(home.library).ok


def test_texts_of_two_bundles_find_other_things_in_the_segments_of_the_other(home: Home) -> None:
    """So that a mix of generations would show."""
    snapshot = Snapshot.open(home.library)
    _, rows = snapshot.search(turned(text_embedding("red"), 3)[None], 1)
    record = snapshot.video(snapshot.video_id_of(int(rows[0, 0])))
    assert record is not None
    assert record.file.stem != "red"


def test_an_interrupted_build_is_resumed_and_decodes_no_film_twice(home: Home) -> None:
    summary = home.run(home.second, stop_at=2)
    assert summary.interrupted
    first_part = home.decoded
    assert staged(home.library, 2) == "incomplete"
    assert verify_library(home.library).ok, "what is there can be checked"
    with pytest.raises(LibraryError, match="is not complete: run the `reelfind index` that builds it again"):
        publish_generation(home.library)
    with pytest.raises(LibraryError, match="snapshot 2 was never served: `reelfind library publish`"):
        rollback(home.library, 2)
    assert current_number(home.library) == 1
    resumed = home.run(home.second)
    assert sorted(first_part + home.decoded) == ["blue.mp4", "green.mp4", "red.mp4"]
    assert (resumed.unchanged, resumed.num_videos) == (len(first_part), 3)
    assert len(first_part) < 3, "the third film was not begun"
    assert snapshot_numbers(home.library) == [1, 3], "the half-built snapshot is not kept"
    assert publish_generation(home.library) == 3
    assert home.found() == list(COLOURS)
    assert verify_library(home.library).ok


def test_texts_and_cuts_are_carried_over_and_not_read_again(home: Home, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(home.media, media)
    home.media = media
    home.library = tmp_path / "fresh"
    home.run(home.first, stages=[ColourStage()])
    written = lines_of(home.library)
    assert {("red.mp4", "speech", "said in red"), ("red.mp4", "screen", "painted red")} <= written
    stat = (media / "red.srt").stat()
    # Who read it again would find other words: size and time are the same.
    write_line(media / "red.srt", "SAID IN RED")
    os.utime(media / "red.srt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    colours = ColourStage(text="other {}")
    summary = home.run(home.second, stages=[colours])
    assert lines_of(home.library, summary.snapshot) == written
    assert summary.carried == 3
    assert summary.stages["screen"].done_before == 3
    # A subtitle file that has changed is read; what was seen in the film is carried over all the same.
    drop_generation(home.library, home.second.checksum[:12])
    write_line(media / "red.srt", "said in yellow")
    number = home.run(home.second, stages=[]).snapshot
    changed = (written - {("red.mp4", "speech", "said in red")}) | {("red.mp4", "speech", "said in yellow")}
    assert lines_of(home.library, number) == changed
    assert verify_library(home.library).ok


def test_nothing_is_carried_over_to_another_content(home: Home, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(home.media, media)
    home.media, home.library = media, tmp_path / "fresh"
    home.run(home.first, stages=[ColourStage()])
    stat = (media / "red.mp4").stat()
    make_video(media / "red.mp4", parts=[("white", 0.5)])
    data = (media / "red.mp4").read_bytes()
    (media / "red.mp4").write_bytes(data.ljust(stat.st_size, b"\0")[: max(stat.st_size, len(data))])
    os.utime(media / "red.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summary = home.run(home.second, stages=[])
    assert summary.carried == 2
    lines = {line for line in lines_of(home.library, summary.snapshot) if line[0] == "red.mp4"}
    assert {kind for _, kind, _ in lines} == {"name"} or (media / "red.mp4").stat().st_size != stat.st_size
    assert ("red.mp4", "screen", "painted red") not in lines


def test_what_a_stage_finds_later_in_the_served_generation_is_carried_over_too(home: Home) -> None:
    home.run(home.second)
    home.run(home.first, stages=[ColourStage()])
    summary = home.run(home.second, stages=[ColourStage(text="other {}")])
    assert (summary.carried, summary.stages["screen"].done_before) == (3, 3)
    assert lines_of(home.library, summary.snapshot) == lines_of(home.library)
    # A stage of another version reads itself.
    home.run(home.first, stages=[ColourStage(key="colour 2")])
    summary = home.run(home.second, stages=[ColourStage(key="colour 2", text="other {}")])
    assert (summary.carried, summary.stages["screen"].videos) == (0, 3)
    assert ("red.mp4", "screen", "other red") in lines_of(home.library, summary.snapshot)
    assert verify_library(home.library).ok


def test_a_damaged_line_is_not_carried_over_but_read_again(home: Home) -> None:
    (path,) = (home.library / "texts.lance/data").glob("*.lance")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"said in red") + 1] ^= 1
    path.write_bytes(data)
    home.run(home.second)
    assert ("red.mp4", "speech", "said in red") not in lines_of(home.library, 2)
    home.run(home.second)
    assert ("red.mp4", "speech", "said in red") in lines_of(home.library, 3)


def test_pruning_leaves_the_snapshots_of_other_generations(home: Home, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(home.media, media)
    home.media, home.library = media, tmp_path / "fresh"
    home.run(home.first, keep_snapshots=1)
    home.run(home.second, keep_snapshots=1)
    publish_generation(home.library)
    for seconds in (0.6, 0.7, 0.8):
        make_video(media / "red.mp4", parts=[("red", seconds)])
        home.run(home.second, keep_snapshots=1)
    assert snapshot_numbers(home.library) == [1, 5]
    assert current_number(home.library) == 5
    assert rollback(home.library) == 1, "the newest of this generation is the only one left of it"
    assert home.found() == list(COLOURS)
    # While the earlier generation is served, the other one is kept up to date beside it, and not served.
    make_video(media / "green.mp4", parts=[("green", 0.6)])
    summary = home.run(home.second, keep_snapshots=1)
    assert (summary.served, current_number(home.library)) == (False, 1)
    assert snapshot_numbers(home.library) == [1, 5, 6]
    home.run(home.first, keep_snapshots=1)
    assert snapshot_numbers(home.library) == [5, 6, 7]
    assert publish_generation(home.library) == 6
    assert verify_library(home.library).ok


def test_a_rollback_stays_in_its_generation_as_long_as_it_can(home: Home, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(home.media, media)
    home.media, home.library = media, tmp_path / "fresh"

    def change(bundle: Bundle, seconds: float, **options: Any) -> None:
        make_video(media / "red.mp4", parts=[("red", seconds)])
        home.run(bundle, **options)

    home.run(home.first)
    change(home.second, 0.6)  # 2, staged
    change(home.first, 0.7)  # 3
    change(home.second, 0.8)  # 4, staged: 2 goes
    publish_generation(home.library)
    change(home.second, 0.9)  # 5
    assert snapshot_numbers(home.library) == [1, 3, 4, 5]
    assert [rollback(home.library) for _ in range(3)] == [4, 3, 1]
    assert publish_generation(home.library) == 5
    assert rollback(home.library, 3) == 3
    drop_generation(home.library, home.second.checksum[:12], 0.0)
    assert rollback(home.library) == 1
    with pytest.raises(LibraryError, match="no whole snapshot before snapshot 1"):
        rollback(home.library)


def test_a_return_to_another_generation_keeps_what_was_done_for_it(home: Home, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(home.media, media)
    home.media, home.library = media, tmp_path / "fresh"
    home.run(home.first)
    home.run(home.second)
    publish_generation(home.library)
    make_video(media / "red.mp4", parts=[("red", 0.7)])
    home.run(home.first)
    assert home.decoded == ["red.mp4"]
    assert rollback(home.library) == 1
    home.run(home.first)
    assert home.decoded == [], "its tables are ahead of the snapshot that is served again"
    assert (current_number(home.library), home.found()) == (4, list(COLOURS))
    assert verify_library(home.library).ok


def test_dropping_a_generation(home: Home) -> None:
    home.run(home.second)
    first, second = home.first.checksum[:12], home.second.checksum[:12]
    with pytest.raises(LibraryError, match=f"generation {first} of .* is the one that is served"):
        drop_generation(home.library, first, 0.0)
    assert drop_generation(home.library, second[:6], 0.0).name == second
    assert not (home.library / "generations" / second).exists()
    assert snapshot_numbers(home.library) == [1]
    assert verify_library(home.library).ok
    # The first generation, whose tables lie in the library itself.
    home.run(home.second)
    publish_generation(home.library)
    with pytest.raises(LibraryError, match="was served until less than 10 minutes ago"):
        drop_generation(home.library, first)
    reader = Snapshot.open(home.library, 1)
    with pytest.raises(LibraryError, match="is being read by a program on this computer"):
        drop_generation(home.library, first, 0.0)
    assert len(reader.segments([0])) == 1
    del reader
    drop_generation(home.library, first, 0.0)
    assert sorted(path.name for path in home.library.iterdir() if path.name != "LOCK") == [
        "CURRENT",
        "generations",
        "snapshots",
    ]
    assert home.found() == list(COLOURS)
    assert home.run(home.second).unchanged == 3
    assert verify_library(home.library).ok
    # Its bundle may come back, as a further generation.
    home.run(home.first)
    assert generations(home.library) == sorted([first, second])
    publish_generation(home.library)
    assert home.found() == list(COLOURS)
    assert verify_library(home.library).ok


def test_a_library_has_one_writer_whatever_the_generation(home: Home) -> None:
    home.run(home.second)
    actions: list[Callable[[], object]] = [
        lambda: publish_generation(home.library),
        lambda: drop_generation(home.library, home.second.checksum[:12]),
        lambda: rollback(home.library),
        lambda: home.run(home.first),
        lambda: home.run(home.second),
    ]
    with Library.open(home.library).writing():
        for action in actions:
            with pytest.raises(BusyError, match="is being written by process"):
                action()


def test_a_generation_that_is_missing(home: Home) -> None:
    home.run(home.second)
    home.run(home.first, index_factory="Flat")
    publish_generation(home.library)
    shutil.rmtree(home.library / "generations")
    assert not verify_library(home.library).ok
    with pytest.raises(LibraryError, match=r"generations/[0-9a-f]{12}/.*"):
        Snapshot.open(home.library)
    assert rollback(home.library) == 3
    assert home.found() == list(COLOURS)


@pytest.mark.parametrize("is_published", [False, True])
def test_a_generation_that_was_deleted_by_hand_is_built_again(home: Home, is_published: bool) -> None:
    home.run(home.second)
    if is_published:
        publish_generation(home.library)
    shutil.rmtree(home.library / "generations")
    if is_published:
        with pytest.raises(LibraryError, match=r"snapshot 2 is missing: .*`reelfind library rollback"):
            home.run(home.second)
        assert rollback(home.library) == 1
    assert home.run(home.second).unchanged == 0
    publish_generation(home.library)
    assert home.found() == list(COLOURS)
    assert verify_library(home.library).ok


def test_a_generation_that_lacks_a_table(home: Home) -> None:
    home.run(home.second)
    folder = home.library / "generations" / home.second.checksum[:12]
    shutil.rmtree(folder / "frames.lance")
    (state,) = (s for s in list_generations(home.library) if s.state != "served")
    assert (state.name, state.state) == (folder.name, "incomplete")
    with pytest.raises(LibraryError, match=r"is damaged .*frames\.lance"):
        publish_generation(home.library)
    assert home.run(home.first).unchanged == 3, "the one that is served is not concerned"
    drop_generation(home.library, folder.name, 0.0)
    assert verify_library(home.library).ok


def test_a_damaged_generation_is_repaired_beside_the_one_that_is_served(home: Home) -> None:
    home.run(home.second)
    (path,) = (home.library / "generations" / home.second.checksum[:12] / "frames.lance/data").glob("*")
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8") + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(LibraryError, match=r"is damaged .*--repair"):
        publish_generation(home.library)
    remedy = verify_library(home.library).remedy
    assert remedy is not None
    command = f"`reelfind index PATH --library {home.library} --bundle BUNDLE --repair`"
    assert f"of generation {home.second.checksum[:12]}, {command}" in remedy
    repaired = home.run(home.second, repair=True).repaired
    assert repaired is not None
    assert repaired.files == (path,)
    assert publish_generation(home.library) == 3
    assert verify_library(home.library).ok
    assert home.found() == list(COLOURS)


def test_each_generation_has_its_own_options(home: Home) -> None:
    summary = home.run(home.second, tokens="none", index_factory="HNSW32")
    assert read_snapshot_manifest(home.library, 2).index_requested == "HNSW32"
    assert summary.snapshot == 2
    with pytest.raises(InputError, match=r"tokens is int8, but .* was made with none"):
        home.run(home.second, tokens="int8")
    assert home.run(home.second).snapshot == 2, "they are remembered"
    home.run(home.first, tokens="int8")
    assert read_snapshot_manifest(home.library, 1).index_requested == "auto"
    assert Library.open(home.library, home.second.checksum[:12]).layout.tokens == "none"


def test_what_the_new_generation_lacks_is_told(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    shutil.copytree(home.media, elsewhere)
    home.run(home.second, paths=[elsewhere / "red.mp4", home.media / "blue.mp4"])
    lacking = videos_lacking(home.library, 1, 2)
    assert lacking == [str(home.media / "green.mp4")], "red.mp4 is a copy"
    assert videos_lacking(home.library, 1, 1) == []


def test_the_first_generation_has_no_name_in_its_manifests(home: Home) -> None:
    body = json.loads((home.library / "snapshots/1/manifest.json").read_text())
    assert body["format_version"] == 4
    assert "generation" not in body
    assert home.run(home.first).snapshot == 1
    home.run(home.second)
    body = json.loads((home.library / "snapshots/2/manifest.json").read_text())
    assert (body["format_version"], body["generation"]) == (4, home.second.checksum[:12])


def test_ids_of_frames_tell_the_generation(home: Home) -> None:
    home.run(home.second)
    snapshots = [Snapshot.open(home.library, number) for number in (1, 2)]
    ids = [snapshot.segments([0])[0].frame_ids[0] for snapshot in snapshots]
    assert ids[1].startswith(ids[0])
    for i, snapshot in enumerate(snapshots):
        assert snapshot.thumbnail(ids[i]) is not None
        assert snapshot.frame_id(0, 0) == ids[i]
        assert snapshot.thumbnail(ids[1 - i]) is None, "a picture of the other generation may be another one"


def test_embeddings_are_those_of_the_bundle(home: Home) -> None:
    home.run(home.second)
    folders = [home.library, home.library / "generations" / home.second.checksum[:12]]
    first, second = (
        np.stack(
            open_table(folder, "segments").to_table(columns=["embedding"])["embedding"].to_numpy().tolist()
        )
        for folder in folders
    )
    keys = [
        open_table(f, "segments").to_table(columns=["ingest_id"])["ingest_id"].to_pylist() for f in folders
    ]
    tables = [open_table(folder, "videos").to_table(columns=["ingest_id", "video_id"]) for folder in folders]
    videos = [{row["ingest_id"]: row["video_id"] for row in table.to_pylist()} for table in tables]
    second_ids = [videos[1][key] for key in keys[1]]
    order = [second_ids.index(videos[0][key]) for key in keys[0]]
    np.testing.assert_allclose(second[order], [turned(row, 3) for row in first], atol=1e-6)
    assert CUTS in open_table(folders[1], "videos").schema.names
