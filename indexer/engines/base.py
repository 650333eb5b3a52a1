"""The seam between what an indexing run does and where it does it.

    scan ─▶ plan ─▶ tasks ─▶ Engine: decode ─▶ encode ─▶ Sink: commit, publish

An engine decides where files are decoded and encoded: in processes and threads of this machine, or elsewhere.
All that it hands around is picklable: `IndexTask`, `DecodeSpec`, `DecodeJob` and what `decode` yields,
`EncodeSpec`, and the rows that `encode_batch` returns.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from indexer.decode import DecodeSpec, FileOutcome
from indexer.encode import EncodeSpec
from indexer.events import Event
from indexer.library.schema import SegmentRow
from indexer.plan import IndexTask


class Sink(Protocol):
    """Takes what an engine makes. No two of its methods may run at the same time."""

    def add(self, rows: Sequence[SegmentRow]) -> None:
        """Take rows of any files; those of one file come in time order."""

    def finish(self, task: IndexTask, outcome: FileOutcome) -> None:
        """End a file, after all of its rows. Rows of a file that is never finished do not count."""

    def close(self, *, interrupted: bool) -> None:
        """Commit all that is finished, and end the run.

        Args:
            interrupted: the run was asked to stop, so there may be tasks that were not finished.
        """


class Engine(Protocol):
    """Decodes and encodes files."""

    def run(
        self,
        tasks: Sequence[IndexTask],
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        sink: Sink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        """Decode and encode the files of all tasks, then close the sink.

        A file that cannot be decoded is finished with its verdict; it ends nothing else. Anything else that
        fails ends the run: the first error is raised, and the sink is not closed.

        Args:
            tasks: the files. The engine may take them in any order, and several at a time.
            decode_spec: how to decode them.
            encode_spec: how to encode their segments.
            sink: gets the rows and the outcome of every file.
            emit: told of every `FileStarted` and `SegmentEncoded`; may be called by any thread.
            stop: when set, no further file is begun. A file that is not decoded to its end by then need not
                be finished; the sink is closed as interrupted.

        Raises:
            BundleError: the bundle cannot be opened, or fails.
            LibraryError: the sink cannot write.
            ReelfindError: the engine cannot work, for instance start its processes.
        """
