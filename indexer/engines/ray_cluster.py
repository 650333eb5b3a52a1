"""The connection to a Ray cluster, and the actors on it.

Without an address, a cluster of this machine alone is started, which listens on 127.0.0.1 and ends with the
run. Ray reports nothing to its makers from here.
"""

import importlib.util
import logging
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from model.runtime.bundle import Provider
from model.runtime.cores import available_cores
from model.runtime.errors import InputError, ReelfindError
from model.runtime.installing import install_command

#: How long a cluster may take to accept a connection.
_CONNECT_SECONDS = 10.0
#: Object store of a cluster that is started here, besides the next one: taken only as it is filled.
_STORE_BYTES = 512 << 20
_STORE_BYTES_PER_CORE = 64 << 20


@dataclass(frozen=True)
class RayOptions:
    """Where and how to index on Ray.

    Attributes:
        address: HOST:PORT of the cluster's head, or "auto" for the cluster that this machine is a node of;
            None: start one on this machine.
        decoders: actors that decode; None: as the cluster's CPUs allow.
        encoders: actors that encode; None: as the cluster's GPUs, or else its CPUs, allow.
        gpus: how much of a GPU each encoder gets, such as 0.5; whole numbers above 1.
        provider: where the model runs, on the nodes.
        span_seconds: several decoders read a file that is longer, a span of at most this length each.

    Raises:
        InputError: a value is invalid; `field` names it.
    """

    address: str | None = None
    decoders: int | None = None
    encoders: int | None = None
    gpus: float = 1.0
    provider: Provider = "cpu"
    span_seconds: float = 1800.0

    def __post_init__(self) -> None:
        if self.decoders is not None and self.decoders < 1:
            raise InputError(f"workers is {self.decoders}: on Ray it must be at least 1", field="workers")
        if self.encoders is not None and self.encoders < 1:
            raise InputError(f"ray_encoders is {self.encoders}: it must be at least 1", field="ray_encoders")
        if not self.gpus > 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise InputError(
                f"ray_gpus is {self.gpus:g}: it must be a part of one GPU, such as 0.5, or a whole number",
                field="ray_gpus",
            )
        address = self.address
        if address is None or address == "auto":
            return
        if address.startswith("ray://"):
            raise InputError(
                f"ray_address is {address!r}: Reelfind does not run through a Ray client. Start it on a node "
                "of the cluster (`ray job submit`, or deploy/ray/), with `ray_address` auto",
                field="ray_address",
            )
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InputError(
                f"ray_address is {address!r}: it must be HOST:PORT, such as 10.0.0.1:6379, or auto",
                field="ray_address",
            )


@dataclass(frozen=True)
class ActorPlan:
    """The actors of a run, and what each takes of its node, in Ray's words."""

    decoders: int
    encoders: int
    of_decoder: Mapping[str, float]
    of_encoder: Mapping[str, float]


def plan_actors(options: RayOptions, resources: Mapping[str, float]) -> ActorPlan:
    """Divide a cluster between decoders and encoders.

    On CPUs, an encoder for each core and a decoder for all but one of them, as on one machine: half of a CPU
    each, since they wait for each other. With GPUs, as many encoders as they hold, and a decoder for each CPU
    that is left.

    Args:
        options: may name the numbers: more actors than fit now wait for nodes, which lets an autoscaler add
            some.
        resources: what the cluster has, as `ray.cluster_resources` gives it.

    Raises:
        InputError: the cluster has no GPU, and nobody says how many encoders to wait for.
    """
    cpus = max(1, int(resources.get("CPU", 0)))
    if options.provider == "cpu":
        half = {"num_cpus": 0.5}
        decoders, encoders = options.decoders or max(1, cpus - 1), options.encoders or cpus
        return ActorPlan(decoders, encoders, half, half)
    encoders = options.encoders or int(resources.get("GPU", 0) / options.gpus)
    if not encoders:
        raise InputError(
            "the Ray cluster has not so many GPUs now: give `ray_encoders`, to wait for nodes that an "
            "autoscaler adds, or use `provider` cpu",
        )
    decoders = options.decoders or max(1, cpus - encoders)
    return ActorPlan(decoders, encoders, {"num_cpus": 1}, {"num_cpus": 1, "num_gpus": options.gpus})


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine; gives the module `ray`.

    A connection that this process has already is used, and stays.

    Args:
        address: see `RayOptions`.

    Raises:
        InputError: the cluster cannot be joined, or has other versions.
        ReelfindError: no cluster can be started here.
    """
    _prepare_environment(address)
    # Late, since it reads the environment; and it takes a second.
    import ray
    import ray.util.metrics

    if ray.is_initialized():
        yield ray
        return
    with _session_folder(address) as folder:
        try:
            with _signals_kept(), warnings.catch_warnings():
                # Ray forks only to start other programs.
                warnings.filterwarnings("ignore", "lance is not fork-safe")
                ray.init(address or "local", **_init_options(address, folder))
        except Exception as error:
            with suppress(Exception):
                ray.shutdown()
            raise _connection_error(address, error) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def check_reachable(address: str | None) -> None:
    """Check, without joining the cluster, what can be told at once.

    Args:
        address: see `RayOptions`.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(f"the engine 'ray' is not installed: `{install_command('ray')}`")
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"ray_address is {address!r}: no Ray cluster answers there ({error.strerror or error}). "
            "`ray start --head --port=6379` starts one; without `ray_address`, this machine is used",
            field="ray_address",
        ) from error


def _prepare_environment(address: str | None) -> None:
    """What Ray reads when it is imported, or when it starts processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of calls under way when a run fails: the first error is raised, the others would be printed.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if address is None:
        # Actors are what this machine is to do; Ray would let every other process go first.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Despite its name, Ray obeys it on every system: its nodes then have the address 127.0.0.1.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@contextmanager
def _session_folder(address: str | None) -> Iterator[str | None]:
    """Where a cluster that is started here keeps its sockets and logs, until it ends."""
    if address is not None:
        yield None
        return
    # Names of sockets have at most 107 characters, which leaves no room for long folders.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


def _init_options(address: str | None, folder: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "namespace": "reelfind",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        cores = available_cores()
        options |= {
            "num_cpus": cores,
            "include_dashboard": False,
            "_temp_dir": folder,
            "object_store_memory": _STORE_BYTES + cores * _STORE_BYTES_PER_CORE,
        }
    return options


def _connection_error(address: str | None, error: Exception) -> ReelfindError:
    said = " ".join(str(error).split())
    if "ersion mismatch" in said:
        return InputError(
            f"ray_address is {address!r}: the cluster has other versions than this machine ({said}). Use the "
            "same image, or the same `constraints.txt`, on all nodes",
            field="ray_address",
        )
    if address is None:
        return ReelfindError(f"Ray cannot be started on this machine: {said}")
    return InputError(
        f"ray_address is {address!r}: the Ray cluster cannot be joined ({said}). Run this command on a node "
        "of the cluster; `ray status` shows whether this is one",
        field="ray_address",
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this program's handler of SIGTERM: `ray.init` sets one of its own, which ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
