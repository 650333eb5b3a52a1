"""Indexes a folder of damaged files in a process and watches it: verdicts, time, memory, crashes."""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from indexer.options import LEAST_WORKER_MEMORY
from tests.support.paths import ROOT
from tests.support.processes import descendants, peak_bytes
from tests.support.server import clean_environment

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Limits:
    """What must hold for a run.

    Attributes:
        silence_seconds: a decoder that is silent for this long is given up (`--timeout`).
        hang_seconds: a file that has no verdict after this long hangs.
        quiet_seconds: how long the start and the end of a run may take, with checking the library.
        parent_bytes: most resident memory of the indexing process.
        worker_bytes: most memory of a decoding process (`--worker-memory`).
    """

    silence_seconds: float = 15.0
    hang_seconds: float = 60.0
    quiet_seconds: float = 180.0
    parent_bytes: int = 1 << 30
    worker_bytes: int = 2 << 30


LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a verdict and the reason for it, after so many seconds."""

    verdict: str
    reason: str | None
    seconds: float

    @property
    def crashed(self) -> bool:
        """Whether a decoding process ended on it."""
        return self.reason is not None and "crash" in self.reason


@dataclass(frozen=True)
class Fault:
    """Something that must not happen, and the files that were read when it did; none: not one file's."""

    what: str
    names: tuple[str, ...] = ()


@dataclass
class Round:
    """What a run over some files showed.

    Attributes:
        outcomes: by file name.
        faults: what must not happen.
        parent_peak: most resident bytes of the indexing process.
        worker_peak: most resident bytes of one decoding process, as far as it was seen.
        worker_bound: it had at most so many bytes, by the kernel's account.
        at_worker_peak: the files that were read then.
        interrupted: whether time was up before the end.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    parent_peak: int = 0
    worker_peak: int = 0
    worker_bound: int = 0
    at_worker_peak: tuple[str, ...] = ()
    interrupted: bool = False

    def add(self, other: "Round") -> None:
        """Count what another run over other files showed too."""
        self.outcomes |= other.outcomes
        self.faults += other.faults
        self.parent_peak = max(self.parent_peak, other.parent_peak)
        self.worker_bound = max(self.worker_bound, other.worker_bound)
        if other.worker_peak > self.worker_peak:
            self.worker_peak, self.at_worker_peak = other.worker_peak, other.at_worker_peak
        self.interrupted |= other.interrupted


def index_round(
    folder: Path,
    names: Sequence[str],
    bundle: Path,
    workers: int,
    *,
    deadline: float = math.inf,
    limits: Limits = LIMITS,
    environment: Mapping[str, str] | None = None,
) -> Round:
    """Index the files of `folder / "media"` into a new library, and say what became of each of `names`.

    Args:
        folder: also takes the library and the log.
        names: the files in it.
        bundle: the model.
        workers: decoding processes.
        deadline: when to stop, as `time.monotonic` counts.
        limits: what must hold.
        environment: more variables for the process.
    """
    memory = max(LEAST_WORKER_MEMORY, limits.worker_bytes >> 20)
    arguments = [folder / "media", folder / "library", bundle, workers, limits.silence_seconds, memory]
    command = [sys.executable, "-P", "-m", "tests.fuzz.indexing", *map(str, arguments)]
    variables = {**clean_environment(), "PYTHONPATH": str(ROOT), **(environment or {})}
    with (folder / "log").open("w+b") as log:
        return _Watch(command, variables, names, deadline, limits, log).run()


class _Watch:
    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        names: Sequence[str],
        deadline: float,
        limits: Limits,
        log: IO[bytes],
    ) -> None:
        self._names = names
        self._deadline = deadline
        self._limits = limits
        self._log = log
        self._round = Round()
        self._started: dict[str, float] = {}
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False
        self._too_large: set[int] = set()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )

    def run(self) -> Round:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            self._watch()
        finally:
            workers = descendants(self._process.pid)
            self._process.kill()
            self._process.wait()
            reader.join()
        self._check_end(workers)
        return self._round

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                line = ""
            if line is None:
                self._process.wait(self._limits.quiet_seconds)
                return
            now = time.monotonic()
            if line:
                last = now
                self._take(json.loads(line))
            self._look_at_memory()
            if not self._round.interrupted and now > self._deadline:
                self._round.interrupted = True
                self._process.send_signal(signal.SIGTERM)
            hanging = tuple(
                name for name, since in self._started.items() if now - since > self._limits.hang_seconds
            )
            if hanging:
                self._fault(f"no verdict after {self._limits.hang_seconds:.0f} s", hanging)
                return
            if not self._started and now - last > self._limits.quiet_seconds:
                self._fault(f"the indexer does nothing for {self._limits.quiet_seconds:.0f} s")
                return

    def _take(self, event: dict[str, Any]) -> None:
        name = event.get("name", "")
        if event["what"] == "started":
            self._started[name] = event["seconds"]
        elif event["what"] == "done":
            seconds = event["seconds"] - self._started.pop(name)
            self._round.outcomes[name] = Outcome(event["verdict"], event["reason"], seconds)
        elif event["what"] == "not_reached":
            self._started.pop(name)
            self._fault(f"no verdict, but not reached: {event['reason']}", (name,))
        elif event["what"] == "scanned":
            for name in event["passed_over"]:
                self._round.outcomes[name] = Outcome("passed over", None, 0.0)
            if event["problems"]:
                self._fault(f"not scanned: {event['problems']}")
        elif event["what"] == "library":
            self._compare(event["verdicts"])
            for problem in event["damage"]:
                concerned = tuple(name for video_id, name in event["ids"].items() if video_id in problem)
                self._fault(f"the library is damaged: {problem}", concerned)
        else:
            self._ended = True
            self._round.worker_bound = event["worker_peak"]
            if self._round.worker_bound > self._limits.worker_bytes and not self._too_large:
                self._fault(f"a decoding process took {self._round.worker_bound >> 20} MiB")

    def _compare(self, stored: dict[str, str]) -> None:
        for name, outcome in self._round.outcomes.items():
            if outcome.verdict not in ("passed over", stored.get(name)):
                self._fault(f"the verdict is {outcome.verdict}, the library has {stored.get(name)}", (name,))

    def _look_at_memory(self) -> None:
        state = self._round
        state.parent_peak = max(state.parent_peak, peak_bytes(self._process.pid))
        for pid in descendants(self._process.pid):
            peak = peak_bytes(pid)
            if peak > state.worker_peak:
                state.worker_peak, state.at_worker_peak = peak, tuple(self._started)
            if peak > self._limits.worker_bytes and pid not in self._too_large:
                self._too_large.add(pid)
                self._fault(f"a decoding process takes {peak >> 20} MiB", tuple(self._started))
        if state.parent_peak > self._limits.parent_bytes and self._process.pid not in self._too_large:
            self._too_large.add(self._process.pid)
            self._fault(f"the indexing process takes {state.parent_peak >> 20} MiB", tuple(self._started))

    def _check_end(self, workers: Sequence[int]) -> None:
        """Check what the process leaves: its exit code, workers, and files without a verdict."""
        code = self._process.returncode
        if not self._ended and not self._round.faults:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - 3000))
            said = self._log.read().decode("utf-8", "replace").strip()
            self._fault(
                f"the indexing process ended with exit code {code}: {said[-1500:]}", tuple(self._started)
            )
        elif self._ended and not self._round.interrupted:
            lost = tuple(name for name in self._names if name not in self._round.outcomes)
            known = {name for fault in self._round.faults for name in fault.names}
            if set(lost) - known:
                self._fault("no verdict", tuple(sorted(set(lost) - known)))
        ends = time.monotonic() + 5
        while workers and time.monotonic() < ends:
            workers = [pid for pid in workers if peak_bytes(pid)]
            time.sleep(0.02)
        if workers:
            self._fault(f"decoding processes outlive the indexer: {workers}")

    def _fault(self, what: str, names: tuple[str, ...] = ()) -> None:
        self._round.faults.append(Fault(what, names))
