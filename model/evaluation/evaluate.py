"""Retrieval metrics of a model in training or of a bundle, on captioned photos and on a folder of videos.

Reading, sampling, ranking and metrics are those of serving; `model.evaluation.measure` tells what a result
holds.
"""

from __future__ import annotations

import json
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
        ValueError: the model has no matcher, or the options leave it out.
    """
    if not encoder.has_matcher:
        raise ValueError("this model has no matcher, so there is no λ to tune: give ensemble_lambda a number")
    if options is not None and not options.rerank:
        raise ValueError("without re-ranking there is no λ to tune: give ensemble_lambda a number")
    measured = _measured(encoder, source, options, report)
    match = measured.match[measured.options.num_salient_frames or 1]
    lam, tried = tune_lambda(
        measured.similarity, match, measured.target, num_candidates=measured.options.num_candidates
    )
    return {"ensemble_lambda": lam, "tried": tried}


def read_queries(queries: Path) -> list[dict[str, str]]:
    """Rows (video, query, set) of a file with a JSON object a line.

    Raises:
        ValueError: for a missing or malformed file of queries.
    """
    if not queries.is_file():
        raise ValueError(
            f"no queries at {queries}: pass a file with a JSON object (video, query, set) a line"
        )
    rows = []
    for number, line in enumerate(queries.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{queries} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not {"video", "query"} <= row.keys():
            raise ValueError(f"{queries} line {number} lacks video or query")
        rows.append(row)
    if not rows:
        raise ValueError(f"{queries} holds no query: write a JSON object (video, query, set) a line")
    return rows


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
        ValueError: for a missing or malformed file of queries.
        VideoError: a clip cannot be decoded.
    """
    options = options or Options()
    filled = options.filled(encoder)
    rows = read_queries(queries)
    videos = sorted({row["video"] for row in rows})
    texts = encode_texts(encoder, [row["query"] for row in rows], tokens=filled.rerank, report=report)
    paths = [clips / video for video in videos]
    corpus = encode_videos(encoder, paths, filled.tokens if filled.rerank else None, report)
    target = np.array([videos.index(row["video"]) for row in rows], np.int64)
    measured = Measurement(encoder, texts, corpus, target, options)
    sets = np.array([row.get("set", "all") for row in rows])
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
