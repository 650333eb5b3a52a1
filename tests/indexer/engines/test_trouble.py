"""Decoding processes that die, hang, or send what they should not: what becomes of file and run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.engines import worker_process
from indexer.events import Event, IndexSummary, Note, SegmentEncoded
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError, ReelfindError
from model.runtime.files import sha256_of
from tests.support.copies import distinct_copy
from tests.support.hostile_decoder import COMMAND
from tests.support.processes import children, decoding_processes
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments."""
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", parts=[("red", 33.0)], fps=1)


def index(
    bundle: Bundle,
    library: Path,
    media: Path,
    on_event: Callable[[Event], None] = lambda _: None,
    **options: Any,
) -> IndexSummary:
    return index_paths([media], library, bundle, IndexOptions(**options), on_event)


def reasons(summary: IndexSummary) -> dict[str, str]:
    return {failure.path.stem: f"{failure.verdict}: {failure.reason}" for failure in summary.failures}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of media; decoders are those of `hostile_decoder`."""
    private, media = tmp_path / "private", tmp_path / "media"
    private.mkdir()
    media.mkdir()
    (private / "secret").write_text("secret")
    monkeypatch.setenv("HOSTILE_SECRET", str(private / "secret"))
    monkeypatch.setattr(worker_process, "_WORKER", COMMAND)
    return media


def test_messages_of_a_hostile_decoder_are_a_verdict_and_no_more(
    bundle: Bundle, tmp_path: Path, hostile: Path, clip: Path
) -> None:
    for name in ("a", "pickles", "noise", "bit by bit", "z"):
        distinct_copy(clip, hostile / f"{name}.mp4")
    library = tmp_path / "library"
    summary = index(bundle, library, hostile, workers=1, timeout_seconds=2.0)
    assert summary.verdicts == {"ok": 2, "corrupt": 2, "timed_out": 1}
    found = reasons(summary)
    assert found["pickles"].startswith("corrupt: the decoder sent a message of ")
    assert found["noise"].startswith("corrupt: the decoder sent a message of ")
    assert found["bit by bit"] == "timed_out: no progress for 2 seconds (--timeout)"
    assert sorted(path.name for path in (tmp_path / "private").iterdir()) == ["secret"]
    snapshot = Snapshot.open(library)
    assert {v.file.stem: v.num_segments for v in snapshot.videos(0, 9) if v.num_segments} == {"a": 2, "z": 2}
    assert verify_library(library).ok


def test_a_hostile_subtitle_file_costs_its_own_lines_alone(
    bundle: Bundle, tmp_path: Path, hostile: Path, clip: Path
) -> None:
    distinct_copy(clip, hostile / "film.mp4")
    for tag in ("die", "han", "raw", "spy", "eng"):
        (hostile / f"film.{tag}.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nall is well\n")
    library = tmp_path / "library"
    summary = index(bundle, library, hostile, workers=1, timeout_seconds=2.0)
    assert summary.verdicts == {"ok": 1}
    found = {p.path.suffixes[0]: f"{p.verdict}: {p.reason}" for p in summary.text_problems}
    assert found.keys() == {".die", ".han", ".raw"}
    assert found[".die"].startswith("corrupt: its reader crashed (SIGSEGV")
    assert found[".han"] == "timed_out: its reader made no progress, or took too long"
    assert found[".raw"].startswith("corrupt: its reader sent a message of ")
    snapshot = Snapshot.open(library)
    assert {line.text for line in snapshot.find_lines("well last", 5)} == {"all is well", "last words"}
    assert snapshot.find_lines("secret", 5) == []
    assert [line.text for line in snapshot.find_lines("blocked", 5)] == ["blocked"]
    assert verify_library(library).ok
    assert index(bundle, library, hostile, workers=1).published is False


def test_a_file_has_a_time_limit_in_all_and_keeps_what_was_read(
    bundle: Bundle, tmp_path: Path, hostile: Path, clip: Path
) -> None:
    for name in ("alive for ever", "never begins", "z"):
        distinct_copy(clip, hostile / f"{name}.mp4")
    summary = index(bundle, tmp_path / "library", hostile, workers=1, file_timeout_seconds=4.0)
    assert summary.verdicts == {"ok": 1, "partial": 1, "timed_out": 1}
    reason = "took longer than 4 seconds in all (--file-timeout)"
    assert reasons(summary) == {
        "alive for ever": f"partial: {reason}",
        "never begins": f"timed_out: {reason}",
    }
    videos = {v.file.stem: v for v in Snapshot.open(tmp_path / "library").videos(0, 9)}
    kept, whole = videos["alive for ever"], videos["z"]
    assert (kept.num_segments, whole.num_segments) == (1, 2)
    assert (kept.sha256, kept.duration_seconds) == (sha256_of(hostile / "alive for ever.mp4"), 33.0)
    # It is not read again before it changes.
    assert index(bundle, tmp_path / "library", hostile, workers=1).unchanged == 3


def test_a_decoder_that_is_killed_is_tried_again(bundle: Bundle, tmp_path: Path) -> None:
    """As by the kernel when memory runs out: nothing is lost, and nothing is there twice."""
    make_video(tmp_path / "media/long.mkv", parts=[("red", 320.0), ("blue", 320.0)], fps=1)
    make_video(tmp_path / "media/short.mp4", parts=[("green", 0.5)])
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        if isinstance(event, SegmentEncoded) and event.path.stem == "long" and not killed:
            (decoding,) = decoding_processes(os.getpid())
            killed.extend(children(decoding))
            for process in killed:
                os.kill(process, signal.SIGKILL)

    summary = index(bundle, tmp_path / "library", tmp_path / "media", kill_once, workers=1)
    assert len(killed) == 1
    assert (summary.verdicts, summary.failures) == ({"ok": 2}, [])
    snapshot = Snapshot.open(tmp_path / "library")
    video = next(v for v in snapshot.videos(0, 9) if v.file.stem == "long")
    segments = snapshot.segments(snapshot.segment_rows(video.video_id))
    assert [s.segment_index for s in segments] == list(range(20))
    assert [s.start_seconds for s in segments] == [32.0 * i for i in range(20)]


def test_a_second_try_has_the_machine_for_itself(
    bundle: Bundle, tmp_path: Path, hostile: Path, clip: Path
) -> None:
    for name in ("die once", "slow 1", "slow 2", "slow 3"):
        distinct_copy(clip, hostile / f"{name}.mp4")
    summary = index(bundle, tmp_path / "library", hostile, workers=2, sandbox="off")
    assert (summary.verdicts, summary.num_segments) == ({"ok": 4}, 8)
    lines = [line.split(" ", 2) for line in (tmp_path / "private/at work").read_text().splitlines()]
    at_work: set[str] = set()
    together = set()
    for _, what, name in sorted(lines, key=lambda line: float(line[0])):
        at_work ^= {name}
        if len(at_work) > 1:
            together |= at_work
        assert what == ("begin" if name in at_work else "end")
    # The others were at work at the same time.
    assert together
    assert "die once" not in together


def test_a_decoding_process_that_is_killed_in_the_middle_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    """The one that forks the others: what it was decoding is tried again."""
    make_video(tmp_path / "media/long.mkv", parts=[("red", 320.0), ("blue", 320.0)], fps=1)
    make_video(tmp_path / "media/short.mp4", parts=[("green", 0.5)])
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        if isinstance(event, SegmentEncoded) and event.path.stem == "long" and not killed:
            killed.extend(decoding_processes(os.getpid()))
            os.kill(killed[0], signal.SIGTERM)

    summary = index(bundle, tmp_path / "library", tmp_path / "media", kill_once, workers=1)
    assert len(killed) == 1
    assert (summary.verdicts, summary.num_segments) == ({"ok": 2}, 21)


def test_a_decoding_process_that_is_killed_while_it_starts_is_started_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path
) -> None:
    mark = tmp_path / "killed"
    code = (
        f"import os, signal, pathlib; mark = pathlib.Path({str(mark)!r})\n"
        "if mark.stat().st_size < LIMIT: mark.open('a').write('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "from indexer.engines.worker import run_worker; run_worker()"
    )
    for limit in (2, 3):
        mark.write_text("")
        monkeypatch.setattr(worker_process, "_WORKER", code.replace("LIMIT", str(limit)))
        if limit == 2:
            assert index(bundle, tmp_path / "library", clip, workers=1).verdicts == {"ok": 1}
        else:
            with pytest.raises(ReelfindError, match="could not be started: SIGKILL"):
                index(bundle, tmp_path / "other", clip, workers=1)
        assert mark.stat().st_size == limit


def test_a_file_that_needs_more_memory_than_it_may_have_costs_that_file_only(
    bundle: Bundle, tmp_path: Path
) -> None:
    make_video(tmp_path / "media/large.mp4", parts=[("red", 0.4)], size=(8192, 6144))
    make_video(tmp_path / "media/small.mp4", parts=[("red", 0.4)])
    summary = index(bundle, tmp_path / "library", tmp_path / "media", workers=1, worker_memory=512)
    assert "small" not in reasons(summary)
    assert reasons(summary)["large"].startswith(("corrupt", "partial"))
    enough = index(bundle, tmp_path / "other", tmp_path / "media", workers=1)
    assert enough.verdicts == {"ok": 2}


def test_what_confines_the_decoders_is_told_once(bundle: Bundle, tmp_path: Path, clip: Path) -> None:
    for name in "abcd":
        (tmp_path / "media").mkdir(exist_ok=True)
        distinct_copy(clip, tmp_path / f"media/{name}.mp4")
    for workers, told in ((2, "decoders are confined"), (0, "they run in the indexer's own process")):
        events: list[Event] = []
        library = tmp_path / f"library {workers}"
        index(bundle, library, tmp_path / "media", events.append, workers=workers)
        notes = [event.text for event in events if isinstance(event, Note)]
        assert len([text for text in notes if text.startswith("decoders are")]) == 1
        assert told in " ".join(notes)


def test_options_that_do_not_fit_are_refused() -> None:
    for options, message in (
        ({"sandbox": "required", "workers": 0}, "sandbox is 'required', but with 0 `workers`"),
        ({"sandbox": "on"}, "sandbox is 'on': it must be one of auto, required, off"),
        ({"worker_memory": 100}, "worker_memory is 100: it must be at least 512 MiB"),
        ({"file_timeout_seconds": 0.0}, "file_timeout_seconds is 0.0: it must be more than 0 seconds"),
    ):
        with pytest.raises(InputError, match=message):
            IndexOptions(**options)
