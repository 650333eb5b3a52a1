"""`python -m tests.soak`: changes, searches and kills; each answer is checked. Exit code 1: one was wrong."""

import argparse
import contextlib
import json
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.soak.clients import CLIENTS, Clients, Told
from tests.soak.naive import NaiveLibrary, Published, problems_of_answer, published_state
from tests.soak.runs import IndexRuns
from tests.soak.server import FLAT, KilledServer, Life
from tests.support.server import REELFIND, clean_environment
from tests.support.toy_bundle import make_toy_bundle

#: When the server is killed, as shares of the whole time. Then it lives long enough to judge its memory.
_KILLS = (0.08, 0.16, 0.24)
_VERIFIED_EVERY = 20
_FIRST_FILMS, _FIRST_RUNS = 20, 10
_MOST_SHOWN, _SHOWN_CHARACTERS = 20, 600
#: How soon after it is published a snapshot must be served: the server looks every second.
_SERVED_SECONDS = 20.0


@dataclass
class Report:
    """What a soak showed.

    Attributes:
        seconds: how long it took.
        counts: how often each thing happened.
        problems: what must not happen, with the times in seconds from the start.
        lives: the server's processes.
    """

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.problems

    def lines(self) -> list[str]:
        """The report, as it is printed."""
        lines = [f"{self.seconds:.0f} s with {CLIENTS} clients"]
        lines += [f"  {count:>8,} {what}" for what, count in sorted(self.counts.items())]
        lines.append(f"server (memory must stay within {FLAT - 1:.0%}; files and threads constant):")
        lines += [f"  {life.line()}" for life in self.lives]
        lines.append(f"problems: {len(self.problems)}")
        kinds: dict[str, list[str]] = {}
        for problem in self.problems:
            # Ids and numbers differ between problems of one kind.
            kinds.setdefault(re.sub(r"[0-9a-f-]{16,}|[0-9.]+", "#", problem)[:160], []).append(problem)
        for alike in list(kinds.values())[:_MOST_SHOWN]:
            lines.append(f"  {len(alike)} ×, first at {alike[0][:_SHOWN_CHARACTERS]}")
        return lines


class Soak:
    """One soak in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._started = time.monotonic()
        self._library = folder / "library"
        self._bundle = make_toy_bundle(folder / "bundle")
        self._lambda = json.loads((self._bundle / "bundle.json").read_bytes())["ensemble_lambda"]
        self._naive = NaiveLibrary()
        (folder / "media").mkdir(parents=True)
        self._runs = IndexRuns(
            folder / "media", self._library, self._bundle, self._naive, self._chance, folder / "index.log"
        )
        self._states: dict[int, Published] = {}
        #: The newest snapshot whose films were compared.
        self._checked = 0
        self._report = Report(counts=self._runs.counts)
        self._seed = seed
        self._server_log = folder / "server.log"

    def run(self, minutes: float) -> Report:
        """Soak for this long."""
        self._runs.change_films(_FIRST_FILMS)
        if not any(self._runs.index() for _ in range(_FIRST_RUNS)):
            raise RuntimeError(f"the first {_FIRST_RUNS} runs fail: {self._runs.problems}")
        self._look_for_snapshots(complete=True)
        server = KilledServer(self._library, self._bundle, self._server_log)
        clients = Clients(server.url, self._seed)
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch_snapshots, args=(ended,))
        watcher.start()
        try:
            self._go_on(server, clients, self._started + 60 * minutes)
        finally:
            clients.stop()
            ended.set()
            watcher.join()
            server.stop()
        self._judge(server, clients)
        self._report.problems += [*self._runs.problems, *server.problems]
        self._report.problems += [problem for life in server.lives for problem in life.problems()]
        self._report.lives = server.lives
        self._report.seconds = time.monotonic() - self._started
        return self._report

    def _go_on(self, server: KilledServer, clients: Clients, deadline: float) -> None:
        length = deadline - time.monotonic()
        kills = [deadline - length * (1 - share) for share in _KILLS]
        round_number = 0
        while time.monotonic() < deadline:
            round_number += 1
            self._runs.change_films(self._chance.randrange(1, 6))
            killer = None
            if kills and time.monotonic() > kills[0]:
                # The server dies in the middle of a run too.
                kills.pop(0)
                killer = threading.Timer(self._chance.random() * 3, server.kill)
                killer.start()
                self._report.counts["server killed"] += 1
            complete = self._runs.index()
            if killer is not None:
                killer.join()
            newest = self._look_for_snapshots(complete=complete)
            self._reload(server, clients, newest)
            self._judge(server, clients)
            if round_number % _VERIFIED_EVERY == 0:
                self._verify()

    def _watch_snapshots(self, ended: threading.Event) -> None:
        """Read what each snapshot holds while it is there."""
        while not ended.wait(0.05):
            self._read_states()

    def _read_states(self) -> None:
        try:
            numbers = [
                int(path.name) for path in (self._library / "snapshots").iterdir() if path.name.isdecimal()
            ]
        except OSError:
            return
        for number in numbers:
            if number not in self._states:
                with contextlib.suppress(OSError):
                    self._states[number] = published_state(self._library, number)

    def _look_for_snapshots(self, *, complete: bool) -> int:
        """Check the snapshots that a run has published. → The number in CURRENT."""
        self._read_states()
        newest = int((self._library / "CURRENT").read_text())
        new = {number for number in self._states if number > self._checked}
        self._report.counts["snapshot published"] += len(new)
        self._checked = max(self._states)
        for number in sorted(new | {newest} if complete else new):
            if number not in self._states:
                self._problem(f"the tables of snapshot {number} cannot be read")
                continue
            at_end = complete and number == newest
            for problem in self._naive.problems_of(self._states[number].films, complete=at_end):
                self._problem(f"snapshot {number}: {problem}")
        if complete:
            self._naive.settle()
        return newest

    def _reload(self, server: KilledServer, clients: Clients, newest: int) -> None:
        """Let the server load the newest snapshot, by request or by itself."""
        by_request = self._chance.random() < 0.7
        deadline = time.monotonic() + _SERVED_SECONDS
        served = 0
        with httpx.Client(base_url=server.url, timeout=30.0, trust_env=False) as client:
            while served < newest and time.monotonic() < deadline:
                response = client.post("/v1/library/reload") if by_request else client.get("/readyz")
                if response.status_code == 200:
                    served = response.json()["snapshot"]
                else:
                    self._problem(f"reload or readyz: {response.status_code} {response.text}")
                time.sleep(0 if served >= newest else 0.1)
        if served < newest:
            self._problem(f"snapshot {newest} is not served {_SERVED_SECONDS:.0f} s after it was published")
        clients.served = max(clients.served, served)
        self._report.counts["reload by request" if by_request else "reload by itself"] += 1

    def _judge(self, server: KilledServer, clients: Clients) -> None:
        """Compare all answers so far with what exact search finds in their snapshots."""
        while True:
            try:
                told = clients.told.get_nowait()
            except queue.Empty:
                return
            problem = self._problem_of(told, server)
            if problem is not None:
                self._problem(f"{problem} (asked for {told.search})")

    def _problem_of(self, told: Told, server: KilledServer) -> str | None:
        counts = self._report.counts
        counts["search"] += 1
        away = server.was_away(told.sent, told.answered)
        if told.status == 0 and away:
            counts["search cut off while the server starts"] += 1
            return None
        if told.status == 503 and told.retry_after:
            counts["search answered 503 with Retry-After"] += 1
            return None
        if told.status != 200:
            return f"a search failed: {told.status} {told.body}"
        counts["search answered"] += 1
        counts["search re-ranked"] += told.body["reranked"]
        number = told.body["snapshot"]
        if number not in self._states:
            return f"an answer names snapshot {number}, which was never published"
        if number < told.least_snapshot and not away:
            return f"an answer is of snapshot {number}, after {told.least_snapshot} was served"
        films, missing = self._states[number]
        held = {name: self._naive.films[sha256] for name, sha256 in films.items()}
        problems = problems_of_answer(told.search, told.body, held, self._lambda, missing)
        return f"the answer of snapshot {number} {'; '.join(problems[:3])}" if problems else None

    def _verify(self) -> None:
        """`reelfind library verify` finds nothing."""
        command = [*REELFIND, "library", "verify", "--library", str(self._library)]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
        self._report.counts["verified"] += 1
        if done.returncode:
            self._problem(f"verify: {done.stdout}{done.stderr}")

    def _problem(self, what: str) -> None:
        self._report.problems.append(f"{time.monotonic() - self._started:.1f} s: {what}")


def main() -> int:
    """Run the command; the exit code is 1 when something happened that must not."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other changes and kills (1)")
    parser.add_argument("--output", type=Path, help="keep the library and the logs in this new folder")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.output or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="reelfind-soak-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        report = Soak(folder, options.seed).run(options.minutes)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
