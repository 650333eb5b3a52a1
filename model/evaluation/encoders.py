"""An exported bundle as an `Encoder` for evaluation.

Shapes: B batch or pairs, N frame slots, P tokens a frame, H width of frame tokens, D joint space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames
from model.families.encoder import FrameChoice, Profile
from model.runtime.bundle import Bundle, FrameEncoding, SegmentEncoding, TextEncoding
from model.runtime.bundle.segments import encode_whole_segments


def bundle_encoder(bundle: Bundle) -> BundleEncoder:
    """A bundle as an encoder, one of whole segments if it has a video encoder."""
    return VideoBundleEncoder(bundle) if bundle.manifest.has_video_encoder else BundleEncoder(bundle)


class BundleEncoder:
    """An exported bundle, see `model.families.encoder.Encoder`."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def profile(self) -> Profile:
        """The settings of the manifest."""
        manifest = self.bundle.manifest
        tokens = manifest.tokens
        return Profile(
            resizing=manifest.image.resizing,
            frames_per_segment=manifest.frames_per_segment,
            segment_seconds=manifest.segment_seconds,
            num_salient_frames=manifest.num_salient_frames,
            num_candidates=manifest.num_candidates,
            ensemble_lambda=manifest.ensemble_lambda,
            tokens_per_frame=None if tokens is None else tokens.stored_tokens_per_frame,
            salience_match=manifest.salience_match,
            hubness=self.bundle.hubness_correction,
            has_salience=manifest.has_salience,
        )

    @property
    def has_matcher(self) -> bool:
        """Whether the bundle has a matcher."""
        return "match" in self.bundle.capabilities

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """As `Bundle.encode_frames`."""
        return self.bundle.encode_frames(frames, tokens=tokens)

    def segments(self, frames: Array, mask: Array) -> Array:
        """As `Bundle.encode_segments`."""
        return self.bundle.encode_segments(frames, mask)

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """As `Bundle.encode_text`."""
        return self.bundle.encode_text(list(texts), tokens=tokens)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """As `Bundle.vocabulary`."""
        return self.bundle.vocabulary

    @property
    def frames_read(self) -> FrameChoice:
        """Salient ones: other heads are not exported."""
        return "salient"

    def answer(
        self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array, frame_mask: Array
    ) -> Array:
        """The logits of `Bundle.answer`."""
        return self.bundle.answer(text, text_rows, frame_tokens, frame_mask > 0).logits

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """As `Bundle.match`."""
        return self.bundle.match(text, text_rows, frame_tokens)


class VideoBundleEncoder(BundleEncoder):
    """A bundle whose video encoder reads all frames of a segment, see `ReadsWholeSegments`."""

    def whole_segments(self, frames: Frames, counts: Sequence[int]) -> SegmentEncoding:
        """As `encode_whole_segments`."""
        return encode_whole_segments(self.bundle, frames, counts)
