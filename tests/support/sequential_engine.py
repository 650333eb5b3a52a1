"""A second engine: one file after the other, in this process, without threads.

Whatever a distributed engine would send to another machine goes through pickle on its way.
"""

import pickle
import threading
from collections.abc import Callable, Collection
from typing import TypeVar

from indexer.decode import Alive, DecodedSegment, DecodeSpec, decode_file, until_known
from indexer.encode import EncodeSpec, encode_batch
from indexer.engines.base import Sink
from indexer.events import Event, FileStarted, SegmentEncoded
from indexer.file_texts import kept_outcome, read_texts
from indexer.plan import IndexTask
from indexer.texts import read_source

T = TypeVar("T")


class SequentialEngine:
    """An `Engine` that opens the bundle itself, from nothing but the `EncodeSpec`."""

    def run(
        self,
        tasks: Collection[IndexTask],
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        sink: Sink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        """See `Engine`."""
        spec = sent(encode_spec)
        bundle = spec.open_bundle()
        for task in tasks:
            if stop.is_set():
                break
            emit(FileStarted(task.path))
            if task.kept_mtime_ns is not None:
                outcome = kept_outcome(sent(task))
                sink.finish(task, outcome, sent(read_texts(task, outcome, decode_spec, read_source)))
                continue
            job = decode_spec.job(task.path, task.device)
            for message in until_known(decode_file(sent(job)), task.known_sha256):
                received = sent(message)
                if isinstance(received, DecodedSegment):
                    sink.add(sent(encode_batch(bundle, spec, [(sent(task), received)])))
                    emit(SegmentEncoded(task.path, received.end_seconds - received.start_seconds))
                elif not isinstance(received, Alive):
                    sink.finish(task, received, sent(read_texts(task, received, decode_spec, read_source)))
        sink.close(interrupted=stop.is_set())


def sent(value: T) -> T:
    """The value as another process would get it."""
    received: T = pickle.loads(pickle.dumps(value))
    return received
