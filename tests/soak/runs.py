"""Changes to the folder of films, and runs of the indexer over it; some are killed or lose a process."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.films import random_film
from tests.soak.naive import NaiveLibrary
from tests.support.processes import descendants, resident_bytes
from tests.support.server import REELFIND, clean_environment

_FILMS = 30
#: Most seconds that a run may take; it takes a few.
_RUN_SECONDS = 120.0
_KILLED, _LOSES_WORKER = 0.3, 0.3


@dataclass
class IndexRuns:
    """Changes films and indexes them, again and again.

    Attributes:
        counts: how often each thing happened.
        problems: what went wrong, of runs themselves.
    """

    media: Path
    library: Path
    bundle: Path
    naive: NaiveLibrary
    chance: random.Random
    log_file: Path
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _number: int = 0
    _usual_seconds: float = 3.0

    def change_films(self, times: int) -> None:
        """Add, replace, rename and remove films, and damage some."""
        for _ in range(times):
            names = sorted(self.naive.disk)
            kind = "add"
            if len(names) > _FILMS // 2:
                kind = self.chance.choice(("add", "replace", "replace", "remove", "rename"))
            if kind == "add" and len(names) >= _FILMS:
                kind = "remove"
            self.counts[kind] += 1
            name = self.chance.choice(names) if names else ""
            if kind == "add":
                self._number += 1
                self._write(f"film {self._number}.mkv")
            elif kind == "replace":
                self._write(name)
            elif kind == "remove":
                (self.media / name).unlink()
                self.naive.put(name, None)
            else:
                self._number += 1
                other = f"film {self._number}.mkv"
                (self.media / name).rename(self.media / other)
                film = self.naive.disk[name]
                self.naive.put(name, None)
                self.naive.put(other, film)

    def _write(self, name: str) -> None:
        film = random_film(self.chance)
        new = self.media / ".new"
        new.write_bytes(film.data)
        new.rename(self.media / name)
        self.naive.put(name, film)

    def index(self) -> bool:
        """Run `reelfind index` once. → Whether it ended well; False when it was killed, or failed."""
        command = [*REELFIND, "index", str(self.media), "--library", str(self.library)]
        command += ["--bundle", str(self.bundle), "--prune", "--retry-failed", "--publish-minutes", "0.01"]
        command += ["--workers", str(self.chance.choice((1, 2)))]
        command += ["--keep-snapshots", str(self.chance.choice((1, 2, 3, 5)))]
        fate = self.chance.choices(
            ("ends well", "is killed", "loses a worker"),
            (1 - _KILLED - _LOSES_WORKER, _KILLED, _LOSES_WORKER),
        )[0]
        # Most of a run is its start: kill it near its end more often.
        at = self._usual_seconds * 1.1 * (1 - self.chance.random() ** 2)
        start_of_log = self.log_file.stat().st_size if self.log_file.exists() else 0
        started = time.monotonic()
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment()
            )
        try:
            if fate == "loses a worker":
                self._kill_worker(process)
            elif fate == "is killed" and not self._ends_within(process, at):
                workers = descendants(process.pid)
                process.kill()
                process.wait()
                self.counts["indexer killed"] += 1
                self._check_gone(workers)
                return False
            code = process.wait(_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.problems.append(f"a run takes more than {_RUN_SECONDS:.0f} s")
            process.kill()
            process.wait()
            return False
        if code != 0:
            said = self.log_file.read_bytes()[start_of_log:].decode(errors="replace")
            self.problems.append(f"a run that {fate} has exit code {code}: {said[-600:]}")
            return False
        self.counts["run to its end"] += 1
        if fate == "ends well":
            self._usual_seconds = 0.8 * self._usual_seconds + 0.2 * (time.monotonic() - started)
        return True

    def _kill_worker(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill one decoding process, at some moment of the first second that there is one."""
        not_before = None
        while process.poll() is None:
            workers = [pid for pid in descendants(process.pid) if resident_bytes(pid)]
            if workers and not_before is None:
                not_before = time.monotonic() + self.chance.random()
            if workers and not_before is not None and time.monotonic() >= not_before:
                try:
                    os.kill(self.chance.choice(workers), signal.SIGKILL)
                    self.counts["decoding process killed"] += 1
                except ProcessLookupError:
                    pass
                return
            time.sleep(0.01)

    @staticmethod
    def _ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _check_gone(self, workers: list[int]) -> None:
        deadline = time.monotonic() + 5
        while workers and time.monotonic() < deadline:
            workers = [pid for pid in workers if resident_bytes(pid)]
            time.sleep(0.02)
        if workers:
            self.problems.append(f"decoding processes outlive a killed indexer: {workers}")
