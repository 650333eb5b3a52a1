"""Encodes decoded segments to the rows of a library.

All inputs are picklable, and nothing here starts a thread or a process: an engine decides where it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.decode import DecodedSegment
from indexer.library.schema import Layout, SegmentRow
from indexer.plan import IndexTask
from model.runtime.bundle import Bundle, Provider
from model.runtime.bundle.segments import encode_whole_segments
from model.runtime.cores import available_cores
from model.runtime.errors import BundleError, OutputError
from model.runtime.ranking import cut_embeddings
from model.runtime.tokens import QuantisedTokens, store_tokens

#: Frames of one model call on a CPU: more are not faster and take more memory.
_CPU_CALL_FRAMES = 4

#: A decoded segment with the task that it belongs to.
TaskSegment = tuple[IndexTask, DecodedSegment]


@dataclass(frozen=True)
class EncodeSpec:
    """How to encode the segments of a run.

    Attributes:
        bundle_folder: the bundle's absolute path.
        provider: where the model runs.
        threads: CPU threads of one model call; None lets ONNX Runtime choose.
        max_batch: frames of one model call, at most.
        batch_frames: about how many frames an engine gathers before it encodes them.
        layout: the library's layout: its bundle and how it stores tokens.
        pinned: see `Bundle.open`.
    """

    bundle_folder: Path
    provider: Provider
    threads: int | None
    max_batch: int
    batch_frames: int
    layout: Layout
    pinned: bool = False

    @classmethod
    def of(cls, bundle: Bundle, layout: Layout, batch_frames: int) -> "EncodeSpec":
        """How to encode with this open bundle."""
        return cls(
            bundle.folder,
            bundle.provider,
            bundle.threads,
            bundle.max_batch,
            batch_frames,
            layout,
            bundle.pinned,
        )

    @property
    def pad_to(self) -> int | None:
        """Batches are padded to a multiple of this, so that a GPU sees one shape; None: no padding."""
        return None if self.provider == "cpu" else self.batch_frames

    def open_bundle(self, engine_cache: Path | None = None) -> Bundle:
        """Open the bundle in this process.

        Args:
            engine_cache: where TensorRT caches the engines it builds; None: no cache.

        Raises:
            BundleError: the bundle cannot be read, is not the library's, or its provider is not active.
        """
        bundle = Bundle.open(
            self.bundle_folder,
            provider=self.provider,
            threads=self.threads,
            max_batch=self.max_batch,
            cache_dir=engine_cache,
            pinned=self.pinned,
        )
        if bundle.checksum != self.layout.bundle_checksum:
            raise BundleError(
                f"the bundle at {self.bundle_folder} has changed since the run began: "
                "run `reelfind index` again"
            )
        return bundle


def open_indexing_bundle(
    folder: Path,
    provider: Provider,
    threads: int | None,
    batch_frames: int,
    engine_cache: Path | None = None,
    *,
    pinned: bool = False,
) -> tuple[Bundle, int]:
    """Open a bundle for indexing on this machine.

    Args:
        folder: the bundle's folder.
        provider: where the model runs.
        threads: CPU threads for the model; None: as many as there are cores.
        batch_frames: frames that a GPU encodes at once.
        engine_cache: where TensorRT caches the engines it builds; None: no cache.
        pinned: see `Bundle.open`.

    Returns:
        The bundle, and how many batches to encode at the same time: on a CPU as many as `threads`, each in
        one thread.

    Raises:
        BundleError: the bundle cannot be read, or the provider is not active.
    """
    if provider != "cpu":
        gpu_bundle = Bundle.open(
            folder,
            provider=provider,
            threads=threads,
            max_batch=batch_frames,
            cache_dir=engine_cache,
            pinned=pinned,
        )
        return gpu_bundle, 1
    bundle = Bundle.open(folder, threads=1, max_batch=min(batch_frames, _CPU_CALL_FRAMES), pinned=pinned)
    return bundle, threads or available_cores()


@dataclass(frozen=True)
class SegmentLost:
    """A segment for which the model gives no usable numbers. The rest of its file is kept."""

    ingest_id: str
    start_seconds: float
    reason: str


#: What becomes of a segment.
EncodedSegment = SegmentRow | SegmentLost


def encode_batch(bundle: Bundle, spec: EncodeSpec, batch: Sequence[TaskSegment]) -> list[EncodedSegment]:
    """Encode segments, of one or several files, together.

    If the model gives NaN for one of them, that one is set aside, and the others are encoded.

    Args:
        bundle: opened as in `spec`.
        spec: how to encode.
        batch: at least one segment.

    Returns:
        A row for each segment, or why there is none, in order.

    Raises:
        BundleError: the bundle fails on every input, or its tokens cannot be stored in this layout.
    """
    try:
        return list(_encode(bundle, spec, batch))
    except OutputError as error:
        if len(batch) > 1:
            return [encoded for segment in batch for encoded in encode_batch(bundle, spec, [segment])]
        # If it gives no numbers for its own test pictures either, the bundle is at fault and not the video.
        bundle.check()
        [(task, segment)] = batch
        reason = f"the model gives no usable numbers for it: {str(error).partition(': ')[2] or error}"
        return [SegmentLost(task.ingest_id, segment.start_seconds, reason)]


def lost_if_not_finite(row: SegmentRow) -> SegmentLost | None:
    """Why a row may not be stored: vectors that are not finite cannot be searched."""
    for name, vectors in (("embedding", row.embedding), ("frame_salience", row.frame_salience)):
        if not np.isfinite(vectors).all():
            reason = f"its {name} holds NaN or infinity"
            return SegmentLost(row.ingest_id, row.start_seconds, reason)
    return None


def _encode(bundle: Bundle, spec: EncodeSpec, batch: Sequence[TaskSegment]) -> list[SegmentRow]:
    counts = [len(segment.frames) for _, segment in batch]
    frames = np.concatenate([segment.frames for _, segment in batch])
    encoding = encode_whole_segments(
        bundle, frames, counts, tokens=spec.layout.tokens != "none", pad_to=spec.pad_to
    )
    segment_embedding = encoding.embedding
    if spec.layout.full_embedding_dim is not None:
        segment_embedding = cut_embeddings(segment_embedding, spec.layout.embedding_dim)
    hubness = None if spec.layout.hubness_weight is None else bundle.hubness(segment_embedding)
    tokens = None if encoding.tokens is None else _stored_tokens(bundle, spec.layout, encoding.tokens)
    ends = np.cumsum(counts)
    rows = []
    for i, (task, segment) in enumerate(batch):
        frames_of_segment = slice(ends[i] - counts[i], ends[i])
        rows.append(
            SegmentRow(
                ingest_id=task.ingest_id,
                segment_index=segment.index,
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
                frame_pts_seconds=segment.pts_seconds,
                frame_salience=encoding.salience[frames_of_segment],
                embedding=segment_embedding[i],
                thumbnails=segment.thumbnails,
                tokens=None if tokens is None else tokens[frames_of_segment],
                hubness=None if hubness is None else float(hubness[i]),
            )
        )
    return rows


def _stored_tokens(
    bundle: Bundle, layout: Layout, tokens: NDArray[np.float32]
) -> QuantisedTokens | NDArray[np.float32]:
    """The tokens of F frames as the library stores them. [F, P, H] → [F, P', H]."""
    try:
        return store_tokens(tokens, layout.tokens_per_frame, int8=layout.tokens == "int8")
    except ValueError as error:
        raise BundleError(f"{bundle.folder}: {error}; index with --tokens float32") from error
