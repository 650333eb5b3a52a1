"""What a process is asked to do with a file, and how that is handed to it. Imports little: it starts fast."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from model.runtime.sandbox.confinement import SandboxMode

#: Pixels a second of H.264's level 5.2, about: no browser need decode more.
MAX_HEIGHT = 2160


@dataclass(frozen=True)
class StreamJob:
    """Make a stream of a video from a time on, to its end: fragmented MP4 with H.264 and AAC.

    Attributes:
        start_seconds: which time of the video is time 0 of the stream.
        known_seconds: the video's length.
        max_height: rows of the picture, of one that is wider than high; see `encoded_size`.
    """

    start_seconds: float
    known_seconds: float
    max_height: int


@dataclass(frozen=True)
class ClipJob:
    """Cut a clip out of a video: MP4, copied where that is exact, else encoded as H.264 and AAC.

    Attributes:
        start_seconds: where it starts.
        end_seconds: where it ends.
        known_seconds: the video's length.
        max_height: rows of an encoded picture, as in `StreamJob`.
    """

    start_seconds: float
    end_seconds: float
    known_seconds: float
    max_height: int


@dataclass(frozen=True)
class DescribeJob:
    """Read what a file's header says: a `MediaDescription`."""


Job = StreamJob | ClipJob | DescribeJob
_KINDS: dict[str, type[Job]] = {"stream": StreamJob, "clip": ClipJob, "describe": DescribeJob}


@dataclass(frozen=True)
class Bounds:
    """What the process may use.

    Attributes:
        sandbox: whether it is confined to the file.
        memory_bytes: address space.
        cpu_seconds: of all its threads together.
        output_bytes: the size of a file that it writes.
        threads: of the decoder and of the encoder, each.
    """

    sandbox: SandboxMode
    memory_bytes: int
    cpu_seconds: int
    output_bytes: int
    threads: int


@dataclass(frozen=True)
class Order:
    """All that a process is told.

    Attributes:
        job: what to do.
        bounds: what it may use.
        media: the descriptor of the open file.
        output: the descriptor to write to; -1: none is needed.
        parent: the id of the process that started it.
    """

    job: Job
    bounds: Bounds
    media: int
    output: int
    parent: int

    def pack(self) -> str:
        """The order as one line of text."""
        kind = next(name for name, known in _KINDS.items() if isinstance(self.job, known))
        fields = asdict(self)
        return json.dumps({**fields, "kind": kind})

    @classmethod
    def unpack(cls, text: str) -> Order:
        """Read what `pack` has written."""
        fields = json.loads(text)
        job = _KINDS[fields["kind"]](**fields["job"])
        return cls(job, Bounds(**fields["bounds"]), fields["media"], fields["output"], fields["parent"])


#: Why a process could not do its job: the file's fault, or there is no sandbox where one is required.
FailureKind = Literal["media", "unconfined"]
