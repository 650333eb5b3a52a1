"""Retrieval metrics of a model in training or of a bundle, on captioned photos and on a folder of videos.

Reading, sampling, ranking and metrics are those of serving; `model.evaluation.measure` tells what a result
holds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model.data.sources import Source
from model.evaluation.corpus import encode_source, encode_texts, encode_videos
from model.evaluation.measure import Gallery, Measurement, Options
from model.evaluation.rerank import tune_lambda
from model.evaluation.spliced import SplicedFilms, encode_films
from model.families.encoder import Encoder
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.names import find_as_seen
from model.runtime.queries import read_queries


def _measured(
    encoder: Encoder, source: Source | SplicedFilms, options: Options | None, report: Report
) -> Measurement:
    options = options or Options()
    filled = options.filled(encoder)
    groups = source.captions
    target = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    texts = encode_texts(
        encoder, [text for group in groups for text in group], tokens=filled.rerank, report=report
    )
    tokens = filled.tokens if filled.rerank else None
    if isinstance(source, SplicedFilms):
        corpus = encode_films(encoder, source, tokens, report)
    else:
        corpus = encode_source(encoder, source, tokens, report)
    measured = Measurement(encoder, texts, corpus, target, options)
    measured.score([measured.whole()], report)
    return measured


def evaluate(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Every caption against every photo, video of a data set, or noisy film, and back."""
    measured = _measured(encoder, source, options, report)
    return measured.metrics(measured.whole())


def tune(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """λ of the ensemble by a validation set, as `tune_lambda` chooses it.

    Photos of one frame hardly tell one λ from another; noisy films do.

    Returns:
        {"ensemble_lambda", "tried": [{"lambda", "R@1", "R@SUM"}, …]}.

    Raises:
        InputError: the model has no matcher, or the options leave it out.
    """
    if not encoder.has_matcher:
        raise InputError("this model has no matcher, so there is no λ to tune: give ensemble_lambda a number")
    if options is not None and not options.rerank:
        raise InputError("without re-ranking there is no λ to tune: give ensemble_lambda a number")
    measured = _measured(encoder, source, options, report)
    match = measured.match[measured.options.num_salient_frames or 1]
    lam, tried = tune_lambda(
        measured.similarity, match, measured.target, num_candidates=measured.options.num_candidates
    )
    return {"ensemble_lambda": lam, "tried": tried}


def evaluate_videos(
    encoder: Encoder,
    clips: Path,
    queries: Path,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Every query of a `queries.jsonl` (video, query, set) against clips; a video scores as its best segment.

    Returns:
        for each set, `own` with only that set's clips and texts in the gallery, and `all` with everyone's.

    Raises:
        InputError: for a missing or malformed file of queries.
        VideoError: a clip cannot be decoded.
    """
    options = options or Options()
    filled = options.filled(encoder)
    rows = read_queries(queries)
    file_of = {video: find_as_seen(clips / video) for video in sorted({row.video for row in rows})}
    texts = encode_texts(encoder, [row.text for row in rows], tokens=filled.rerank, report=report)
    paths = list(dict.fromkeys(file_of.values()))
    corpus = encode_videos(encoder, paths, filled.tokens if filled.rerank else None, report)
    target = np.array([paths.index(file_of[row.video]) for row in rows], np.int64)
    measured = Measurement(encoder, texts, corpus, target, options)
    sets = np.array([row.set_name or "all" for row in rows])
    galleries: dict[tuple[str, str], Gallery] = {}
    whole = measured.whole()
    for name in sorted(set(sets)):
        chosen = sets == name
        own = np.unique(target[chosen])
        galleries[name, "own"] = Gallery(chosen, np.isin(corpus.owner, own))
        # Ranks of the videos that have a text, in their order: here, all have one.
        galleries[name, "all"] = replace(whole, count_rows=chosen, count_videos=own)
    measured.score(list(galleries.values()), report)
    result: dict[str, Any] = {}
    for (name, kind), gallery in galleries.items():
        result.setdefault(name, {})[kind] = measured.metrics(gallery)
    return result
