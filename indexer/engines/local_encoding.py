"""The encoding stage of the local engine: gathers batches across files and encodes several at a time."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from indexer.decode import DecodedSegment
from indexer.encode import EncodedSegment, EncodeSpec, TaskSegment, encode_batch
from indexer.engines.channel import Channel
from indexer.engines.writing import FileEnd, ToWriter
from indexer.events import Event, SegmentEncoded
from indexer.plan import IndexTask
from model.runtime.bundle import Bundle
from model.runtime.tracing import carried, span


class DecoderEnded:
    """A decoder thread has no more files."""


#: What the decoder threads send: each file's parts in order.
FromDecoder = tuple[IndexTask, DecodedSegment | FileEnd] | DecoderEnded


@dataclass
class _SegmentBatch:
    """Segments to encode together, and the ends of files that follow them."""

    segments: list[TaskSegment] = field(default_factory=list)
    file_ends: list[tuple[IndexTask, FileEnd]] = field(default_factory=list)
    rows: Future[list[EncodedSegment]] | None = None


class EncodingStage:
    """Encodes segments to rows, in the order in which the segments come.

    Args:
        bundle: opened as in `spec`.
        spec: how to encode.
        encoders: batches encoded at the same time.
        decoded: where decoded parts come from.
        encoded: where rows and ends of files go.
        emit: receives `SegmentEncoded` for every segment.
    """

    def __init__(
        self,
        bundle: Bundle,
        spec: EncodeSpec,
        encoders: int,
        decoded: Channel[FromDecoder],
        encoded: Channel[ToWriter],
        emit: Callable[[Event], None],
    ) -> None:
        self._bundle = bundle
        self._spec = spec
        self._encoders = encoders
        self._decoded = decoded
        self._encoded = encoded
        self._emit = emit
        self._decoders_left = 0

    def run(self, decoders: int) -> None:
        """Encode what `decoders` threads send until all of them have ended.

        Raises:
            BundleError: see `encode_batch`.
            AbortedError: another thread failed.
        """
        self._decoders_left = decoders
        under_way: deque[_SegmentBatch] = deque()
        pool = ThreadPoolExecutor(self._encoders, thread_name_prefix="encoder")
        try:
            while self._decoders_left:
                # If nothing is decoded yet, finish a batch under way: it must not wait for a slow file.
                first = self._decoded.get_if_any() if under_way else self._decoded.get()
                if first is not None:
                    batch = self._gather(first)
                    if batch.segments:
                        batch.rows = pool.submit(carried(_encode), self._bundle, self._spec, batch.segments)
                    under_way.append(batch)
                if first is None or len(under_way) > self._encoders:
                    self._hand_over(under_way.popleft())
            while under_way:
                self._hand_over(under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, first: FromDecoder) -> _SegmentBatch:
        """A batch of `first` and what is decoded by now: waiting for more would leave the encoders idle."""
        batch, num_frames = _SegmentBatch(), 0
        following: FromDecoder | None = first
        while following is not None:
            if isinstance(following, DecoderEnded):
                self._decoders_left -= 1
            else:
                task, part = following
                if isinstance(part, DecodedSegment):
                    batch.segments.append((task, part))
                    num_frames += len(part.frames)
                else:
                    batch.file_ends.append((task, part))
            if num_frames >= self._spec.batch_frames or not self._decoders_left:
                break
            following = self._decoded.get_if_any()
        return batch

    def _hand_over(self, batch: _SegmentBatch) -> None:
        if batch.rows is not None:
            self._encoded.put(batch.rows.result())
            for task, segment in batch.segments:
                self._emit(SegmentEncoded(task.path, segment.end_seconds - segment.start_seconds))
        # A file's end must come after its last segment, so send it after the whole batch.
        for file_end in batch.file_ends:
            self._encoded.put(file_end)


def _encode(bundle: Bundle, spec: EncodeSpec, segments: list[TaskSegment]) -> list[EncodedSegment]:
    """`encode_batch`, in a span."""
    with span("encode") as encoding:
        encoding.set("reelfind.segments", len(segments))
        return encode_batch(bundle, spec, segments)
