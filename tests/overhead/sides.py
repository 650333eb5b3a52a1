"""What is compared: a tree of source code, and options for its commands; and how one side is measured."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.bench.load import Address, drive
from service.bench.serving import query_texts
from tests.support.paths import ROOT
from tests.support.processes import children
from tests.support.server import clean_environment

_START_SECONDS = 120.0
_WARM_UP_SECONDS = 8.0


@dataclass(frozen=True)
class Side:
    """One of two things compared.

    Attributes:
        name: as it is printed.
        tree: the folder of its source code.
        index_options: more options for `reelfind index`.
        bundle: the bundle to use; None: its own.
    """

    name: str
    tree: Path
    index_options: tuple[str, ...] = ()
    bundle: Path | None = None

    def command(self, *arguments: str | Path) -> list[str]:
        """A command of its `reelfind`; run it with `environment`."""
        bundle = [] if self.bundle is None else ["--bundle", self.bundle]
        return [sys.executable, "-P", "-m", "service", *map(str, [*arguments, *bundle])]

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which its code, and no other, is imported."""
        return {**clean_environment(), "PYTHONPATH": str(self.tree)}

    def index(self, media: Path, library: Path) -> "Spent":
        """Index a folder into a new library.

        Raises:
            RuntimeError: the command failed.
        """
        command = self.command("index", media, "--library", library, *self.index_options)
        with tempfile.TemporaryFile() as log:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                raise RuntimeError(f"{self.name}: {log.read().decode(errors='replace')[-2000:]}")
        return Spent(seconds, usage.ru_utime + usage.ru_stime)

    @contextmanager
    def serving(self, library: Path) -> Iterator["Serving"]:
        """Serve a library on a free port."""
        command = self.command("serve", "--library", library, "--host", "127.0.0.1", "--port", "0")
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**self.environment, "REELFIND_DEADLINE_MS": "60000"},
            )
            watchdog = threading.Timer(_START_SECONDS, process.kill)
            watchdog.start()
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                watchdog.cancel()
                url = next((word for word in line.split() if word.startswith("http://")), None)
                if url is None:
                    log.seek(0)
                    raise RuntimeError(f"{self.name}: {log.read().decode(errors='replace')[-2000:]}")
                yield Serving(int(url.rstrip("/").rpartition(":")[2]), process.pid)
            finally:
                watchdog.cancel()
                process.terminate()
                process.wait(30)
                assert process.stdout is not None
                process.stdout.close()


@dataclass(frozen=True)
class Serving:
    """A running server: its port and its process."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that it, and the processes that it has started, have taken so far."""
        return sum(map(_cpu_seconds, [self.pid, *children(self.pid)]))

    def warm_up(self, texts: Sequence[str], clients: int) -> None:
        """Search for so long that a server which starts processes under load has them."""
        ends = time.monotonic() + _WARM_UP_SECONDS
        while time.monotonic() < ends:
            search_seconds(self.port, texts, clients, rerank=False)


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Wall time, and CPU time of a process and those that it waited for."""

    seconds: float
    cpu_seconds: float


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """The source code of a commit in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="reelfind-overhead-") as folder:
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
        if packed.returncode:
            raise RuntimeError(f"git has no commit {commit!r}: {packed.stderr.decode(errors='replace')}")
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def search_seconds(port: int, texts: Sequence[str], clients: int, *, rerank: bool) -> float:
    """How long some clients take together for these searches, in seconds.

    Raises:
        ReelfindError: a search failed.
    """
    bodies = [{"query": {"text": text}, "rerank": rerank} for text in texts]
    return drive(Address("127.0.0.1", port), bodies, clients).seconds


def texts_of(count: int) -> list[str]:
    """Different texts of usual length."""
    texts = query_texts()
    return [next(texts) for _ in range(count)]
