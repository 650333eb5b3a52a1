"""From damage to a healthy library: what is damaged is read again, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
from typer.testing import CliRunner

from indexer.events import IndexSummary
from indexer.library.checksums import CHECKSUMS
from indexer.library.errors import LibraryError
from indexer.library.manifest import published_number, read_snapshot_manifest, snapshot_numbers
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.cli.app import app
from tests.support.toy_bundle import COLOURS, make_toy_bundle, text_embedding
from tests.support.toy_library import data_file
from tests.support.toy_videos import make_video

FILMS = ("red", "green", "blue", "cyan")


class Home:
    """Four films, one of them of three segments, in a library whose tables have one data file each."""

    def __init__(self, root: Path) -> None:
        self.media, self.library = root / "media", root / "library"
        self.bundle = Bundle.open(make_toy_bundle(root / "toy"))
        for colour in FILMS:
            make_video(
                self.media / f"{colour}.mp4", parts=[(colour, 70.0 if colour == "blue" else 2.0)], fps=2
            )
        self.index(self.library)
        self.whole = view(self.library)

    def index(self, library: Path, **options: Any) -> IndexSummary:
        chosen = IndexOptions(**{"workers": 0, **options})
        return index_paths([self.media], library, self.bundle, chosen, lambda _: None)


def view(library: Path) -> dict[str, object]:
    """All that a library has of each film, and the ranking of each colour."""
    snapshot = Snapshot.open(library)
    shown: dict[str, object] = {}
    for video in snapshot.videos(0, 100):
        rows = sorted(
            snapshot.segment_rows(video.video_id), key=lambda row: snapshot.segments([row])[0].start_seconds
        )
        shown[video.file.name] = [
            (
                *(segment.start_seconds, segment.end_seconds, segment.frame_pts_seconds.tolist()),
                *(segment.frame_salience.tolist(), segment.frame_ids),
                [snapshot.thumbnail(frame_id) for frame_id in segment.frame_ids],
                snapshot.frame_tokens(
                    [segment.row] * len(segment.frame_ids), range(len(segment.frame_ids))
                ).tolist(),
            )
            for segment in snapshot.segments(rows)
        ]
    for colour in COLOURS:
        scores, found = snapshot.search(text_embedding(colour)[None], 100)
        shown[colour] = sorted(
            (round(float(score), 5), *segment.frame_ids)
            for score, segment in zip(scores[0], snapshot.segments(found[0]), strict=True)
        )
    return shown


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def library(home: Home, tmp_path: Path) -> Path:
    shutil.copytree(home.library, tmp_path / "library")
    return tmp_path / "library"


def damage_value(path: Path, value: bytes, *, last: bool = False) -> None:
    data = bytearray(path.read_bytes())
    at = data.rindex(value) if last else data.index(value)
    data[at + len(value) // 2] ^= 0x10
    path.write_bytes(data)


def damage_thumbnail_of_red(library: Path) -> None:
    snapshot = Snapshot.open(library)
    (segment,) = snapshot.segments(red_rows(snapshot))
    picture = snapshot.thumbnail(segment.frame_ids[0])
    assert picture is not None
    damage_value(data_file(library, "frames"), picture)


def damage_embedding_of_red(library: Path) -> None:
    embedding = text_embedding("red")
    row = int(red_rows(Snapshot.open(library))[0])
    stored = open_table(library, "segments").take([row], columns=["embedding"])["embedding"][0].as_py()
    assert float(np.asarray(stored) @ embedding) > 0.9
    damage_value(data_file(library, "segments"), np.asarray(stored, np.float32).tobytes())


def damage_all_of(library: Path, table: str) -> None:
    path = data_file(library, table)
    data = bytearray(path.read_bytes())
    data[::5] = bytes(value ^ 0x55 for value in data[::5])
    path.write_bytes(data)


def cut(library: Path, table: str) -> None:
    path = data_file(library, table)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(library: Path, table: str) -> None:
    data_file(library, table).unlink()


def red_rows(snapshot: Snapshot) -> Any:
    (video,) = [video for video in snapshot.videos(0, 10) if video.file.stem == "red"]
    return snapshot.segment_rows(video.video_id)


@pytest.mark.parametrize("damage", [damage_thumbnail_of_red, damage_embedding_of_red])
def test_only_the_damaged_video_is_read_again(home: Home, library: Path, damage: Any) -> None:
    damage(library)
    report = verify_library(library)
    assert not report.ok
    (served,) = report.snapshots
    assert served.damaged_videos == [str(home.media / "red.mp4")]
    summary = home.index(library, repair=True)
    assert (summary.unchanged, summary.verdicts, summary.published) == (3, {"ok": 1}, True)
    assert summary.repaired is not None
    assert summary.repaired.read_again == (str(home.media / "red.mp4"),)
    assert summary.repaired.moved == 3
    assert verify_library(library).ok
    assert view(library) == home.whole


@pytest.mark.parametrize("table", ["videos", "segments", "frames"])
@pytest.mark.parametrize("damage", [damage_all_of, cut, remove])
def test_a_file_of_which_nothing_is_left(home: Home, library: Path, table: str, damage: Any) -> None:
    damage(library, table)
    summary = home.index(library, repair=True)
    assert summary.verdicts == {"ok": 4}
    assert verify_library(library).ok
    assert view(library) == home.whole
    assert snapshot_numbers(library) == [2], "no snapshot is left that needs the damaged file"


@pytest.mark.parametrize("table", ["videos", "segments", "frames"])
def test_damage_anywhere_is_found_and_repaired(home: Home, library: Path, table: str) -> None:
    generator = np.random.default_rng(3)
    content = data_file(library, table).read_bytes()
    for number in range(4):
        copy = library.with_name(f"{table}{number}")
        shutil.copytree(library, copy)
        data = bytearray(content)
        for at in generator.integers(0, len(data), 1 + 20 * number).tolist():
            data[at] ^= 1 << int(generator.integers(8))
        data_file(copy, table).write_bytes(data)
        assert not verify_library(copy).ok
        home.index(copy, repair=True)
        assert verify_library(copy).ok
        assert view(copy) == home.whole


def test_what_was_copied_after_it_was_damaged_is_found_too(home: Home, library: Path) -> None:
    """No checksum of a file tells then: only those of the rows do."""
    table = lance.dataset(str(library / "frames.lance")).to_table()
    place = table.schema.get_field_index("thumbnail")
    column = table["thumbnail"].to_pylist()
    column[5] = b"\xff\xd8 another picture"
    lance.write_dataset(
        table.set_column(place, table.schema.field(place), [column]),
        str(library / "frames.lance"),
        mode="overwrite",
    )
    home.index(library, keep_snapshots=1, keep_seconds=0.0)
    (served,) = verify_library(library).snapshots
    assert len(served.damaged_videos) == 1
    assert not served.damaged_files
    assert home.index(library, repair=True).verdicts == {"ok": 1}
    assert verify_library(library).ok
    assert view(library) == home.whole


def test_a_damaged_video_that_is_not_there_stays(home: Home, library: Path, tmp_path: Path) -> None:
    damage_thumbnail_of_red(library)
    present = [home.media / f"{colour}.mp4" for colour in FILMS if colour != "red"]
    options = IndexOptions(workers=0, repair=True)
    summary = index_paths(present, library, home.bundle, options, lambda _: None)
    assert summary.repaired is not None
    assert summary.repaired.left == (str(home.media / "red.mp4"),)
    assert {video.file.stem for video in Snapshot.of_checked(library, served(library)).videos(0, 10)} == set(
        FILMS
    )
    assert not verify_library(library).ok
    home.index(library, repair=True)
    assert verify_library(library).ok
    assert view(library) == home.whole


def served(library: Path) -> Any:
    return read_snapshot_manifest(library, published_number(library))


def test_a_run_that_finds_no_damage_changes_nothing(home: Home, library: Path) -> None:
    summary = home.index(library, repair=True)
    assert summary.repaired is not None
    assert (summary.published, summary.repaired.files) == (False, ())


def test_an_index_is_not_built_of_damaged_embeddings(home: Home, library: Path) -> None:
    damage_embedding_of_red(library)
    with pytest.raises(LibraryError, match=r"embedding in row \d differs from its checksum.*--repair"):
        home.index(library, index_factory="HNSW8")
    home.index(library, index_factory="HNSW8", repair=True)
    assert verify_library(library).ok


@pytest.mark.parametrize("table", ["videos", "files"])
def test_a_damaged_row_of_a_video_or_a_place_is_not_acted_on(home: Home, library: Path, table: str) -> None:
    (red,) = (video for video in Snapshot.open(library).videos(0, 9) if video.file.name == "red.mp4")
    damage_value(
        data_file(library, table), red.sha256.encode() if table == "videos" else os.fsencode(red.file)
    )
    with pytest.raises(LibraryError, match=rf"{table}\.lance is damaged: the row of .*--repair"):
        home.index(library, prune=True)
    home.index(library, repair=True)
    assert view(library) == home.whole


def test_rows_of_an_older_library_have_no_checksums_and_keep_working(home: Home, library: Path) -> None:
    old_rows = 0
    for name in ("videos", "segments", "frames"):
        dataset = lance.dataset(str(library / f"{name}.lance"))
        old_rows += dataset.count_rows()
        dataset.drop_columns([CHECKSUMS])
    make_video(home.media / "new.mp4", parts=[("white", 1.0)])
    try:
        home.index(library, keep_snapshots=1, keep_seconds=0.0)
        report = verify_library(library)
        assert report.ok
        assert report.rows_without_checksums == old_rows
        damage_all_of_first(library)
        (served_report,) = verify_library(library).snapshots
        assert len(served_report.damaged_videos) == 4
        summary = home.index(library, repair=True)
        assert (summary.verdicts, summary.unchanged) == ({"ok": 4}, 1)
        assert verify_library(library).ok
        assert verify_library(library).rows_without_checksums == 0
    finally:
        (home.media / "new.mp4").unlink()


def damage_all_of_first(library: Path) -> None:
    path = min((library / "frames.lance" / "data").glob("*.lance"), key=lambda p: p.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def test_the_remedy_that_verify_prints_works(home: Home, library: Path) -> None:
    damage_thumbnail_of_red(library)
    runner = CliRunner()
    printed = runner.invoke(app, ["library", "verify", "--library", str(library), "--json"])
    assert printed.exit_code == 3
    remedy = json.loads(printed.stdout)["remedy"]
    command = remedy.split("`")[1]
    result = subprocess.run(
        f"{command.replace('reelfind', f'{sys.executable} -P -m service', 1)} --json --workers 0 --bundle "
        f"{home.bundle.folder}",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["repaired"]["read_again"] == [str(home.media / "red.mp4")]
    assert runner.invoke(app, ["library", "verify", "--library", str(library)]).exit_code == 0
