"""What each stage of indexing takes, as measured on one machine, and the file that holds it.

The figures of a stage are those of the stage alone. `core_seconds` is CPU time of all threads and processes
together, `elapsed_seconds` is time on the clock.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.runtime.errors import InputError

_KEY = "rates"
_MEASURE = "`reelfind bench --only stages --json > rates.json`"
_Positive = Annotated[float, Field(gt=0)]
_Least0 = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(gt=0)]


class _Rates(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DecodingRates(_Rates):
    """What decoding videos of one kind takes.

    Attributes:
        core_seconds_per_second: for each second of video, besides what files and sampled frames take.
        picture_core_seconds_per_frame: for scaling a sampled frame and making its thumbnail.
        cores_used: how many cores one decoding process keeps busy while it decodes.
        media_bytes_per_second: size of the files for each second of video.
        files: how many files were measured.
        seconds: how long they are together.
    """

    core_seconds_per_second: _Positive
    picture_core_seconds_per_frame: _Positive
    cores_used: Annotated[float, Field(ge=1)]
    media_bytes_per_second: _Positive
    files: _Count
    seconds: _Positive


class EncodingRates(_Rates):
    """What encoding takes.

    Attributes:
        provider: where the model ran.
        batch_frames: about how many frames were encoded together.
        core_seconds_per_frame: CPU time for each sampled frame; beside a GPU, that of its host.
        elapsed_seconds_per_frame: with a GPU, the time of that GPU for each frame.
    """

    provider: str
    batch_frames: _Count
    core_seconds_per_frame: _Positive
    elapsed_seconds_per_frame: _Positive


class WritingRates(_Rates):
    """What writing a library takes, of one writer.

    Attributes:
        core_seconds_per_segment: CPU time.
        elapsed_seconds_per_segment: time on the clock, flushing to disk included.
        library_bytes_per_segment: size of all tables for each segment, of libraries of the measured videos.
    """

    core_seconds_per_segment: _Positive
    elapsed_seconds_per_segment: _Positive
    library_bytes_per_segment: _Positive


class PublishingRates(_Rates):
    """What publishing a library takes that was not published before.

    Attributes:
        elapsed_seconds: for a library of any size.
        elapsed_seconds_per_segment: for the vector index and the tables' keys.
        elapsed_seconds_per_byte: for the checksums of the tables' files.
        index_bytes_per_segment: size of the vector index for each segment.
        segments: the size of the largest library that was measured.
    """

    elapsed_seconds: _Least0
    elapsed_seconds_per_segment: _Least0
    elapsed_seconds_per_byte: _Least0
    index_bytes_per_segment: _Positive
    segments: _Count


class StageRates(_Rates):
    """What indexing takes on the machine where it was measured.

    Attributes:
        cores: of that machine.
        bundle: name of the bundle.
        segment_seconds: the longest segment.
        frames_per_segment: frames sampled from a segment.
        core_seconds_per_file: for each file, however short: a process of its own, its checksum, its header.
        start_seconds: of a run, besides its files.
        start_core_seconds: CPU time of the same.
        efficiency: what the busiest stage alone takes ÷ what all stages together take, of a run without its
            start and its publishing; at most 1.
        decoding: by the kind of the videos.
    """

    cores: _Count
    bundle: str
    segment_seconds: _Positive
    frames_per_segment: _Count
    core_seconds_per_file: _Least0
    start_seconds: _Least0
    start_core_seconds: _Least0
    efficiency: Annotated[float, Field(gt=0, le=1)]
    decoding: Annotated[dict[str, DecodingRates], Field(min_length=1)]
    encoding: EncodingRates
    writing: WritingRates
    publishing: PublishingRates

    def to_json(self) -> dict[str, Any]:
        """The rates as a JSON object: the value of `rates` in what `reelfind bench --json` prints."""
        return self.model_dump(mode="json")


def read_rates(path: Path) -> StageRates:
    """Read the rates in a file that `reelfind bench --json` or `reelfind bench plan --json` has printed.

    Raises:
        InputError: the file cannot be read, or holds no rates, or others than these.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read as JSON ({reason}): write it with {_MEASURE}") from error
    rates = body.get(_KEY) if isinstance(body, dict) else None
    if rates is None:
        raise InputError(f"{path} has no {_KEY!r}: write it with {_MEASURE}")
    try:
        return StageRates.model_validate(rates)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (_KEY, *first["loc"])))
        raise InputError(f"{path}: {place}: {first['msg']}; write it again with {_MEASURE}") from error
