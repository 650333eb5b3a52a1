"""A Ray cluster of three nodes on this computer, and its processes.

The nodes are started by a process of its own (`python -m tests.support.ray_nodes`), in which no threads run:
Ray forks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.paths import ROOT
from tests.support.processes import wait_until

#: The object store of a node; Ray takes no smaller one.
_STORE_BYTES = 80 << 20
_START_SECONDS = 180.0
#: All of it is on this computer, whatever network there is; and nobody is told of it.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # Actors do not wait for all other processes of a busy machine.
    "RAY_worker_niceness": "0",
    "PYTHONPATH": str(ROOT),
}


class Nodes:
    """The running cluster: a head without CPUs, and nodes of two CPUs each.

    Attributes:
        address: the head's address.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def kill(self) -> None:
        """Kill a node with all that runs on it."""
        self._tell("kill")

    def add(self) -> None:
        """Add a node."""
        self._tell("add")

    def _tell(self, word: str) -> None:
        _pipe(self._process.stdin).write(f"{word}\n")
        _pipe(self._process.stdin).flush()
        assert self._answer() == word

    def _answer(self) -> str:
        """The next line that is for us; Ray may print others."""
        for line in _pipe(self._process.stdout):
            if line.startswith("> "):
                return line[2:].strip()
        raise AssertionError("the cluster has ended")


@contextmanager
def three_nodes(**environment: str) -> Iterator[Nodes]:
    """Start a head and two nodes. At the end, none of their processes is left.

    `environment` is that of the processes of all nodes.
    """
    # Short: the names of sockets below it have at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    command = [sys.executable, "-P", "-m", "tests.support.ray_nodes"]
    try:
        with subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, "RAY_TMPDIR": folder, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Nodes(process)
        wait_until(lambda: not processes_with(folder))
    finally:
        for pid in processes_with(folder):
            os.kill(pid, 9)
        shutil.rmtree(folder)


def processes_with(text: str) -> list[int]:
    """The processes whose command line has a text, without this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def main() -> None:
    from ray.cluster_utils import Cluster

    # Ray itself waits for half a minute, which a busy machine may take.
    options = {"object_store_memory": _STORE_BYTES, "wait": False}
    head = {"num_cpus": 0, "include_dashboard": False, **options}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, **options)
        cluster.wait_for_nodes(_START_SECONDS)
        print(f"> {cluster.address}", flush=True)
        for line in sys.stdin:
            word = line.strip()
            if word == "kill":
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            else:
                cluster.add_node(num_cpus=2, **options)
                cluster.wait_for_nodes(_START_SECONDS)
            print(f"> {word}", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
