"""The engine of a Ray cluster: actors that decode, encode and store, and a thread here that commits.

    tasks ─▶ loop ─ orders ─▶ decoding actors ─ segments (object store) ─▶ encoding actors ─▶ data files
               ▲                    │ what was read                              │ what was stored
               └────────────────────┴────────────────────────────────────────────┘
               what was stored ─▶ writer thread, which commits and publishes

Videos, the bundle and Reelfind itself must be at the same paths on all nodes, and should be the library too.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from indexer.decode import DecodeSpec
from indexer.encode import EncodeSpec
from indexer.engines.base import Sink
from indexer.engines.channel import Abort, AbortedError, Channel, guarded, join
from indexer.engines.local_decoders import Bounds
from indexer.engines.ray_actors import SharedTables
from indexer.engines.ray_cluster import RayOptions, check_reachable, connected, plan_actors
from indexer.engines.ray_files import FileQueue, NoMoreTasks
from indexer.engines.ray_fleet import Fleet, one_line
from indexer.engines.ray_loop import RayLoop
from indexer.engines.ray_metrics import RunMetrics
from indexer.engines.writing import ToWriter, waiting_batches, writing
from indexer.events import Event, Note
from indexer.library.errors import storage_errors
from indexer.library.storage.address import place_name
from indexer.library.storage.registry import storage_of
from indexer.plan import IndexTask
from model.runtime.errors import ReelfindError
from model.runtime.tracing import carried, trace_origin

_MARK = ".ray-"


class RayEngine:
    """An `Engine` that works on a Ray cluster.

    Args:
        options: which cluster, and what of it.
        bounds: what a file may take, and how the process that reads it is confined.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(self, options: RayOptions, bounds: Bounds) -> None:
        check_reachable(options.address)
        self._options = options
        self._bounds = bounds

    def run(
        self,
        tasks: Collection[IndexTask],
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        sink: Sink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        """See `Engine`.

        Raises:
            InputError: the cluster cannot be joined, or a node has other versions.
        """
        if not tasks:
            sink.close(interrupted=stop.is_set())
            return
        spec = self._on_nodes(encode_spec)
        abort = Abort()
        encoded: Channel[ToWriter] = Channel(waiting_batches(spec), abort)
        pending: Channel[IndexTask | NoMoreTasks] = Channel(len(tasks) + 1, abort)
        with connected(self._options.address) as ray, _shared(sink.tables) as tables:
            plan = plan_actors(self._options, ray.cluster_resources())
            metrics = RunMetrics(ray.util.metrics)
            fleet = Fleet(
                ray,
                plan,
                self._bounds,
                decode_spec,
                spec,
                tables,
                trace_origin(),
                metrics,
                lambda text: emit(Note(text)),
            )
            threads = [
                threading.Thread(target=carried(guarded), args=(work, abort), name=name)
                for name, work in (
                    ("tasks", partial(_send_tasks, tasks, pending, stop)),
                    ("writer", writing(encoded, sink, stop)),
                )
            ]
            for thread in threads:
                thread.start()
            try:
                files = FileQueue(pending, decode_spec.storage, plan.decoders + 1)
                span_seconds = self._options.span_seconds
                RayLoop(ray, fleet, files, spec, span_seconds, encoded, metrics, emit, stop).run()
                encoded.put(None)
            except AbortedError:
                pass
            except ray.exceptions.RayError as error:
                abort.fail(ReelfindError(f"the Ray cluster failed: {one_line(error)}"))
            except BaseException as error:
                abort.fail(error)
            finally:
                fleet.close()
                for thread in threads:
                    join(thread, abort)
        if abort.error is not None:
            raise abort.error

    def _on_nodes(self, spec: EncodeSpec) -> EncodeSpec:
        """How an actor encodes, which may have a GPU where this process has none."""
        if self._options.provider == "cpu":
            return spec
        return replace(spec, provider=self._options.provider, threads=None, max_batch=spec.batch_frames)


def _send_tasks(
    tasks: Collection[IndexTask], pending: Channel[IndexTask | NoMoreTasks], stop: threading.Event
) -> None:
    """Send tasks as they come: the next one may have to be waited for, which must not hold up the loop."""
    for task in tasks:
        if stop.is_set():
            break
        pending.put(task)
    pending.put(NoMoreTasks())


@contextmanager
def _shared(folder: Path) -> Iterator[SharedTables]:
    """Mark the folder of the tables, by which nodes know whether they see it.

    Raises:
        LibraryError: it cannot be written.
    """
    mark = folder / f"{_MARK}{secrets.token_hex(8)}"
    storage = storage_of(folder)
    with storage_errors(folder):
        for name in storage.names(folder):
            if name.startswith(_MARK):
                storage.remove(folder / name)
        storage.write(mark, b"")
    try:
        yield SharedTables(place_name(folder), mark.name)
    finally:
        with suppress(OSError):
            storage.remove(mark)
