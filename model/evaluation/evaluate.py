"""Retrieval metrics of a checkpoint or a bundle, on captioned photos, films and videos.

Reading, sampling, ranking and metrics are those of serving. `model.evaluation.measure` describes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model.data.sources import Source
from model.evaluation.corpus import encode_all_texts, encode_source, encode_videos
from model.evaluation.measure import Gallery, Measurement, Options
from model.evaluation.rerank import tune_lambda
from model.evaluation.spliced import SplicedFilms, encode_films
from model.families.encoder import Encoder
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.names import find_as_seen
from model.runtime.queries import LabelledQuery, read_queries


def measurement_of(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options | None = None,
    report: Report = silent,
    further_texts: Sequence[str] = (),
) -> Measurement:
    """Encode a source's captions and videos. Nothing is matched yet.

    Further texts follow the captions; they are no video's, and their target is −1.

    Raises:
        InputError: a file cannot be read.
    """
    options = options or Options()
    filled = options.filled(encoder)
    groups = source.captions
    target = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    target = np.concatenate([target, np.full(len(further_texts), -1)])
    texts = encode_all_texts(
        encoder,
        [*(text for group in groups for text in group), *further_texts],
        tokens=filled.reads_tokens,
        report=report,
    )
    tokens = filled.tokens if filled.reads_tokens else None
    if isinstance(source, SplicedFilms):
        corpus = encode_films(encoder, source, tokens, report)
    else:
        corpus = encode_source(encoder, source, tokens, report)
    return Measurement(encoder, texts, corpus, target, options)


def _measured(
    encoder: Encoder, source: Source | SplicedFilms, options: Options | None, report: Report
) -> Measurement:
    measured = measurement_of(encoder, source, options, report)
    measured.score([measured.whole()], report)
    return measured


def evaluate_source(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Rank all photos, videos or noisy films of a source for each of its captions, and the other way round.

    Args:
        encoder: the model.
        source: what is ranked.
        options: how to measure; None: as the model's settings say.
        report: told about progress.

    Returns:
        the metrics of `model.evaluation.measure`.

    Raises:
        InputError: a file cannot be read.
    """
    measured = _measured(encoder, source, options, report)
    return measured.metrics(measured.whole())


def tune(
    encoder: Encoder,
    source: Source | SplicedFilms,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Choose λ of the ensemble on a validation set, see `tune_lambda`.

    Photos, with one frame each, hardly tell one λ from another; noisy films do.

    Returns:
        {"ensemble_lambda", "tried": [{"lambda", "R@1", "R@SUM"}, …]}.

    Raises:
        InputError: the model has no matcher, or the options turn re-ranking off.
    """
    options = options or Options()
    if not options.rerank:
        raise InputError("without re-ranking there is no λ to tune: give `ensemble_lambda` a number")
    if not options.filled(encoder).rerank:
        raise InputError(
            "this model has no matcher, so there is no λ to tune: give `ensemble_lambda` a number"
        )
    measured = _measured(encoder, source, options, report)
    match = measured.match[measured.options.num_salient_frames or 1]
    lam, tried = tune_lambda(
        measured.similarity, match, measured.target, num_candidates=measured.options.num_candidates
    )
    return {"ensemble_lambda": lam, "tried": tried}


def measurement_of_videos(
    encoder: Encoder,
    clips: Path,
    queries: Sequence[LabelledQuery],
    options: Options | None = None,
    report: Report = silent,
    further_texts: Sequence[str] = (),
) -> Measurement:
    """Encode the videos that queries name, and the queries. Nothing is matched yet.

    Further texts follow the queries; they are no video's, and their target is −1.

    Raises:
        VideoError: a clip cannot be decoded.
    """
    options = options or Options()
    filled = options.filled(encoder)
    file_of = {video: find_as_seen(clips / video) for video in sorted({row.video for row in queries})}
    texts = [*(row.text for row in queries), *further_texts]
    encoded = encode_all_texts(encoder, texts, tokens=filled.reads_tokens, report=report)
    paths = list(dict.fromkeys(file_of.values()))
    corpus = encode_videos(encoder, paths, filled.tokens if filled.reads_tokens else None, report)
    target = [paths.index(file_of[row.video]) for row in queries] + [-1] * len(further_texts)
    return Measurement(encoder, encoded, corpus, np.array(target, np.int64), options)


def evaluate_videos(
    encoder: Encoder,
    clips: Path,
    queries: Path,
    options: Options | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Rank the videos of a folder for each query of a file; a video scores as its best segment.

    Args:
        encoder: the model.
        clips: the folder of videos.
        queries: a file for `read_queries`, with a set for each query.
        options: how to measure; None: as the model's settings say.
        report: told about progress.

    Returns:
        for each set, `own` with only that set's clips and texts in the gallery, and `all` with all of them.

    Raises:
        InputError: the file of queries is missing or malformed.
        VideoError: a clip cannot be decoded.
    """
    rows = read_queries(queries)
    measured = measurement_of_videos(encoder, clips, rows, options, report)
    target = measured.target
    sets = np.array([row.set_name or "all" for row in rows])
    galleries: dict[tuple[str, str], Gallery] = {}
    whole = measured.whole()
    for name in sorted(set(sets)):
        in_set = sets == name
        set_videos = np.unique(target[in_set])
        galleries[name, "own"] = Gallery(in_set, np.isin(measured.corpus.owner, set_videos))
        # Ranks are those of the videos that have a text, in their order: here all have one.
        galleries[name, "all"] = replace(whole, count_rows=in_set, count_videos=set_videos)
    measured.score(list(galleries.values()), report)
    result: dict[str, Any] = {}
    for (name, kind), gallery in galleries.items():
        result.setdefault(name, {})[kind] = measured.metrics(gallery)
    return result
