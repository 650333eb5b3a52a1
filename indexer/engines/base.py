"""The protocols between an indexing run and the engine that decodes and encodes for it.

    scan ─▶ plan ─▶ tasks ─▶ Engine: decode ─▶ encode ─▶ Sink: commit, publish

An engine decides where files are decoded and encoded: in processes and threads of this machine, or elsewhere.
All data that it sends is picklable: `IndexTask`, `DecodeSpec`, `DecodeJob` and what `decode_file` yields,
`EncodeSpec`, and the rows that `encode_batch` returns. But an engine must not unpickle what a decoder sends,
since a file may have taken it over: see `indexer.engines.messages`.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from indexer.decode import DecodeSpec, FileOutcome
from indexer.encode import EncodedSegment, EncodeSpec
from indexer.events import Event
from indexer.file_texts import FileTexts
from indexer.library.fragments import WrittenSegments
from indexer.plan import IndexTask

#: A file, the outcome of decoding it, and its texts; see `Sink.finish`.
FinishedFile = tuple[IndexTask, FileOutcome, FileTexts | None]


class Sink(Protocol):
    """Receives an engine's results. Only one of its methods may run at a time."""

    @property
    def tables(self) -> Path:
        """Where an engine may write segments itself (`write_segments`), from any process that sees it."""

    def add_written(
        self, written: WrittenSegments, counts: Mapping[str, tuple[int, int]], ends: Sequence[FinishedFile]
    ) -> None:
        """Add segments that the engine has written, in place of `add`, and finish their files.

        Args:
            written: the segments; their numbers in each file go on without gaps.
            counts: how many segments and frames of each file they are, by `ingest_id`.
            ends: the end of each of these files. Empty: they are of one file, which goes on.
        """

    def add(self, rows: Sequence[EncodedSegment]) -> None:
        """Add segments of any files; those of one file come in time order."""

    def finish(self, task: IndexTask, outcome: FileOutcome, texts: FileTexts | None = None) -> None:
        """Finish a file after adding all of its rows. Rows of a file that is never finished do not count.

        Args:
            task: the file.
            outcome: of decoding it.
            texts: its texts, see `read_texts`; None: they were not read. What the library has of a file that
                is unchanged stays then, and the next run reads those of another one.
        """

    def close(self, *, interrupted: bool) -> None:
        """Commit the finished files and end the run.

        Args:
            interrupted: the run was asked to stop, so some tasks may not be finished.
        """


class Engine(Protocol):
    """Decodes and encodes files."""

    def run(
        self,
        tasks: Collection[IndexTask],
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        sink: Sink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        """Decode and encode the files of all tasks, then close the sink.

        A file that cannot be decoded is finished with its verdict, and the run continues. Of a task with
        `kept_mtime_ns` only the texts are read, and its outcome is that of `kept_outcome`. Any other failure
        ends the run: the first error is raised, and the sink is not closed.

        Args:
            tasks: the files, which the engine may process in any order and several at a time. Going on to the
                next one may take time: see `SettledTasks`.
            decode_spec: how to decode them.
            encode_spec: how to encode their segments.
            sink: receives the rows and the outcome of every file.
            emit: receives every `FileStarted` and `SegmentEncoded`; may be called from any thread.
            stop: when set, no further file is started. A file that is not fully decoded by then need not be
                finished; the sink is closed as interrupted.

        Raises:
            BundleError: the bundle cannot be opened, or fails.
            LibraryError: the sink cannot write.
            ReelfindError: the engine fails, for instance to start its processes.
        """
