"""Bytes that change under an open snapshot: what is read is right, or refused by name."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from indexer.library.errors import LibraryError
from indexer.library.snapshot import Snapshot
from tests.support.toy_library import ToyLibrary, data_file, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def library(toy: ToyLibrary, tmp_path: Path) -> Path:
    shutil.copytree(toy.library, tmp_path / "library")
    return tmp_path / "library"


def salience(snapshot: Snapshot) -> list[bytes]:
    return [snapshot.segment_frames([row]).salience.tobytes() for row in range(snapshot.num_segments)]


#: What a snapshot shows of each row, read row by row, so that one that is refused hides no other.
Reading = Callable[[], object]


def readings(snapshot: Snapshot) -> dict[str, Reading]:
    read: dict[str, Reading] = {}

    def add(row: int) -> None:
        (segment,) = snapshot.segments([row])
        read[f"times of segment {row}"] = lambda: snapshot.segments([row])[0].frame_pts_seconds.tobytes()
        read[f"salience of segment {row}"] = lambda: snapshot.segment_frames([row]).salience.tobytes()
        for frame, frame_id in enumerate(segment.frame_ids):
            read[f"tokens of {frame_id}"] = lambda f=frame: snapshot.frame_tokens([row], [f]).tobytes()  # type: ignore[misc]
            read[f"thumbnail of {frame_id}"] = lambda i=frame_id: snapshot.thumbnail(i)  # type: ignore[misc]

    for row in range(snapshot.num_segments):
        add(row)
    return read


@pytest.mark.parametrize("table", ["segments", "frames"])
def test_no_changed_byte_changes_what_is_read(library: Path, table: str) -> None:
    snapshot = Snapshot.open(library)
    reading = readings(snapshot)
    whole = {name: read() for name, read in reading.items()}
    path = data_file(library, table)
    content = path.read_bytes()
    generator = np.random.default_rng(5)
    refused: list[str] = []
    for at in generator.choice(len(content), 12, replace=False).tolist():
        damaged = bytearray(content)
        for place in (at, *generator.integers(0, len(content), 60).tolist()):
            damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        for name, read in reading.items():
            try:
                assert read() == whole[name], f"byte {at}: {name} has changed silently"
            except LibraryError as error:
                refused.append(str(error))
    assert refused
    assert all(f"{table}.lance" in message for message in refused)
    path.write_bytes(content)
    assert {name: read() for name, read in reading.items()} == whole


def test_few_reads_are_under_way_at_once(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    take, lock = lance.LanceDataset.take, threading.Lock()
    under_way = most = 0

    def counted(*args: Any, **options: Any) -> object:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        try:
            time.sleep(0.02)
            return take(*args, **options)
        finally:
            with lock:
                under_way -= 1

    monkeypatch.setattr(lance.LanceDataset, "take", counted)
    cores = os.cpu_count() or 2
    snapshot = Snapshot.open(toy.library)
    expected = salience(snapshot)
    with ThreadPoolExecutor(8 * cores) as pool:
        assert list(pool.map(lambda _: salience(snapshot), range(8 * cores))) == [expected] * 8 * cores
    assert 1 < most <= max(2, cores)
