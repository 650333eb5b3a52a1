"""Compares the peak memory of `reelfind index` on a long file with that on a short one."""

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, Figure, Section
from service.bench.media import cached, repeat_video, write_video
from service.server_process import REELFIND

_BAR = Bar("<=", 1.2)
_SAMPLE_SECONDS = 0.05
_BLOCK_SECONDS = 5
_MEBIBYTE = 1 << 20


def measure_memory(cache: Path, bundle: Path | None, *, minutes: int, repeats: int) -> list[Figure]:
    """Index a 1080p file of `minutes` minutes and one of one minute, and compare the peaks of memory.

    The short file is indexed `repeats` times, the long file once.

    Raises:
        ReelfindError: the system has no /proc, or indexing fails.
    """
    if not Path("/proc/self/statm").exists():
        raise ReelfindError(
            "Memory is read from /proc, which this system does not have: measure the other parts with --only"
        )
    make = partial(write_video, width=1920, height=1080, seconds=_BLOCK_SECONDS, seed=0)
    block = cached(cache / f"block-1080p-{_BLOCK_SECONDS}s-0.mp4", make)
    turns = 60 // _BLOCK_SECONDS
    short = cached(cache / "1-minute-1080p.mp4", partial(repeat_video, block, times=turns))
    long = cached(cache / f"{minutes}-minutes-1080p.mp4", partial(repeat_video, block, times=minutes * turns))
    peak_long, seconds = index_peak_bytes(long, bundle)
    peaks_short = [index_peak_bytes(short, bundle)[0] for _ in range(repeats)]
    label = "1 hour" if minutes == 60 else f"{minutes} minutes"
    return [
        Figure(
            Section.MEMORY,
            f"{label} ÷ 1 minute of 1080p",
            tuple(peak_long / peak for peak in peaks_short),
            bar=_BAR,
            note="resident memory of the process tree; the long file once, the short one in every repetition",
        ),
        Figure(Section.MEMORY, f"{label}", (peak_long / _MEBIBYTE,), "MiB"),
        Figure(Section.MEMORY, "1 minute", tuple(peak / _MEBIBYTE for peak in peaks_short), "MiB"),
        Figure(Section.MEMORY, f"{label}: its length ÷ the time it took", (minutes * 60 / seconds,)),
    ]


def index_peak_bytes(video: Path, bundle: Path | None) -> tuple[int, float]:
    """Index one file into a new library. → The process tree's peak resident bytes, and the seconds."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        command = [*REELFIND, "index", str(video), "--library", str(Path(folder) / "library")]
        command += ["--bundle", str(bundle)] if bundle is not None else []
        started = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, tree_bytes(process.pid))
                time.sleep(_SAMPLE_SECONDS)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - started
        if process.returncode != 0:
            log.seek(0)
            tail = log.read().decode(errors="replace").strip()[-1000:]
            raise ReelfindError(f"Indexing {video} ended with exit code {process.returncode}:\n{tail}")
        return peak, seconds


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and its descendants; memory shared by two of them counts twice."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        pending.extend(children.get(pid, ()))
        total += _resident_bytes(pid)
    return total


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None  # the process has ended
    # The process's name, in brackets, may contain brackets.
    return int(stat.rpartition(")")[2].split()[1])


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
