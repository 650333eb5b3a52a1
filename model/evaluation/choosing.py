"""Chooses how candidates are re-ranked, on several validation galleries at once.

λ, the number of salient frames and the match by salience are chosen on intact items and on noisy films
together: on films alone the similarity seems useless, on intact items alone the salient frames do.
Shapes: Q texts, G segments, K pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.sources import Source
from model.evaluation.evaluate import measurement_of
from model.evaluation.logistic import fit_logistic
from model.evaluation.matching import salience_match
from model.evaluation.measure import Measurement, Options, settings_of
from model.evaluation.rerank import LAMBDA_GRID
from model.evaluation.spliced import SplicedFilms
from model.families.encoder import Encoder
from model.progress import Report, silent
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.errors import InputError
from model.runtime.retrieval_metrics import retrieval_metrics

#: A wrong video to fit the match by salience with is the most similar of so many at random.
_WRONG_VIDEOS = 16
#: Points of R@1 that a gallery may lose by re-ranking.
_MOST_LOST = 0.5
# Limits of the coherence to choose from; None: the relevance counts in all videos.
_COHERENCE_GRID: tuple[tuple[float, float] | None, ...] = (None, (0.5, 0.9), (0.6, 0.95), (0.7, 1.0))


@dataclass(frozen=True)
class _Row:
    """One way to re-rank, and its recalls: R@1 of each gallery, and the means of R@1 and R@10."""

    num_salient_frames: int
    salience_match: SalienceMatch | None
    ensemble_lambda: float
    recalls: dict[str, float]
    mean_r1: float
    mean_r10: float
    #: the most points of R@1 that a gallery loses against the first stage
    loss: float

    def quality(self) -> tuple[bool, float, float]:
        """What is compared: re-ranking must harm no gallery, and then help most on the mean."""
        return self.loss <= _MOST_LOST, self.mean_r1, self.mean_r10


def choose(
    encoder: Encoder,
    galleries: Mapping[str, Source | SplicedFilms],
    options: Options,
    report: Report = silent,
) -> dict[str, Any]:
    """Choose λ and the number of salient frames with the highest mean R@1 over the galleries, then R@10.

    A choice that loses more than half a point of R@1 in some gallery against the first stage comes after all
    that do not.

    Args:
        encoder: the model.
        galleries: at least one, by what to call it; of each item the first caption is the query.
        options: how to measure. Its numbers of salient frames are tried; where salience matches, that is
            fitted first, with the first of these numbers.
        report: told about progress.

    Returns:
        `settings`, as chosen, and `tuned`: `num_salient_frames`, `ensemble_lambda`, and `tried`: for each
        number the best λ, with R@1 of each gallery ("global" for the first stage alone).

    Raises:
        InputError: the model has no matcher, or a file cannot be read.
    """
    if not options.filled(encoder).rerank:
        raise InputError("this model has no matcher: choose the match salience", "match")
    measurements = {
        name: measurement_of(encoder, source, options, report) for name, source in galleries.items()
    }
    first_stage = {name: _global_r1(each) for name, each in measurements.items()}
    best: list[_Row] = []
    numbers = next(iter(measurements.values())).options.numbers
    by_salience = options.filled(encoder).match == "salience"
    for limits in _COHERENCE_GRID if by_salience else (None,):
        if by_salience:
            match = fit_salience_match(list(measurements.values()), limits)
            for each in measurements.values():
                each.options = replace(options, salience_match=match).filled(encoder)
        for each in measurements.values():
            each.score([each.whole()], report)
        best += [max(_rows(measurements, n, first_stage), key=_Row.quality) for n in numbers]
    chosen = max(best, key=_Row.quality)
    options = replace(
        options,
        salience_match=chosen.salience_match,
        num_salient_frames=chosen.num_salient_frames,
        salient_frames=(),
        ensemble_lambda=chosen.ensemble_lambda,
    )
    return {
        "settings": settings_of(encoder, options),
        "tuned": {
            "galleries": {name: len(each.target) for name, each in measurements.items()},
            "global": first_stage,
            "tried": [_plain(row) for row in best],
        },
    }


def _plain(row: _Row) -> dict[str, Any]:
    match = None if row.salience_match is None else row.salience_match.model_dump()
    return {**vars(row), "salience_match": match}


def fit_salience_match(
    measurements: Sequence[Measurement], limits: tuple[float, float] | None = None, seed: int = 0
) -> SalienceMatch:
    """Fit the log-odds that a video is the text's, given the mean relevance of its salient frames.

    With `limits`, the similarity takes the place of the relevance in coherent videos, see `SalienceMatch`.

    Logistic regression on each text with its own video and with a wrong one: the most similar of 16 at
    random. Both are equally frequent, so 0 means undecided.

    Raises:
        InputError: a gallery has a single video, or higher relevance does not mean a better match.
    """
    own, wrong = [], []
    for each in measurements:
        similarity, target = each.similarity, each.target
        videos = similarity.shape[1]
        if videos < 2:
            raise InputError("a gallery to fit the match by salience on needs at least 2 videos")
        rng = np.random.default_rng(seed)
        drawn = rng.integers(1, videos, (len(target), _WRONG_VIDEOS))
        others = (target[:, None] + drawn) % videos
        texts = np.arange(len(target))
        hard = others[texts, np.argmax(similarity[texts[:, None], others], axis=1)]
        pairs = np.zeros(similarity.shape, np.bool_)
        pairs[texts, target] = pairs[texts, hard] = True
        n = each.options.numbers[0]
        plain = SalienceMatch(scale=1, bias=0, coherence=limits)
        relevance = salience_match(each.texts, each.corpus, pairs, [n], plain, each.similarity)[n]
        own.append(relevance[texts, target])
        wrong.append(relevance[texts, hard])
    scale, bias = _logistic(np.concatenate(own), np.concatenate(wrong))
    if scale <= 0:
        raise InputError("wrong videos are more relevant than the right ones: train the model first")
    return SalienceMatch(scale=float(f"{scale:.4g}"), bias=float(f"{bias:.4g}"), coherence=limits)


def _logistic(ones: NDArray[np.floating], zeros: NDArray[np.floating]) -> tuple[float, float]:
    """The likeliest scale and bias of 1 / (1 + exp(−(scale · x + bias)))."""
    x = np.concatenate([ones, zeros])
    label = np.repeat([True, False], [len(ones), len(zeros)])
    # A little ridge: classes that are apart have no likeliest scale.
    scale, bias = fit_logistic(np.stack([x, np.ones_like(x)], axis=1), label, np.full(2, 1e-3))
    return float(scale), float(bias)


def _rows(
    measurements: Mapping[str, Measurement], num_salient_frames: int, first_stage: Mapping[str, float]
) -> list[_Row]:
    """The results of every λ with one number of salient frames."""
    rankings = {name: each.ranking(each.whole(), num_salient_frames) for name, each in measurements.items()}
    rows = []
    for lam in LAMBDA_GRID:
        metrics = {name: r.ranks(lam).metrics()["text_to_video"] for name, r in rankings.items()}
        first = {name: float(of["R@1"]) for name, of in metrics.items()}
        tenth = [float(of["R@10"]) for of in metrics.values()]
        rows.append(
            _Row(
                num_salient_frames,
                next(iter(measurements.values())).options.salience_match,
                lam,
                first,
                float(np.mean(list(first.values()))),
                float(np.mean(tenth)),
                max(first_stage[name] - value for name, value in first.items()),
            )
        )
    return rows


def _global_r1(measurement: Measurement) -> float:
    return retrieval_metrics(measurement.first_stage(measurement.whole()).text_to_video)["R@1"]


def tuned_table(result: Mapping[str, Any]) -> str:
    """The result of `choose` to read: R@1 of each gallery, of the first stage and of the best λ."""
    settings, tuned = result["settings"], result["tuned"]
    names = list(tuned["galleries"])
    lines = [
        f"{settings['num_salient_frames']} salient frames, λ = {settings['ensemble_lambda']:g}"
        + (f", match {settings['salience_match']}" if "salience_match" in settings else ""),
        "",
        "R@1, text to video; n: "
        + ", ".join(f"{name} {count}" for name, count in tuned["galleries"].items()),
        f"{'':44}" + "".join(f"{name:>{_width(name)}}" for name in names),
        f"{'first stage':44}" + "".join(f"{tuned['global'][name]:>{_width(name)}.1f}" for name in names),
    ]
    for row in tuned["tried"]:
        match = row["salience_match"] or {}
        limits = match.get("coherence")
        alike = "" if limits is None else f", coherence {limits[0]:g}–{limits[1]:g}"
        label = f"{row['num_salient_frames']} frames, λ = {row['ensemble_lambda']:g}{alike}"
        lines.append(f"{label:44}" + "".join(f"{row['recalls'][name]:>{_width(name)}.1f}" for name in names))
    return "\n".join(lines)


def _width(name: str) -> int:
    return max(7, len(name) + 2)
