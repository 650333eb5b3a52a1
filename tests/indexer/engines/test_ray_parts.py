"""What the engine on Ray decides without a cluster: options, how many actors, which file is next, errors."""

from __future__ import annotations

import importlib.util
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from indexer.decode import SPAN_NOT_READ, FileUnreached, FileVerdict, SpanRead, StorageLimits
from indexer.engines.channel import Abort, Channel
from indexer.engines.ray_actors import SpanEnd
from indexer.engines.ray_cluster import ActorPlan, RayOptions, plan_actors
from indexer.engines.ray_files import FileQueue, NoMoreTasks
from indexer.engines.ray_readings import Reading
from indexer.engines.ray_spans import CutFile
from indexer.engines.writing import FileEnd
from indexer.plan import IndexTask
from model.runtime.errors import InputError
from tests.support.command_line import check_error, invoke

HALF, WHOLE = {"num_cpus": 0.5}, {"num_cpus": 1}


@pytest.mark.parametrize(
    ("options", "resources", "plan"),
    [
        (RayOptions(), {"CPU": 2.0}, ActorPlan(1, 2, HALF, HALF)),
        (RayOptions(), {"CPU": 1.0}, ActorPlan(1, 1, HALF, HALF)),
        # A cluster whose nodes are still to come.
        (RayOptions(), {}, ActorPlan(1, 1, HALF, HALF)),
        (RayOptions(decoders=40, encoders=9), {"CPU": 4.0}, ActorPlan(40, 9, HALF, HALF)),
        (
            RayOptions(provider="cuda", gpus=0.5),
            {"CPU": 16.0, "GPU": 2.0},
            ActorPlan(12, 4, WHOLE, {"num_cpus": 1, "num_gpus": 0.5}),
        ),
        (
            RayOptions(provider="cuda", gpus=2.0),
            {"CPU": 4.0, "GPU": 4.0},
            ActorPlan(2, 2, WHOLE, {"num_cpus": 1, "num_gpus": 2.0}),
        ),
        (
            RayOptions(provider="cuda", decoders=64, encoders=8),
            {"CPU": 0.0},
            ActorPlan(64, 8, WHOLE, {"num_cpus": 1, "num_gpus": 1.0}),
        ),
    ],
)
def test_actors_are_as_many_as_the_cluster_holds(
    options: RayOptions, resources: dict[str, float], plan: ActorPlan
) -> None:
    assert plan_actors(options, resources) == plan


def test_a_cluster_without_gpus_must_be_told_how_many_to_wait_for() -> None:
    with pytest.raises(InputError, match="has not so many GPUs now: give `ray_encoders`"):
        plan_actors(RayOptions(provider="cuda"), {"CPU": 8.0, "GPU": 0.0})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--ray-address", "ray://head:10001"],
            "--ray-address is 'ray://head:10001': .* with --ray-address auto",
        ),
        (["--ray-address", "head"], "--ray-address is 'head': it must be HOST:PORT"),
        (["--ray-address", "head:99999"], "must be HOST:PORT"),
        (["--workers", "0"], "--workers is 0: on Ray it must be at least 1"),
        (["--ray-gpus", "1.5"], "--ray-gpus is 1.5: it must be a part of one GPU"),
        (["--ray-gpus", "0"], "--ray-gpus is 0: it must be a part of one GPU"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    library = tmp_path / "library"
    (tmp_path / "media").mkdir()
    result = invoke("index", tmp_path / "media", "--library", library, "--engine", "ray", *arguments)
    check_error(result, 2, said)
    assert not library.exists()


def test_an_option_of_ray_is_refused_without_it(tmp_path: Path) -> None:
    result = invoke("index", tmp_path, "--library", tmp_path / "library", "--ray-encoders", "2")
    check_error(result, 2, "--ray-encoders says nothing without --engine ray")


def test_an_address_where_nothing_answers_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Bound, but nobody listens.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = ["--engine", "ray", "--ray-address", address]
        result = invoke("index", tmp_path, "--library", tmp_path / "library", *engine)
    check_error(result, 2, f"--ray-address is '{address}': no Ray cluster answers there")
    assert not (tmp_path / "library").exists()


def test_without_ray_the_remedy_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_ray(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "ray" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_ray)
    result = invoke("index", tmp_path, "--library", tmp_path / "library", "--engine", "ray")
    check_error(result, 2, "the engine 'ray' is not installed: `.* install ray==2.60.0`")


def queue_of(*names: str) -> FileQueue:
    tasks: Channel[IndexTask | NoMoreTasks] = Channel(len(names) + 1, Abort())
    for name in names:
        tasks.put(IndexTask(Path(name), name, size=7))
    tasks.put(NoMoreTasks())
    return FileQueue(tasks, StorageLimits(megabytes=0.001, bytes_per_byte=0.0), most_ahead=2)


def begin(files: FileQueue, *, is_alone: bool = True) -> Reading:
    attempt = files.next(is_alone=is_alone)
    assert attempt is not None
    return Reading(attempt)


def test_a_file_whose_process_died_is_read_again_alone_and_last() -> None:
    files = queue_of("a", "b")
    first = begin(files)
    first.decoded, first.encoded, first.sent, first.kept = 5, 5, 3, 2
    files.died(first)
    begin(files)
    assert files.next(is_alone=False) is None
    assert not files.is_empty
    again = begin(files).attempt
    assert (again.task.path, again.skip, again.kept, again.again) == (Path("a"), 3, 2, True)
    assert not again.is_first
    assert files.next(is_alone=True) is None
    assert files.is_empty


def test_a_file_that_was_lost_is_read_on_at_once_until_it_is_lost_too_often() -> None:
    files = queue_of("a", "b")
    reading = begin(files)
    for losses in range(1, 4):
        reading.decoded, reading.encoded, reading.sent = 9, 8, losses
        assert files.lost(reading) is None
        assert reading.is_lost
        reading = begin(files, is_alone=False)
        assert (reading.attempt.skip, reading.attempt.losses) == (losses, losses)
    end = files.lost(reading)
    assert end is not None
    assert isinstance(end.outcome, FileUnreached)
    assert "4 times" in end.outcome.reason
    assert begin(files).attempt.task.path == Path("b")
    assert files.next(is_alone=True) is None
    assert files.is_empty


def test_what_this_run_has_read_is_known_by_its_size() -> None:
    files = queue_of("a", "b")
    task = begin(files).attempt.task
    assert files.known_sha256(task) == ()
    files.finished(FileEnd(FileVerdict("ok", None, None, "f" * 64, 7, 1), None))
    files.finished(FileEnd(FileVerdict("corrupt", "damaged", None, "0" * 64, 7, 1), None))
    assert files.known_sha256(task) == ("f" * 64,)


END = FileEnd(FileVerdict("ok", None, None, "f" * 64, 7, 1), None)
EXACT = SpanRead(is_exact=True, stored_bytes=400, bytes=7, mtime_ns=1)


def cut_of(files: FileQueue, count: int) -> tuple[CutFile, Reading]:
    """A file that is cut into so many spans, and the reading of the first one."""
    reading = begin(files)
    assert reading.attempt.may_be_cut
    files.cut(reading, count)
    (cut,) = files.cuts
    return cut, reading


def encoded(cut: CutFile, reading: Reading, read: SpanRead = EXACT) -> None:
    reading.span_end = SpanEnd(read, END if reading.attempt.span == 0 else None)
    cut.encoded(reading)


def stored(cut: CutFile, reading: Reading) -> None:
    assert cut.take_due() is reading
    assert cut.admits(reading)
    cut.add_sent(3, 2)
    cut.stored(reading)


def test_spans_are_stored_in_order_and_read_only_so_far_ahead() -> None:
    files = queue_of("a", "b")
    cut, first = cut_of(files, 4)
    second = begin(files, is_alone=False)
    assert (second.attempt.span, second.attempt.is_first, second.attempt.may_be_cut) == (1, False, True)
    # The third one has to wait until the first one is stored.
    other = begin(files, is_alone=False)
    assert (other.attempt.task.path, other.attempt.cut) == (Path("b"), None)
    encoded(cut, second)
    assert cut.take_due() is None
    encoded(cut, first)
    stored(cut, first)
    assert cut.take_due() is second
    assert cut.take_due() is None
    cut.add_sent(5, 5)
    cut.stored(second)
    third, fourth = begin(files, is_alone=False), begin(files, is_alone=False)
    assert (third.attempt.span, fourth.attempt.span, cut.has_unread) == (2, 3, False)
    assert files.next(is_alone=True) is None
    assert not files.is_empty
    for reading in (third, fourth):
        assert cut.end is None
        encoded(cut, reading, SpanRead(is_exact=True, stored_bytes=100, bytes=7, mtime_ns=1))
        stored(cut, reading)
    assert cut.end is END
    assert (cut.sent, cut.kept) == (14, 11)


def test_a_span_that_is_lost_is_read_again_where_its_rows_end() -> None:
    files = queue_of("a")
    cut, first = cut_of(files, 3)
    first.sent, first.kept = 3, 2
    assert files.lost(first) is None
    again = begin(files, is_alone=False)
    assert (again.attempt.span, again.attempt.skip, again.attempt.kept) == (0, 3, 2)
    assert again.attempt.may_be_cut
    assert not again.attempt.is_first
    for _ in range(2):
        assert files.lost(again) is None
        again = begin(files, is_alone=False)
    end = files.lost(again)
    assert end is not None
    assert isinstance(end.outcome, FileUnreached)
    assert cut not in files.cuts
    assert files.next(is_alone=True) is None
    assert files.is_empty


@pytest.mark.parametrize(
    "read",
    [
        SPAN_NOT_READ,
        SpanRead(is_exact=True, stored_bytes=400, bytes=8, mtime_ns=1),
        SpanRead(is_exact=True, stored_bytes=400, bytes=7, mtime_ns=2),
        # 1,001 bytes in all, of 1,000.
        SpanRead(is_exact=True, stored_bytes=601, bytes=7, mtime_ns=1),
    ],
    ids=["not exact", "another size", "another time", "too much"],
)
def test_a_file_whose_spans_do_not_fit_is_read_on_as_one(read: SpanRead) -> None:
    files = queue_of("a")
    cut, first = cut_of(files, 2)
    second = begin(files, is_alone=False)
    encoded(cut, first)
    stored(cut, first)
    encoded(cut, second, read)
    assert cut.take_due() is second
    assert not cut.admits(second)
    files.read_whole(cut)
    whole = begin(files, is_alone=False).attempt
    assert (whole.skip, whole.kept, whole.cut, whole.again) == (3, 2, None, False)
    assert not whole.may_be_cut
    assert not whole.is_first
    assert files.next(is_alone=True) is None
    assert files.is_empty


def test_a_file_whose_span_kills_its_process_is_read_again_alone_as_one() -> None:
    files = queue_of("a", "b")
    cut, _ = cut_of(files, 2)
    files.read_whole(cut, again=True)
    assert begin(files).attempt.task.path == Path("b")
    assert files.next(is_alone=False) is None
    again = begin(files).attempt
    assert (again.task.path, again.again, again.may_be_cut) == (Path("a"), True, False)
