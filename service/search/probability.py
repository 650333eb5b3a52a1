"""How likely each moment shows or says what is asked, by the bundle's calibration.

Pictures count by their calibrated score. A line of text with all of the query's letters counts as nine of
ten, times its weight where that is below 1; a line with fewer, times its strength. This is a rule and not
calibrated. Each kind of evidence may be right by itself: the moment is wrong only if all are.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import ScoreCalibration
from model.runtime.calibration import SearchEvidence, background_of, levels, probabilities
from service.search.encoded_query import EncodedQuery
from service.search.scored_spans import ScoredSpan
from service.search.texts import Modalities, strongest

#: How likely a line with all words of a query means what was asked.
_LINE = 0.9
PROBABILITY_DECIMALS = 4


def evidence_of(
    bundle: Bundle, query: EncodedQuery, first_stage_scores: NDArray[np.float32]
) -> SearchEvidence:
    """What a search knows of its query and library; nothing, which costs nothing, without a calibration.

    Args:
        bundle: the model.
        query: the query.
        first_stage_scores: of the segments that are best in the whole library, in any order, [K].

    Raises:
        BundleError: the reference texts fail.
    """
    if bundle.manifest.calibration is None:
        return SearchEvidence(None, None)
    familiarity = None
    if bundle.hubness_correction is not None:
        familiarity = float(bundle.hubness(query.embedding[None])[0])
    return SearchEvidence(background_of(np.sort(first_stage_scores)[::-1]), familiarity)


def rate(
    bundle: Bundle,
    evidence: SearchEvidence,
    groups: Sequence[Sequence[ScoredSpan]],
    modalities: Modalities,
    *,
    reranked: bool,
) -> list[list[ScoredSpan]]:
    """The moments of each group with their probabilities and levels, or without if there is no calibration.

    Args:
        bundle: the model.
        evidence: of the search.
        groups: the moments, such as those of a video.
        modalities: the weights of the kinds of evidence.
        reranked: whether the scores are final ones.
    """
    fitted: ScoreCalibration | None = None
    if (calibration := bundle.manifest.calibration) is not None:
        fitted = calibration.final if reranked else calibration.first_stage
    spans = [span for group in groups for span in group]
    if fitted is None or not spans:
        return [list(group) for group in groups]
    shown = np.zeros(len(spans))
    if modalities.visual:
        visual = np.array([(span.score - span.text_term) / span.visual_weight for span in spans])
        shown = probabilities(fitted, visual, evidence)
    wrong = (1 - shown) * np.array([_text_wrong(span, modalities) for span in spans])
    found = (1 - wrong).round(PROBABILITY_DECIMALS)
    rated = iter(
        replace(span, probability=float(probability), level=level)
        for span, probability, level in zip(spans, found, levels(fitted, found), strict=True)
    )
    return [list(islice(rated, len(group))) for group in groups]


def is_best_guess(groups: Sequence[Sequence[ScoredSpan]]) -> bool | None:
    """Whether no moment is at least of the level "medium"; None: there are no levels."""
    found = [span.level for group in groups for span in group]
    return None if None in found else all(level == "low" for level in found)


def likely(groups: Sequence[Sequence[ScoredSpan]], least: float) -> list[list[ScoredSpan]]:
    """The moments with at least this probability, in their groups; groups without any are left out."""
    kept = [[span for span in group if (span.probability or 0.0) >= least] for group in groups]
    return [group for group in kept if group]


def _text_wrong(span: ScoredSpan, modalities: Modalities) -> float:
    """The probability that no line of a moment means what was asked."""
    wrong = 1.0
    for modality, strength in strongest(span.texts).items():
        wrong *= 1 - _LINE * min(1.0, modalities.weight_of(modality)) * strength
    return wrong
