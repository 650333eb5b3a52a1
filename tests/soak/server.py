"""The server under test: a process that is killed and started again, and watched while it lives."""

import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.processes import named_threads, open_file_count, resident_bytes, thread_count
from tests.support.server import REELFIND, clean_environment

#: A life as short as this says nothing about memory; and the time that a server takes to become warm.
JUDGED_SECONDS = 300.0
WARM_SECONDS = 120.0
#: How much more the memory of a warm server may be at one time than at another.
FLAT = 1.05
#: How many more open files or threads it may have at one time than at another.
CONSTANT = 3
#: Lance starts a thread for each part of a file that it reads while all others are busy, and keeps it while
#: there are reads. They count as all others; their number is shown, since it follows the load.
_LANCE_THREADS = "lance_"
_START_SECONDS = 60.0
_SAMPLE_SECONDS = 1.0


@dataclass
class Life:
    """One process: when it started, and what it had each second.

    A sample is the time, the memory in bytes, open files, threads, and how many of these are Lance's.
    """

    started: float
    samples: list[tuple[float, int, int, int, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return self.samples[-1][0] - self.started if self.samples else 0.0

    def thirds(self, column: int, figure: Callable[[list[int]], float] = statistics.median) -> list[float]:
        """The median, or another figure, of a column of the samples in each third of the time when warm."""
        warm = [s for s in self.samples if s[0] - self.started >= min(WARM_SECONDS, self.seconds / 3)]
        size = max(1, len(warm) // 3)
        parts = (warm[:size], warm[size : 2 * size], warm[2 * size :])
        return [figure([int(sample[column]) for sample in part]) for part in parts if part]

    def problems(self) -> list[str]:
        """What grew, if it lived long enough to tell."""
        if self.seconds < JUDGED_SECONDS:
            return []
        found = []
        memory = self.thirds(1)
        if max(memory) > FLAT * min(memory):
            found.append(f"memory is not flat: {[f'{value / 2**20:.0f} MiB' for value in memory]}")
        # Pools start threads under load and end idle ones: only what stays counts.
        for what, counts in (("open files", self.thirds(2)), ("threads", self.thirds(3, min))):
            if max(counts) - min(counts) > CONSTANT:
                found.append(f"the number of {what} is not constant: {counts}")
        return found

    def line(self) -> str:
        """Its figures, as they are printed."""
        if not self.samples:
            return "ended at once"
        memory = " → ".join(f"{value / 2**20:.1f}" for value in self.thirds(1))
        files = " → ".join(f"{value:.0f}" for value in self.thirds(2))
        ranges = zip(self.thirds(3, min), self.thirds(3, max), strict=True)
        threads = " → ".join(f"{least:.0f} to {most:.0f}" for least, most in ranges)
        pool = " → ".join(f"{most:.0f}" for most in self.thirds(4, max))
        judged = "" if self.seconds >= JUDGED_SECONDS else f" (not judged: below {JUDGED_SECONDS:.0f} s)"
        counts = f"open files {files}, threads {threads}, of which Lance's at most {pool}"
        return f"{self.seconds:.0f} s: memory {memory} MiB, {counts}{judged}"


class KilledServer:
    """`reelfind serve` on a fixed port of the loopback; `kill` ends it with SIGKILL and starts another."""

    def __init__(self, library: Path, bundle: Path, log_file: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        #: When no server answered, as `time.monotonic` counts.
        self.away: list[tuple[float, float]] = []
        self.lives: list[Life] = []
        self.problems: list[str] = []
        self._command = [*REELFIND, "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--library", str(library), "--bundle", str(bundle), "--reload-seconds", "1"]
        self._log_file = log_file
        self._ended = threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def kill(self) -> None:
        """Kill the server, and start another one in its place."""
        before = time.monotonic()
        self._process.kill()
        self._process.wait()
        try:
            self._process = self._start()
        except RuntimeError as error:
            self.problems.append(str(error))
        self.away.append((before, time.monotonic()))

    def stop(self) -> None:
        """Stop it in order."""
        self._ended.set()
        self._watcher.join()
        if self._process.poll() is not None and not self.problems:
            self.problems.append(f"the server ended by itself with exit code {self._process.returncode}")
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.problems.append("the server does not stop on SIGTERM")
            self._process.kill()
            self._process.wait()

    def was_away(self, start: float, end: float) -> bool:
        """Whether no server answered at some moment between two times."""
        return any(start <= until and since <= end for since, until in [*self.away])

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log_file.open("ab") as log:
            environment = {**clean_environment(), "REELFIND_ACCESS_LOG": "false"}
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    self.lives.append(Life(time.monotonic()))
                    return process
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise RuntimeError(f"the server is not ready:\n{self._log_file.read_text(errors='replace')[-3000:]}")

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            pid, life = self._process.pid, self.lives[-1]
            memory, files, threads = resident_bytes(pid), open_file_count(pid), thread_count(pid)
            if memory and files and threads:
                pool = named_threads(pid, _LANCE_THREADS)
                life.samples.append((time.monotonic(), memory, files, threads, pool))
