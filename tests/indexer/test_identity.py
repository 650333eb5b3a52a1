"""A video is its content: renaming, moving and copying files costs a hash, and hits name a place."""

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import pytest

from indexer.events import IndexSummary
from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.files import sha256_of
from tests.support.toy_bundle import make_toy_bundle, text_embedding
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


class Home:
    """A folder of videos, and a library of it."""

    def __init__(self, bundle: Bundle, root: Path) -> None:
        self.bundle = bundle
        self.media, self.library = root / "media", root / "library"
        self.media.mkdir()

    def film(self, name: str, colour: str) -> Path:
        return make_video(self.media / name, parts=[(colour, 0.5)])

    def index(self, *paths: Path, **options: Any) -> IndexSummary:
        chosen = IndexOptions(**{"workers": 0, **options})
        summary = index_paths(paths or [self.media], self.library, self.bundle, chosen, lambda _: None)
        assert verify_library(self.library).ok
        return summary

    def snapshot(self) -> Snapshot:
        return Snapshot.open(self.library)

    def places(self) -> dict[str, list[tuple[str, bool]]]:
        """The places of each video, relative to the media, and whether it is missing there; by its id."""
        return {
            video.video_id: [
                (os.path.relpath(file.path, self.media), file.missing_since is not None)
                for file in video.files
            ]
            for video in self.snapshot().videos(0, 99)
        }

    def found(self, colour: str) -> tuple[str, str]:
        """The id and the path of the best hit for a colour."""
        snapshot = self.snapshot()
        (row,) = snapshot.search(text_embedding(colour)[None], 1)[1][0].tolist()
        label = snapshot.label(snapshot.video_id_of(row))
        assert label is not None
        return snapshot.video_id_of(row), label.path

    def said(self, words: str) -> list[str]:
        return [line.text for line in self.snapshot().find_lines(words, 9)]


@pytest.fixture
def home(bundle: Bundle, tmp_path: Path) -> Home:
    return Home(bundle, tmp_path)


def test_a_renamed_video_keeps_its_id_and_all_that_is_known_of_it(home: Home) -> None:
    film = home.film("harbour.mp4", "red")
    film.with_suffix(".en.srt").write_text("1\n00:00:00,100 --> 00:00:00,300\nsaid once\n")
    home.index()
    before, _ = home.found("red")
    assert before == sha256_of(film)[:32]
    frame_id = home.snapshot().frame_id(0, 0)
    versions = [lance.dataset(str(home.library / f"{name}.lance")).version for name in ("segments", "frames")]
    (home.media / "2024").mkdir()
    film.rename(home.media / "2024/bridge.mp4")
    film.with_suffix(".en.srt").rename(home.media / "2024/bridge.en.srt")
    summary = home.index()
    assert (summary.recognised, summary.moved, summary.vanished, summary.verdicts) == (1, 1, 0, {})
    assert home.places() == {before: [("2024/bridge.mp4", False)]}
    assert home.snapshot().thumbnail(frame_id)
    assert (home.said("bridge"), home.said("harbour"), home.said("once")) == (["bridge"], [], ["said once"])
    assert [
        lance.dataset(str(home.library / f"{name}.lance")).version for name in ("segments", "frames")
    ] == versions
    again = home.index()
    assert (again.unchanged, again.published) == (1, False), "the subtitles are the same"


@pytest.mark.parametrize("workers", [0, 1])
def test_copies_are_one_video_and_are_decoded_once(home: Home, workers: int) -> None:
    film = home.film("a.mp4", "red")
    home.film("b.mp4", "blue")
    for name in ("c.mp4", "d.mp4"):
        shutil.copy(film, home.media / name)
    summary = home.index(workers=workers)
    assert (summary.verdicts, summary.num_videos) == ({"ok": 2}, 2)
    assert (summary.unchanged, summary.recognised) == (2, 2)
    video_id, path = home.found("red")
    assert home.places()[video_id] == [("a.mp4", False), ("c.mp4", False), ("d.mp4", False)]
    assert path == str(film)
    film.unlink()
    summary = home.index()
    assert (summary.moved, summary.vanished, summary.removed) == (1, 0, 0)
    assert home.found("red") == (video_id, str(home.media / "c.mp4"))


def test_what_is_missing_is_marked_and_is_the_same_when_it_is_found_again(home: Home, tmp_path: Path) -> None:
    film = home.film("a.mp4", "red")
    home.film("b.mp4", "blue")
    home.index()
    film.rename(tmp_path / "away.mp4")
    summary = home.index()
    assert (summary.vanished, summary.removed) == (1, 0)
    video_id, _ = home.found("red")
    assert home.places()[video_id] == [("a.mp4", True)]
    label = home.snapshot().label(video_id)
    assert label is not None
    assert label.missing
    (tmp_path / "away.mp4").rename(film)
    summary = home.index()
    assert (summary.verdicts, summary.unchanged, summary.vanished) == ({}, 2, 0)
    assert home.places()[video_id] == [("a.mp4", False)]


def test_what_is_missing_for_long_is_forgotten_wherever_it_was(home: Home, tmp_path: Path) -> None:
    make_video(tmp_path / "other/a.mp4", parts=[("red", 0.5)])
    home.film("b.mp4", "blue")
    home.index(home.media, tmp_path / "other")
    (tmp_path / "other/a.mp4").unlink()
    home.index(home.media, tmp_path / "other")
    assert home.index(forget_missing_days=1.0).num_videos == 2
    path = str(home.library / "files.lance")
    for row in lance.dataset(path).to_table().to_pylist():
        if row["missing_since"] is not None:
            long_ago = datetime.now(UTC) - timedelta(days=2)
            _set_missing_since(home, row["path"], long_ago)
    summary = home.index(forget_missing_days=3.0)
    assert (summary.removed, summary.num_videos) == (0, 2)
    summary = home.index(forget_missing_days=1.0)
    assert (summary.removed, summary.num_videos) == (1, 1)


def _set_missing_since(home: Home, path: bytes, time: datetime) -> None:
    """As if an earlier run had missed a file."""
    library = Library.open(home.library)
    with library.writing():
        writer = LibraryWriter(library)
        writer.put_file(replace(writer.files[path], missing_since=time))
        writer.flush()
        publish(writer, PublishOptions(), last=True)


def test_a_file_with_another_content_is_another_video(home: Home) -> None:
    film = home.film("a.mp4", "red")
    shutil.copy(film, home.media / "copy.mp4")
    home.index()
    red, _ = home.found("red")
    make_video(film, parts=[("blue", 0.7)])
    summary = home.index()
    assert (summary.verdicts, summary.num_videos) == ({"ok": 1}, 2)
    blue, path = home.found("blue")
    assert (path, home.places()) == (str(film), {red: [("copy.mp4", False)], blue: [("a.mp4", False)]})
    make_video(home.media / "copy.mp4", parts=[("green", 0.9)])
    assert home.index().num_videos == 2
    assert red not in home.places(), "nothing is left of what was overwritten"


def test_subtitles_of_the_first_place_count(home: Home) -> None:
    film = home.film("a.mp4", "red")
    (home.media / "copies").mkdir()
    shutil.copy(film, home.media / "copies/b.mp4")
    film.with_suffix(".srt").write_text("1\n00:00:00,100 --> 00:00:00,300\nsaid first\n")
    (home.media / "copies/b.srt").write_text("1\n00:00:00,100 --> 00:00:00,300\nsaid second\n")
    home.index()
    assert home.said("said") == ["said first"]
    for paths in ([home.media / "copies"], [home.media]):
        assert home.index(*paths).lines == 0
        assert home.said("said") == ["said first"]
    film.unlink()
    film.with_suffix(".srt").unlink()
    home.index()
    home.index()
    assert home.said("said") == ["said second"]


def test_moved_from_one_folder_to_another_that_is_indexed_alone(home: Home, tmp_path: Path) -> None:
    film = home.film("a.mp4", "red")
    home.index()
    (tmp_path / "archive").mkdir()
    film.rename(tmp_path / "archive/a.mp4")
    summary = home.index(tmp_path / "archive")
    assert (summary.recognised, summary.verdicts) == (1, {})
    assert home.found("red")[1] == str(tmp_path / "archive/a.mp4")


def test_a_linked_folder_and_the_folder_itself_have_the_same_files(home: Home, tmp_path: Path) -> None:
    make_video(tmp_path / "disk/a.mp4", parts=[("red", 0.5)])
    (home.media / "disk").symlink_to(tmp_path / "disk")
    home.film("b.mp4", "blue")
    home.index()
    red, path = home.found("red")
    assert path == str(tmp_path / "disk/a.mp4")
    summary = home.index(tmp_path, home.media, tmp_path / "disk")
    assert (summary.files, summary.unchanged, summary.recognised) == (2, 2, 0)
    assert len(home.places()[red]) == 1
    (tmp_path / "disk").rename(tmp_path / "not mounted")
    summary = home.index(prune=True)
    assert (summary.removed, home.places()[red]) == (0, [("../disk/a.mp4", True)])
    (tmp_path / "not mounted").rename(tmp_path / "disk")
    assert home.index().unchanged == 2
    assert home.places()[red] == [("../disk/a.mp4", False)]
