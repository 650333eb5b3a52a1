"""Fits a bundle's calibration: what scores mean, measured on searches whose right answers are known.

A search is for a caption, or for nonsense, in a library of some of the items. Half of the captions belong to
an item of the library, and the others to one that was removed. The target is "this hit is the caption's own
item", or the film that shows it, for the first hits of each search. Another item may show the same, so the
probabilities are low rather than high.

Shapes: Q texts, G segments, S searches, H first hits of each, K retrieved segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.arrays import Rows
from model.data.sources import Source
from model.evaluation.evaluate import measurement_of, measurement_of_videos
from model.evaluation.logistic import fit_logistic
from model.evaluation.measure import Measurement, Options
from model.evaluation.nonsense import nonsense_texts
from model.evaluation.spliced import SplicedFilms
from model.families.encoder import Encoder
from model.progress import Report, silent
from model.runtime.bundle.manifest import Calibration, FeatureWeight, ScoreCalibration
from model.runtime.bundle.references import ReferenceImages
from model.runtime.calibration import (
    BACKGROUND_RANKS,
    SearchEvidence,
    background_of,
    probabilities,
    strangeness_of,
)
from model.runtime.errors import InputError
from model.runtime.queries import read_queries
from model.runtime.ranking import ensemble

#: The kinds of nonsense, see `nonsense_texts`. The other kinds are "present" and "absent" captions.
NONSENSE = ("letters", "words", "scripts")
#: How much there is of each, as a share of the present captions: with half as much, nonsense is told apart
#: less well. Known words in random order describe something by chance.
_SHARES = {"letters": 2 / 3, "words": 2 / 9, "scripts": 2 / 3}

#: Hits of a search that are learned from. Alone, the first ones are truest, and those behind them less.
_FIRST_HITS = 3
#: The smallest library, in items.
LEAST_ITEMS = 8
#: Sizes of libraries; half and nine tenths of the items come with them.
_SIZES = (75, 200)
#: At most so many present captions of a library, and as many absent ones; texts of each kind of nonsense.
_MOST_CAPTIONS, _MOST_NONSENSE = 300, 300
_RIDGE = 1e-4
#: The share of captions that count as strange, in part.
_STRANGE_SHARE = 0.05
#: The share of right first hits that reach "medium", and of first hits that are right from "high" on.
_REACH_MEDIUM, _RIGHT_FROM_HIGH = 0.9, 2 / 3
#: Fewer first hits than this say nothing about how many are right.
_LEAST_HITS = 20


@dataclass(frozen=True)
class Searches:
    """What S searches found, by one kind of score; unknown features are NaN.

    Attributes:
        kind: what each is for: "present" or "absent" for captions, or a kind of nonsense, [S].
        score: of the first hits, best first, float64 [S, H]; NaN where a library has fewer.
        right: whether each shows the text's own item, bool [S, H].
        background: float64 [S].
        familiarity: float64 [S].
        usual: float64 [S].
    """

    kind: NDArray[np.str_]
    score: NDArray[np.float64]
    right: NDArray[np.bool_]
    background: NDArray[np.float64]
    familiarity: NDArray[np.float64]
    usual: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def joined(cls, parts: Sequence[Searches]) -> Searches:
        """The searches of all parts, in their order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Observed:
    """The searches of a set of items, by the first stage's score, and by the final one, if there is one."""

    first_stage: Searches
    final: Searches | None


def measurement_with_nonsense(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options,
    seed: int = 0,
    report: Report = silent,
) -> tuple[Measurement, NDArray[np.str_]]:
    """Encode a source's items, its captions and nonsense. Nothing is matched yet.

    Returns:
        the measurement, where the target of nonsense is −1; and of each text "caption" or its kind of
        nonsense, [Q].

    Raises:
        InputError: a file cannot be read, or there are too few items.
    """
    _check_items(len(source.captions), f"split {source.name}")
    further, kind = _nonsense_after([text for group in source.captions for text in group], seed)
    return measurement_of(encoder, source, options, report, further), kind


def videos_with_nonsense(
    encoder: Encoder, clips: Path, queries: Path, options: Options, seed: int = 0, report: Report = silent
) -> tuple[Measurement, NDArray[np.str_]]:
    """As `measurement_with_nonsense`, of a folder of videos and a file of queries.

    Raises:
        InputError: the file of queries is missing or malformed, or names too few videos.
        VideoError: a clip cannot be decoded.
    """
    rows = read_queries(queries)
    _check_items(len({row.video for row in rows}), str(queries))
    further, kind = _nonsense_after([row.text for row in rows], seed)
    return measurement_of_videos(encoder, clips, rows, options, report, further), kind


def _check_items(count: int, where: str) -> None:
    if count < LEAST_ITEMS:
        raise InputError(f"{where} has {count} items: probabilities need {LEAST_ITEMS}")


def _nonsense_after(captions: Sequence[str], seed: int) -> tuple[list[str], NDArray[np.str_]]:
    """Nonsense that follows captions, and the kind of each caption and of it."""
    nonsense = nonsense_texts(captions, _MOST_NONSENSE, seed)
    kind = ["caption"] * len(captions) + [name for name, part in nonsense.items() for _ in part]
    return [text for part in nonsense.values() for text in part], np.array(kind)


@dataclass(frozen=True)
class _Library:
    """A library of some of the items: its segments [K], and the texts that are searched for, by kind."""

    columns: Rows
    texts: Mapping[str, Rows]


def observe(
    measurement: Measurement,
    kind: NDArray[np.str_],
    draws: int = 3,
    seed: int = 0,
    report: Report = silent,
    sizes: Sequence[int] | None = None,
    reference_images: ReferenceImages | None = None,
) -> Observed:
    """Search libraries of several sizes, each drawn several times.

    Args:
        measurement: of captions and nonsense, whose target is −1.
        kind: of each text "caption" or its kind of nonsense, [Q].
        draws: libraries of each size.
        seed: decides which items and texts are drawn.
        report: told about matching.
        sizes: of the libraries, in items; None: 75 and 200 where there are more items, half of the items, and
            nine tenths of them.
        reference_images: that queries are compared with; None: with none.
    """
    items = int(measurement.corpus.owner.max()) + 1
    most = items * 9 // 10
    wanted = sizes or sorted({*(n for n in _SIZES if n < most), items // 2, most})
    rng = np.random.default_rng((seed, draws))
    libraries = [_draw(measurement, kind, size, rng) for size in wanted for _ in range(draws)]
    candidates = measurement.options.num_candidates or measurement.similarity.shape[1]
    pairs = np.zeros(measurement.similarity.shape, np.bool_)
    for library in libraries:
        for text in np.concatenate(list(library.texts.values())):
            pairs[text, _best(measurement, text, library.columns)[:candidates]] = True
    measurement.score_pairs(pairs, report)
    correction = measurement.options.hubness
    familiarity = np.full(len(kind), np.nan)
    if correction is not None:
        familiarity = correction.of(measurement.texts.embedding).astype(np.float64)
    usual = np.full(len(kind), np.nan)
    if reference_images is not None:
        usual = reference_images.usual(measurement.texts.embedding).astype(np.float64)
    first, final = [], []
    for library in libraries:
        for name, texts in library.texts.items():
            for text in texts:
                ranked = _best(measurement, text, library.columns)
                score = measurement.similarity[text, ranked].astype(np.float64)
                far = background_of(score)
                known = SearchEvidence(far, familiarity[text], usual[text])
                first.append(_search(measurement, text, name, ranked, score, known))
                if measurement.options.rerank:
                    near = ranked[:candidates]
                    rescored = _final(measurement, text, near)
                    order = np.argsort(-rescored, kind="stable")
                    final.append(_search(measurement, text, name, near[order], rescored[order], known))
    return Observed(Searches.joined(first), Searches.joined(final) if final else None)


def _draw(measurement: Measurement, kind: NDArray[np.str_], size: int, rng: np.random.Generator) -> _Library:
    """A library of `size` items, and what is searched for in it."""
    owner, target = measurement.corpus.owner, measurement.target
    items = int(owner.max()) + 1
    # The last place is that of nonsense, whose target is −1.
    inside = np.zeros(items + 1, np.bool_)
    inside[rng.permutation(items)[:size]] = True
    is_caption = kind == "caption"
    present, absent = (np.flatnonzero(is_caption & where) for where in (inside[target], ~inside[target]))
    count = min(len(present), len(absent), _MOST_CAPTIONS)
    texts = {"present": rng.permutation(present)[:count], "absent": rng.permutation(absent)[:count]}
    for name, share in _SHARES.items():
        chosen = rng.permutation(np.flatnonzero(kind == name))
        texts[name] = chosen[: max(1, int(count * share))]
    return _Library(np.flatnonzero(inside[owner]), texts)


def _best(measurement: Measurement, text: int, columns: Rows) -> Rows:
    """The segments of a library that a search retrieves, best first."""
    count = max(BACKGROUND_RANKS[1], measurement.options.num_candidates or len(columns))
    order = np.argsort(-measurement.similarity[text, columns], kind="stable")
    best: Rows = columns[order[:count]]
    return best


def _final(measurement: Measurement, text: int, segments: Rows) -> NDArray[np.float64]:
    match = measurement.match[measurement.options.numbers[0]][text, segments]
    lam = measurement.options.ensemble_lambda or 0.0
    return ensemble(match, measurement.similarity[text, segments], lam)


def _search(
    measurement: Measurement,
    text: int,
    kind: str,
    ranked: Rows,
    score: NDArray[np.float64],
    known: SearchEvidence,
) -> Searches:
    """One search, as S = 1."""
    first = np.full((1, _FIRST_HITS), np.nan)
    right = np.zeros((1, _FIRST_HITS), np.bool_)
    count = min(_FIRST_HITS, len(ranked))
    first[0, :count] = score[:count]
    right[0, :count] = measurement.corpus.owner[ranked[:count]] == measurement.target[text]
    features = (
        np.array([np.nan if value is None else value])
        for value in (known.background, known.familiarity, known.usual)
    )
    return Searches(np.array([kind]), first, right, *features)


def fit(searches: Searches) -> ScoreCalibration:
    """Fit the weights of the features, then choose the levels.

    - "medium" is reached by nine of ten first hits that are right: a search is answered with best guesses
      where it has no such hit, and at most one right answer in ten is called a guess.
    - Of the first hits from "high" on, at least two of three are right; no hit is "high" where that is never
      so.

    Raises:
        InputError: no hit is right, or a better score does not make it more likely.
    """
    if not searches.right.any():
        raise InputError("no caption's own item is among the first hits: train the model first")
    captions = np.isin(searches.kind, ("present", "absent"))
    familiarity = searches.familiarity[captions]
    known = familiarity[~np.isnan(familiarity)]
    strange_below = _rounded(np.quantile(known, _STRANGE_SHARE)) if len(known) else 0.0
    features = features_of(searches, strange_below)
    rows = ~np.isnan(searches.score).ravel()
    columns = np.stack([values.ravel()[rows] for values in features.values()], axis=1)
    offset, scale = _standard(columns)
    inputs = np.nan_to_num((columns - offset) / scale, nan=0.0)
    # What is never known, or never varies, has no weight.
    varies = inputs.any(axis=0)
    inputs = np.concatenate([inputs[:, varies], np.ones((len(inputs), 1))], axis=1)
    # A ridge on the weights alone, as large as in a mean over the rows; the bias is free.
    ridge = np.append(np.full(int(varies.sum()), _RIDGE * len(inputs)), 0.0)
    *found, bias = fit_logistic(inputs, searches.right.ravel()[rows], ridge).tolist()
    weights = np.zeros(len(offset))
    weights[varies] = found
    if weights[0] <= 0:
        raise InputError("hits with better scores are less often right: train the model first")
    parts = {
        name: FeatureWeight(weight=_rounded(w), offset=_rounded(o), scale=_rounded(s))
        for name, w, o, s in zip(features, weights, offset, scale, strict=True)
    }
    usual = parts.pop("usual")
    unleveled = ScoreCalibration(
        bias=_rounded(bias),
        **parts,
        usual=None if np.isnan(searches.usual).all() else usual,
        strange_below=strange_below,
        medium=0.0,
        high=1.0,
    )
    medium, high = _levels(first_hits(unleveled, searches), searches.right[:, 0])
    return unleveled.model_copy(update={"medium": medium, "high": high})


def fit_calibration(observed: Sequence[Observed]) -> Calibration:
    """Fit both calibrations on all sets together; `final` only where all sets are re-ranked.

    Raises:
        InputError: as `fit`.
    """
    final = [each.final for each in observed if each.final is not None]
    return Calibration(
        first_stage=fit(Searches.joined([each.first_stage for each in observed])),
        final=fit(Searches.joined(final)) if len(final) == len(observed) else None,
    )


def features_of(searches: Searches, strange_below: float) -> dict[str, NDArray[np.float64]]:
    """The features of every first hit by name, in the order of `ScoreCalibration`, each [S, H]."""
    shape = searches.score.shape

    def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.broadcast_to(values[:, None], shape)

    strange = [strangeness_of(value, strange_below) for value in searches.familiarity.tolist()]
    return {
        "score": searches.score,
        "best": spread(searches.score[:, 0]),
        "background": spread(searches.background),
        "familiarity": spread(searches.familiarity),
        "strangeness": spread(
            np.where(np.isnan(searches.familiarity), np.nan, np.array(strange, np.float64))
        ),
        "usual": spread(searches.usual),
    }


def first_hits(calibration: ScoreCalibration, searches: Searches) -> NDArray[np.float64]:
    """The probability of each search's first hit. → float64 [S]"""

    def known(value: float) -> float | None:
        return None if np.isnan(value) else value

    features = zip(
        searches.background.tolist(), searches.familiarity.tolist(), searches.usual.tolist(), strict=True
    )
    rows = zip(searches.score[:, :1], features, strict=True)
    return np.array(
        [probabilities(calibration, score, SearchEvidence(*map(known, own)))[0] for score, own in rows]
    )


def _standard(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of what is known of each column; 0 and 1 where nothing is known or varies."""
    offset, scale = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    for place, column in enumerate(columns.T):
        known = column[~np.isnan(column)]
        if len(known):
            offset[place] = known.mean()
            scale[place] = known.std() if known.std() > 1e-6 else 1.0
    return offset, scale


def _levels(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """The thresholds "medium" and "high", see `fit`."""
    reached = np.sort(probability[right])
    medium = float(reached[int(len(reached) * (1 - _REACH_MEDIUM))]) if len(reached) else 1.0
    order = np.argsort(-probability, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero((share >= _RIGHT_FROM_HIGH) & (np.arange(len(order)) >= _LEAST_HITS - 1))
    high = float(probability[order[enough[-1]]]) if len(enough) else 1.0
    # Rounded down, so that the hit that sets a threshold reaches it.
    medium, high = (np.floor(value * 1e4) / 1e4 for value in (medium, high))
    return float(medium), float(max(medium, high))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
