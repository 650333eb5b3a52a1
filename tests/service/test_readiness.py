"""The probe behind /readyz when a search hangs."""

import asyncio
import os
import threading
import time
import weakref
from pathlib import Path

import pytest

from service.errors import NotReadyError
from service.live import LiveLibrary, open_bundle
from service.metrics import Metrics
from service.readiness import ReadinessProbe
from service.settings import load_settings
from tests.support.toy_library import data_file, make_library


def probes() -> int:
    return sum(thread.name == "reelfind-probe" for thread in threading.enumerate())


def test_a_disk_that_hangs_is_not_ready_and_probes_do_not_pile_up(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    settings = load_settings({"library": toy.library, "bundle": toy.bundle, "scrub_hours": 0})
    live = LiveLibrary(settings, open_bundle(settings), Metrics())
    live.reload()
    path = data_file(toy.library, "segments")
    aside = path.with_suffix(".aside")

    async def run() -> None:
        probe = ReadinessProbe(live, patience_seconds=0.3)
        path.rename(aside)
        os.mkfifo(path)  # a read of it waits until someone writes
        started = time.monotonic()
        answers = await asyncio.gather(*(probe.check() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(answer, NotReadyError) for answer in answers)
        assert "no answer for" in str(answers[0])
        with pytest.raises(NotReadyError):
            await probe.check()
        assert time.monotonic() - started < 20
        assert probes() == 1
        aside_again = path.with_suffix(".fifo")
        path.rename(aside_again)
        aside.rename(path)
        aside_again.open("wb").close()
        while probes():
            await asyncio.sleep(0.01)
        snapshot, _degraded = await ReadinessProbe(live, patience_seconds=60.0).check()
        assert snapshot == 1

    asyncio.run(run())
    live.close()


def test_a_probe_keeps_no_snapshot_that_is_no_longer_served(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    settings = load_settings({"library": toy.library, "bundle": toy.bundle})
    live = LiveLibrary(settings, open_bundle(settings), Metrics())
    live.reload()
    before = weakref.ref(live.searcher.snapshot)
    probe = ReadinessProbe(live, patience_seconds=60.0)
    assert asyncio.run(probe.check()) == (1, [])
    toy.film("blue.mp4", [("blue", 1.0)])
    toy.index()
    live.reload()
    while probes():
        time.sleep(0.01)
    assert before() is None
    live.close()
