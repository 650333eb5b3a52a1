"""Metrics of a run on Ray, which the cluster exports for Prometheus beside its own: see Ray's dashboard."""

from typing import Any

from indexer.decode import FileKnown, FileOutcome, FileUnreached


class RunMetrics:
    """Counts what a run does. In Prometheus names begin with `ray_`, and those of counters end in `_total`.

    Args:
        metrics: the module `ray.util.metrics`.
    """

    def __init__(self, metrics: Any) -> None:
        self._files = metrics.Counter(
            "reelfind_index_files",
            "Files finished, by verdict, or known or unreached.",
            ("verdict",),
        )
        self._decoded_seconds = metrics.Counter(
            "reelfind_index_decoded_seconds", "Seconds of video decoded, in segments."
        )
        self._encoded_frames = metrics.Counter("reelfind_index_encoded_frames", "Frames encoded.")
        self._bytes_in_flight = metrics.Gauge(
            "reelfind_index_bytes_in_flight",
            "Bytes of segments that are decoded, and of rows that are encoded, and not stored yet.",
        )
        self._actors_lost = metrics.Counter(
            "reelfind_index_actors_lost", "Actors that were lost and started again, by kind.", ("kind",)
        )
        self._in_flight = 0

    def finished(self, outcome: FileOutcome) -> None:
        """A file is finished."""
        match outcome:
            case FileKnown():
                verdict = "known"
            case FileUnreached():
                verdict = "unreached"
            case _:
                verdict = outcome.verdict
        self._files.inc(tags={"verdict": verdict})

    def decoded(self, seconds: float) -> None:
        """A segment is decoded that lasts so long."""
        if seconds > 0:
            self._decoded_seconds.inc(seconds)

    def encoded(self, frames: int) -> None:
        """Frames are encoded."""
        if frames:
            self._encoded_frames.inc(frames)

    def lost(self, kind: str) -> None:
        """An actor is lost: a decoder or an encoder."""
        self._actors_lost.inc(tags={"kind": kind})

    def in_flight(self, num_bytes: int) -> None:
        """So many bytes lie between decoding and storing now."""
        if num_bytes != self._in_flight:
            self._in_flight = num_bytes
            self._bytes_in_flight.set(num_bytes)
