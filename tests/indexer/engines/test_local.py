"""Decoding in worker processes: crashes, hangs, and that their result is that of decoding in place."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.events import Event, IndexSummary
from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import index_paths, starting_decoder
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from tests.support.processes import children, running, wait_until
from tests.support.toy_bundle import COLOURS, make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def index(bundle: Bundle, library: Path, media: Path, **options: Any) -> IndexSummary:
    return index_paths([media], library, bundle, IndexOptions(**options), lambda _: None)


def verdicts(summary: IndexSummary) -> dict[str, tuple[str, str]]:
    return {f.path.name: (f.verdict, f.reason) for f in summary.failures}


def test_workers_give_what_decoding_in_place_gives(bundle: Bundle, tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS):
        make_video(tmp_path / f"media/{i}.mp4", parts=[(colour, 0.3)])
    make_video(tmp_path / "media/long.mkv", parts=[("red", 40.0), ("blue", 40.0)], fps=2)
    (tmp_path / "media/empty.mp4").touch()
    summaries = [index(bundle, tmp_path / f"{n}", tmp_path / "media", workers=n) for n in (0, 2)]
    assert summaries[0].verdicts == summaries[1].verdicts == {"ok": 9, "corrupt": 1}
    assert verdicts(summaries[0]) == verdicts(summaries[1])
    inline, processes = (Snapshot.open(tmp_path / f"{n}") for n in (0, 2))
    assert inline.num_segments == processes.num_segments == 11
    for row in range(11):
        segment = inline.segments([row])[0]
        twins = processes.segments(processes.segment_rows(segment.video_id))
        twin = next(t for t in twins if t.segment_index == segment.segment_index)
        assert np.array_equal(segment.frame_pts_seconds, twin.frame_pts_seconds)
        assert np.array_equal(segment.frame_salience, twin.frame_salience)
        vectors = inline.index.vectors(np.array([row])), processes.index.vectors(np.array([twin.row]))
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
        assert inline.thumbnail(segment.frame_ids[-1]) == processes.thumbnail(twin.frame_ids[-1])


def test_many_contents_of_one_size(bundle: Bundle, tmp_path: Path) -> None:
    """As dashcams write them. None but the new one is decoded, whatever their number."""
    (tmp_path / "media").mkdir()
    for i in range(1001):
        (tmp_path / f"media/{i}.mp4").write_bytes(f"{i:09}".encode())
    options = {"settle_seconds": 0.0}
    assert index(bundle, tmp_path / "library", tmp_path / "media", workers=0, **options).files == 1001
    for name, i in (("new", 1001), ("copy", 7)):
        (tmp_path / f"media/{name}.mp4").write_bytes(f"{i:09}".encode())
    summary = index(bundle, tmp_path / "library", tmp_path / "media", workers=1, **options)
    assert (summary.verdicts.total(), summary.unchanged, summary.recognised) == (1, 1002, 1)


@pytest.mark.parametrize("point", ["decode.b.mp4", "decoded.b.mp4"])
def test_a_crash_costs_that_file_only(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    for name in "abc":
        make_video(tmp_path / f"media/{name}.mp4", parts=[("red", 33.0)], fps=1)
    monkeypatch.setenv("REELFIND_FAULT", f"kill {point} 1")
    summary = index(bundle, tmp_path / "library", tmp_path / "media", workers=1)
    assert summary.verdicts == {"ok": 2, "corrupt": 1}
    assert verdicts(summary) == {"b.mp4": ("corrupt", "the decoder crashed on it twice (SIGKILL)")}
    assert Snapshot.open(tmp_path / "library").num_segments == 4
    monkeypatch.delenv("REELFIND_FAULT")
    again = index(bundle, tmp_path / "library", tmp_path / "media", workers=1)
    assert (again.unchanged, again.failed_before) == (3, 1)
    retried = index(bundle, tmp_path / "library", tmp_path / "media", workers=1, retry_failed=True)
    assert (retried.verdicts, retried.num_segments) == ({"ok": 1}, 6)


def test_a_decoder_that_hangs_is_given_up(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        make_video(tmp_path / f"media/{name}.mp4", parts=[("red", 0.3)])
    monkeypatch.setenv("REELFIND_FAULT", "hang decode.a.mp4 1")
    options = {"workers": 1, "timeout_seconds": 3.0}
    summary = index(bundle, tmp_path / "library", tmp_path / "media", **options)
    assert summary.verdicts == {"ok": 2, "timed_out": 1}
    assert verdicts(summary) == {"a.mp4": ("timed_out", "no progress for 3 seconds (--timeout)")}
    monkeypatch.delenv("REELFIND_FAULT")
    again = index(bundle, tmp_path / "library", tmp_path / "media", **options)
    assert (again.unchanged, again.failed_before) == (3, 1)


def test_a_worker_imports_nothing_that_only_the_indexer_needs() -> None:
    code = "import sys, indexer.engines.worker; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    assert imported.isdisjoint({"lance", "pyarrow", "faiss", "onnxruntime", "pydantic", "torch"})
    assert "av" in imported


def test_workers_that_cannot_start_are_an_error_not_a_verdict(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    monkeypatch.setattr("indexer.engines.worker_process._WORKER", "raise SystemExit('no such module')")
    with pytest.raises(ReelfindError, match=r"could not be started: exit code 1: no such module"):
        index(bundle, tmp_path / "library", tmp_path / "media", workers=1)


def test_a_decoder_that_starts_early_is_used_and_ended(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    options = IndexOptions(workers=1)
    for paths, library in (([tmp_path / "media"], "some"), ([make_folder(tmp_path / "empty")], "none")):
        begun = set(children(os.getpid()))
        with starting_decoder(options) as starting:
            assert starting is not None
            started: set[int] = set()

            def look(_: Event, begun: set[int] = begun, started: set[int] = started) -> None:
                started |= set(children(os.getpid())) - begun

            summary = index_paths(paths, tmp_path / library, bundle, options, look, starting=starting)
        assert started == {starting.process.pid}
        assert summary.files == (library == "some")
        assert not running(starting.process.pid)
    with starting_decoder(IndexOptions(workers=0)) as starting:
        assert starting is None


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_lies_in_the_current_folder_is_not_imported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    (tmp_path / "media/random.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path / "media")
    assert index(bundle, tmp_path / "library", Path(), workers=1).verdicts == {"ok": 1}


def test_workers_die_with_the_indexer(bundle: Bundle, tmp_path: Path) -> None:
    """Even one that hangs in a decoder, which no closed pipe would end."""
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    code = "import typer; from service.cli.index import index_command; typer.run(index_command)"
    command = [sys.executable, "-c", code, str(tmp_path / "media"), "--workers", "1"]
    command += ["--library", str(tmp_path / "library"), "--bundle", str(bundle.folder)]
    log = tmp_path / "points"
    env = {**os.environ, "REELFIND_FAULT": "hang decode.a.mp4 1", "REELFIND_FAULT_LOG": str(log)}
    parent = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "decode.a.mp4" in log.read_text())
        (decoding,) = children(parent.pid)
        (reading,) = children(decoding)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not running(decoding) and not running(reading))
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_publishes_what_is_done(bundle: Bundle, tmp_path: Path, number: signal.Signals) -> None:
    for name in "abc":
        make_video(tmp_path / f"media/{name}.mp4", parts=[("red", 0.3)])
    code = "import typer; from service.cli.index import index_command; typer.run(index_command)"
    command = [sys.executable, "-c", code, str(tmp_path / "media"), "--workers", "1"]
    command += ["--library", str(tmp_path / "library"), "--bundle", str(bundle.folder)]
    log = tmp_path / "points"
    env = {**os.environ, "REELFIND_FAULT": "hang decode.b.mp4 1", "REELFIND_FAULT_LOG": str(log)}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: log.exists() and "decode.b.mp4" in log.read_text())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number
    assert "what was done is published" in errors
    assert "Traceback" not in errors
    snapshot = Snapshot.open(tmp_path / "library")
    assert [v.file.name for v in snapshot.videos(0, 9)] == ["a.mp4"]
