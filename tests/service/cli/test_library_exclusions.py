"""`reelfind library exclude|remove|include|excluded`, and what the next runs of `reelfind index` do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from indexer.library.curation import Curation
from indexer.library.lock import lock_library
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from tests.support.command_line import check_error, invoke
from tests.support.server import REELFIND, clean_environment
from tests.support.toy_library import ToyLibrary, make_library

FILMS = {
    "red.mp4": [("red", 0.5)],
    "attic/green.mp4": [("green", 0.5)],
    "attic/old/blue.mp4": [("blue", 0.5)],
}


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, FILMS)


def run(toy: ToyLibrary, command: str, *arguments: str | Path) -> dict[str, Any]:
    result = invoke("library", command, *arguments, "--library", toy.library, "--json")
    assert result.exit_code == 0, result.output
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def names(toy: ToyLibrary) -> list[str]:
    """The videos that are stored in the snapshot that is served."""
    return sorted(video.file.name for video in Snapshot.open(toy.library).videos(0, 100))


def found(toy: ToyLibrary) -> list[str]:
    """The videos that a search finds."""
    result = invoke("search", "red", *toy.options, "--json", "--top-k", "10")
    return sorted({Path(hit["path"]).name for hit in json.loads(result.stdout)["hits"]})


def id_of(toy: ToyLibrary, name: str) -> str:
    return next(v.video_id for v in Snapshot.open(toy.library).videos(0, 9) if v.file.name == name)


def test_a_folder_is_excluded_with_what_will_be_in_it(toy: ToyLibrary) -> None:
    outcome = run(toy, "exclude", toy.media / "attic", "--reason", "private")
    assert (outcome["kind"], outcome["hidden"], outcome["removed"]) == ("excluded", 2, 2)
    assert names(toy) == found(toy) == ["red.mp4"]
    toy.film("attic/new.mp4", [("white", 0.5)])
    summary = toy.index()
    assert summary.passed_over["excluded"] == 3
    assert (summary.files, summary.verdicts, names(toy)) == (1, {}, ["red.mp4"])
    (rule,) = run(toy, "excluded")["excluded"]
    assert (rule["path"], rule["reason"]) == (str(toy.media / "attic"), "private")
    listed = invoke("library", "excluded", "--library", toy.library)
    assert "private" in listed.stdout
    outcome = run(toy, "include", toy.media / "attic")
    assert outcome["included"] == 1
    toy.index()
    assert names(toy) == found(toy) == ["blue.mp4", "green.mp4", "new.mp4", "red.mp4"]


def test_a_content_is_excluded_wherever_it_is(toy: ToyLibrary) -> None:
    shutil.copy(toy.media / "attic/green.mp4", toy.media / "copy.mp4")
    run(toy, "exclude", id_of(toy, "green.mp4"))
    for _ in range(2):
        summary = toy.index()
        assert names(toy) == ["blue.mp4", "red.mp4"]
    # Both places are known: neither file is read again.
    assert (summary.files, summary.passed_over["excluded"]) == (1 + 1, 2)
    shutil.move(toy.media / "copy.mp4", toy.media / "moved.mp4")
    toy.index()
    assert names(toy) == ["blue.mp4", "red.mp4"]
    run(toy, "include", toy.media / "attic/green.mp4")
    toy.index()
    assert {"green.mp4", "moved.mp4"} & set(names(toy))


def test_of_copies_one_place_may_be_excluded(toy: ToyLibrary) -> None:
    """What is found by the name of the place is gone too."""
    shutil.copy(toy.media / "red.mp4", toy.media / "attic/secret.mp4")
    (toy.media / "red.mp4").unlink()
    toy.index()
    shutil.copy(toy.media / "attic/secret.mp4", toy.media / "scarlet.mp4")
    toy.index()
    assert Snapshot.open(toy.library).find_lines("secret", 5)
    outcome = run(toy, "exclude", toy.media / "attic/secret.mp4")
    assert (outcome["hidden"], outcome["removed"]) == (0, 0)
    snapshot = Snapshot.open(toy.library)
    assert names(toy) == found(toy) == ["blue.mp4", "green.mp4", "scarlet.mp4"]
    assert not snapshot.find_lines("secret", 5)
    assert [line.text for line in snapshot.find_lines("scarlet", 5)] == ["scarlet"]


def test_a_file_that_becomes_an_excluded_content_leaves_the_library(toy: ToyLibrary) -> None:
    run(toy, "exclude", id_of(toy, "green.mp4"))
    shutil.copyfile(toy.media / "attic/green.mp4", toy.media / "red.mp4")
    assert toy.index().removed == 1
    assert names(toy) == ["blue.mp4"]


def test_what_is_removed_comes_back_only_as_another_file(toy: ToyLibrary) -> None:
    green = toy.media / "attic/green.mp4"
    outcome = run(toy, "remove", toy.media / "attic")
    assert (outcome["kind"], outcome["hidden"], outcome["removed"]) == ("removed", 2, 2)
    toy.film("attic/new.mp4", [("white", 0.5)])
    os.utime(green, ns=(1, 1))
    toy.index()
    # The folder is not excluded, and a file with another time has the same content.
    assert names(toy) == ["new.mp4", "red.mp4"]
    assert len(run(toy, "excluded")["excluded"]) == 2
    kept = green.read_bytes()
    green.unlink()
    toy.index()
    (left,) = run(toy, "excluded")["excluded"]
    assert left["places"] == [str(toy.media / "attic/old/blue.mp4")]
    green.write_bytes(kept)
    toy.index()
    assert names(toy) == ["green.mp4", "new.mp4", "red.mp4"]
    run(toy, "include", left["video_id"])
    toy.index()
    assert "blue.mp4" in names(toy)


def test_while_a_run_holds_the_lock_it_is_hidden_and_the_next_run_removes_it(toy: ToyLibrary) -> None:
    with lock_library(toy.library):
        result = invoke("library", "remove", id_of(toy, "green.mp4"), "--library", toy.library, "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["removed"] is None
        assert "the next `reelfind index` removes" in result.stderr
        assert "green.mp4" in names(toy)
        assert found(toy) == ["blue.mp4", "red.mp4"]
        # Undone before anything was removed.
        assert run(toy, "include", toy.media / "attic/green.mp4")["shown_again"] == 1
        assert found(toy) == ["blue.mp4", "green.mp4", "red.mp4"]
        run_locked = invoke("library", "exclude", toy.media / "attic", "--library", toy.library)
        assert run_locked.exit_code == 0
    assert toy.index().removed == 2
    assert names(toy) == ["red.mp4"]


def test_all_may_be_excluded(toy: ToyLibrary) -> None:
    assert run(toy, "exclude", toy.media)["removed"] == 3
    assert names(toy) == []
    assert invoke("search", "red", *toy.options).exit_code == 1
    assert verify_library(toy.library).ok


def test_what_is_not_there_is_refused_with_a_remedy(toy: ToyLibrary) -> None:
    for command, target, words in (
        ("exclude", toy.media / "none", "no file or folder"),
        ("exclude", "0123456789abcdef", "no file or folder"),
        ("remove", toy.library, "no video at or below"),
        ("include", toy.media, "`reelfind library excluded` lists"),
    ):
        check_error(invoke("library", command, target, "--library", toy.library), 2, words)
    run(toy, "exclude", toy.media / "attic")
    inside = invoke("library", "include", toy.media / "attic/green.mp4", "--library", toy.library)
    check_error(inside, 2, "attic is: include that")
    check_error(
        invoke("library", "exclude", toy.media, "--reason", "x" * 501, "--library", toy.library), 2, "501"
    )


def test_with_a_damaged_file_nothing_is_indexed_and_searches_are_answered(toy: ToyLibrary) -> None:
    run(toy, "exclude", toy.media / "attic")
    (toy.library / "curation.sqlite").write_bytes(b"no database " * 2000)
    for command in (
        ("index", toy.media, "--library", toy.library, "--workers", "0", "--bundle", toy.bundle),
        ("library", "excluded", "--library", toy.library),
        ("library", "exclude", toy.media, "--library", toy.library),
    ):
        check_error(invoke(*command), 3, "restore it from a backup")
    result = invoke("search", "red", *toy.options)
    assert result.exit_code == 0
    assert "restore it from a backup" in result.stderr
    verified = invoke("library", "verify", "--library", toy.library)
    assert verified.exit_code == 3
    assert "restore it from a backup" in verified.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["curation.commit", "curation.committed", "delete.videos", "deleted.segments", "publish.rename"]
)
def test_a_kill_in_the_middle_leaves_a_whole_library(toy: ToyLibrary, point: str) -> None:
    command = [*REELFIND, "library", "exclude", str(toy.media / "attic"), "--library", str(toy.library)]
    environment = clean_environment() | {"REELFIND_FAULT": f"kill {point} 1"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert verify_library(toy.library).ok
    is_stored = point != "curation.commit"
    assert bool(Curation(toy.library).read().exclusions) == is_stored
    assert found(toy) == (["red.mp4"] if is_stored else ["blue.mp4", "green.mp4", "red.mp4"])
    toy.index()
    assert names(toy) == found(toy)
    assert verify_library(toy.library).ok
