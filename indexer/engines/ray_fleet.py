"""The actors of a run on Ray: starts them, knows which are ready, and replaces those that are lost."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from indexer.decode import DecodeSpec
from indexer.encode import EncodeSpec
from indexer.engines.local_decoders import Bounds
from indexer.engines.ray_actors import (
    DecodingActor,
    EncodingActor,
    NodeReport,
    SegmentReport,
    SharedTables,
    same_versions,
)
from indexer.engines.ray_cluster import ActorPlan
from indexer.engines.ray_metrics import RunMetrics
from indexer.engines.ray_readings import Reading, WaitingRow
from model.runtime.errors import InputError, ReelfindError
from model.runtime.tracing import TraceOrigin

#: Actors that may be lost, one after the other, before one of them is ready.
_MOST_FAILED_STARTS = 8
#: How long actors may take to send their last spans.
_CLOSE_SECONDS = 10.0
#: How often to say that the cluster has no room yet.
_WAITING_SECONDS = 30.0

#: A reference to what a call of an actor will give.
Ref = Any


class Member:
    """An actor. It is ready when `opening` is None."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.opening: Ref | None = handle.open.remote()

    @property
    def is_ready(self) -> bool:
        """Whether it can be given work."""
        return self.opening is None


@dataclass(frozen=True)
class WaitingPart:
    """A part that a decoder was asked for: references to what it is, and to its segment."""

    report: Ref
    segment: Ref
    reading: Reading


@dataclass(frozen=True)
class WaitingSegment:
    """A decoded segment of a file, which lies in the object store."""

    reading: Reading
    segment: Ref
    report: SegmentReport


class Decoder(Member):
    """A decoding actor.

    Attributes:
        reading: the file that it reads.
        parts: what it was asked for, the oldest first.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.reading: Reading | None = None
        self.parts: deque[WaitingPart] = deque()


@dataclass(frozen=True)
class EncodeCall:
    """Segments that an encoder encodes: references to what becomes of them, and to their rows."""

    result: Ref
    rows: Ref
    segments: list[WaitingSegment]


@dataclass(frozen=True)
class WriteCall:
    """Rows that an encoder stores: a reference to their fragments.

    Attributes:
        result: the reference.
        rows: the rows of each file, and what of it is set aside.
        are_last: whether they are the last ones of these files.
    """

    result: Ref
    rows: Mapping[Reading, list[WaitingRow]]
    are_last: bool


class Encoder(Member):
    """An encoding actor. It encodes all segments of a file, so that they stay in order.

    Attributes:
        num_files: how many files it encodes.
        segments: what it has not been given yet, the oldest first.
        calls: what it was asked for, the oldest first.
        ended: files that are encoded to their ends, and wait to be stored together.
        ended_since: when the first one of these came, by `time.monotonic`.
        sees_library: whether it stores rows.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.num_files = 0
        self.segments: deque[WaitingSegment] = deque()
        self.calls: deque[EncodeCall | WriteCall] = deque()
        self.ended: list[Reading] = []
        self.ended_since = 0.0
        self.sees_library = False


M = TypeVar("M", bound=Member)


class Crew(Generic[M]):
    """All actors of one kind."""

    def __init__(self, start: Callable[[], M], count: int) -> None:
        self._start = start
        self.members = [start() for _ in range(count)]

    def ready(self) -> Iterator[M]:
        """Those that can be given work."""
        return (member for member in self.members if member.is_ready)

    def replace(self, member: M) -> None:
        """Start another one in place of one that is lost."""
        self.members[self.members.index(member)] = self._start()


class Fleet:
    """The actors of a run.

    Args:
        ray: the module, connected.
        plan: how many actors there are.
        bounds: what a file may take.
        decode_spec: how to decode.
        encode_spec: how to encode.
        tables: where encoders store rows.
        origin: where spans of actors come from; None: they make none.
        metrics: counts the actors that are lost.
        note: tells the user something.
    """

    def __init__(
        self,
        ray: Any,
        plan: ActorPlan,
        bounds: Bounds,
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        tables: SharedTables,
        origin: TraceOrigin | None,
        metrics: RunMetrics,
        note: Callable[[str], None],
    ) -> None:
        self._ray = ray
        self._has_spans = origin is not None
        self._metrics = metrics
        self._note = note
        self._failed_starts = 0
        self._idle_since = time.monotonic()
        self._noted: set[str] = set()
        # An actor that is lost is replaced here, since its work must be given out again.
        options = {"max_restarts": 0, "scheduling_strategy": "SPREAD"}
        decoding = ray.remote(DecodingActor).options(**options, **plan.of_decoder)
        encoding = ray.remote(EncodingActor).options(**options, **plan.of_encoder)
        self.encoders = Crew(lambda: Encoder(encoding.remote(encode_spec, tables, origin)), plan.encoders)
        self.decoders = Crew(lambda: Decoder(decoding.remote(bounds, decode_spec, origin)), plan.decoders)

    def opened(self, member: Member, report: NodeReport) -> None:
        """An actor is ready.

        Raises:
            InputError: its node has other versions.
        """
        member.opening = None
        self._failed_starts = 0
        ours = dict(same_versions())
        other = [
            f"{name} {found}, not {ours[name]}" for name, found in report.versions if ours[name] != found
        ]
        if other:
            raise InputError(
                f"the node {report.host} of the Ray cluster has {'; '.join(other)}: use the same image, or "
                "the same `constraints.txt`, on all nodes"
            )
        if isinstance(member, Encoder):
            member.sees_library = report.sees_library
            if not report.sees_library:
                self._note_once(
                    f"the node {report.host} does not see the library's folder, or may not write there: this "
                    "computer stores its rows"
                )
        else:
            self._note_once(report.confinement)

    def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)

    def lost(self, member: Member, error: Exception) -> None:
        """An actor is lost: start another one.

        Raises:
            ReelfindError: none can be started.
        """
        # It may only be out of reach.
        self._ray.kill(member.handle)
        if not member.is_ready:
            self._failed_starts += 1
            if self._failed_starts > _MOST_FAILED_STARTS + len(self.decoders.members):
                raise ReelfindError(f"actors of the Ray cluster end as they start: {one_line(error)}")
        if isinstance(member, Decoder):
            self._metrics.lost("decoder")
            self.decoders.replace(member)
        elif isinstance(member, Encoder):
            self._metrics.lost("encoder")
            self.encoders.replace(member)

    def say_if_waiting(self) -> None:
        """Tell now and then that nothing goes on because the cluster has no room."""
        decoders, encoders = (sum(1 for _ in crew.ready()) for crew in (self.decoders, self.encoders))
        now = time.monotonic()
        if decoders and encoders:
            self._idle_since = now
        elif now - self._idle_since > _WAITING_SECONDS:
            self._idle_since = now
            self._note(
                f"waiting for the Ray cluster: {decoders} of {len(self.decoders.members)} decoders and "
                f"{encoders} of {len(self.encoders.members)} encoders have a place (`ray status`)"
            )

    def close(self) -> None:
        """End all actors, after they have sent their spans."""
        members = [*self.decoders.members, *self.encoders.members]
        if self._has_spans:
            closing = [member.handle.close.remote() for member in members if member.is_ready]
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        for member in members:
            self._ray.kill(member.handle)


def one_line(error: Exception) -> str:
    """What an error of Ray says, without the traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
