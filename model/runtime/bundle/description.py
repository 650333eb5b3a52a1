"""What the author of a bundle says about it; the writer adds the files and their checksums."""

from __future__ import annotations

from dataclasses import dataclass

from model.runtime.bundle.hubness import HubnessCorrection
from model.runtime.bundle.manifest import (
    Calibration,
    ImageSpec,
    Moments,
    Provenance,
    SalienceMatch,
    SalienceStrategy,
    TokenSizes,
)
from model.runtime.bundle.references import ReferenceImages
from model.runtime.preprocessing import UnicodeForm


@dataclass(frozen=True)
class BundleDescription:
    """Everything that `bundle.json` says besides its files. The writer checks the values.

    Attributes:
        name: a short name of the bundle.
        licence: an SPDX expression, or "not stated".
        provenance: recipe, data, published weights, commit and measured figures.
        embedding_dim: D, the dimensions of an embedding.
        salience_dim: S, the dimensions of a salience vector; None: the model says nothing of single frames.
        image: how a frame becomes the input of the frame or video encoder.
        context_length: longest text in tokens.
        description: what the bundle is good for.
        tokens: sizes of the encoders' tokens; None: they return none, and there is no matcher.
        frames_per_segment: N.
        segment_seconds: the longest segment.
        num_salient_frames: frames of a segment that are matched for a query.
        num_candidates: segments that are re-ranked for a query.
        salience_strategy: what the salience vectors are made of; None: there are none.
        ensemble_lambda: weight of the similarity beside the match score.
        calibration: turns scores into probabilities; None: not calibrated.
        salience_match: re-ranks by the relevance of the salient frames, without a matcher; None: the matcher
            re-ranks, if there is one.
        hubness: what a search subtracts from similarities; None: nothing.
        answers: the answers that the answer head knows, in the order of its logits; empty: there is none.
        moments: what the moment head was trained for; None: there is none.
        unicode_form: the form of Unicode that texts have before the tokenizer reads them.
        embedding_dims: the smaller sizes to which a library may cut embeddings, rising; empty: none.
        languages: that the text encoder reads, as codes of ISO 639; empty: not known.
        reference_images: images that the calibration compares queries with; None: none.
    """

    name: str
    licence: str
    provenance: Provenance
    embedding_dim: int
    salience_dim: int | None
    image: ImageSpec
    context_length: int
    description: str = ""
    tokens: TokenSizes | None = None
    frames_per_segment: int = 16
    segment_seconds: float = 32.0
    num_salient_frames: int = 2
    num_candidates: int = 100
    salience_strategy: SalienceStrategy | None = "collaborative"
    ensemble_lambda: float = 1.0
    calibration: Calibration | None = None
    salience_match: SalienceMatch | None = None
    hubness: HubnessCorrection | None = None
    answers: tuple[str, ...] = ()
    moments: Moments | None = None
    unicode_form: UnicodeForm = "NFKC"
    languages: tuple[str, ...] = ()
    embedding_dims: tuple[int, ...] = ()
    reference_images: ReferenceImages | None = None
