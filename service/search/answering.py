"""Answers a question about a video, without HTTP (VideoQA, section 4.3 of the LGDN paper).

The question is encoded as a query is. Of all stored frames of the video, or of a span of it, the most
relevant ones are chosen by the question (SFP), as a search chooses those of a segment. The answer head reads
their stored tokens.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import DamagedRowsError
from indexer.library.records import SegmentRecord, VideoRecord
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Answers, Bundle
from model.runtime.ranking import SCORE_DECIMALS, relevance, select_salient
from service.errors import CannotAnswerError, OverloadedError, QueryError
from service.search.encoded_query import EncodedQuery, encode_text_query
from service.search.match_queue import MatchTerms
from service.search.results import (
    AnswerFrame,
    AnswerResult,
    CannotAnswer,
    LibraryWarning,
    PossibleAnswer,
)
from service.search.span_frames import places_between
from service.search.video_finder import video_with_id

# Segments of a video that are read at once: bounds the memory, and the deadline is checked between them.
_SEGMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class AnswerOptions:
    """How to answer.

    Attributes:
        start_seconds: where in the video the span that is asked about starts.
        end_seconds: where it ends, not before it starts; None: at the video's end.
        top_k: number of answers, at least 1; fewer if the bundle knows fewer.
        num_salient_frames: number of frames to answer from, at least 1; None: the bundle's default.
        terms: the deadline, and whether somebody still waits for the answer.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None
    top_k: int = 5
    num_salient_frames: int | None = None
    terms: MatchTerms = field(default_factory=MatchTerms)


class _Frame(NamedTuple):
    """A stored frame: the row of its segment, its place in that, and what an answer says of it."""

    segment_row: int
    place: int
    frame_id: str
    pts_seconds: float
    relevance: float


def why_no_answers(bundle: Bundle, snapshot: Snapshot) -> CannotAnswer | None:
    """Why no question about videos of the snapshot can be answered; None if questions can."""
    if "answers" not in bundle.capabilities:
        return "no_answer_head"
    return None if snapshot.tokens_per_frame or not snapshot.num_segments else "no_tokens"


def check_can_answer(bundle: Bundle, snapshot: Snapshot) -> None:
    """Check that questions about videos of the snapshot can be answered.

    Raises:
        CannotAnswerError: they cannot.
    """
    missing = why_no_answers(bundle, snapshot)
    if missing == "no_answer_head":
        raise CannotAnswerError(
            f"The bundle {bundle.manifest.name!r} has no answer head. Index into a new library with a bundle "
            "exported from a model of questions, such as one of the recipe msrvtt_qa, and serve that."
        )
    if missing == "no_tokens":
        raise CannotAnswerError(
            "The library stores no frame tokens, which the answer head reads. Index into a new library "
            "without `--tokens none`, and serve that."
        )


def warm_answer_head(bundle: Bundle) -> None:
    """Open the answer head and run it once, so that the first question does not wait for that.

    Raises:
        BundleError: the bundle has no answer head, or it cannot be opened or run.
    """
    sizes = bundle.token_sizes()
    tokens = np.zeros((1, 1, sizes.stored_tokens_per_frame, sizes.hidden_dim), np.float32)
    text = bundle.encode_text(["what colour is the car"], tokens=True)
    bundle.answer(text, np.zeros(1, np.int64), tokens)


def answer_question(
    bundle: Bundle, snapshot: Snapshot, video_id: str, text: str, options: AnswerOptions
) -> AnswerResult:
    """Answer a question about a video.

    Args:
        bundle: the model.
        snapshot: the snapshot that holds the video, made with this bundle.
        video_id: identifies the video.
        text: the question, which `clean_text` has cleaned.
        options: how to answer.

    Raises:
        CannotAnswerError: the bundle has no answer head, or the library stores no tokens.
        NotFoundError: there is no such video.
        NotUnderstoodError: the model knows no word of the question.
        QueryError: the question has no token, or no stored frame lies in the span.
        OverloadedError: the deadline passed, or nobody waits for the answer any more.
        DamagedRowsError: all segments of the span, or the tokens of a salient frame, are damaged.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    check_can_answer(bundle, snapshot)
    video = video_with_id(snapshot, video_id)
    question = encode_text_query(bundle, text, tokens=True, name="question")
    frames, damaged = _frames_between(snapshot, video_id, question, options)
    if not frames:
        if damaged:
            raise damaged[-1]
        raise QueryError(_why_no_frame(video, options))
    chosen = _salient(frames, options.num_salient_frames or bundle.manifest.num_salient_frames)
    answers = _answers(bundle, snapshot, question, chosen, options.terms)
    (best,) = answers.best(options.top_k)
    return AnswerResult(
        answers=[PossibleAnswer(answer, round(share, SCORE_DECIMALS)) for answer, share in best],
        frames=[
            AnswerFrame(frame.frame_id, frame.pts_seconds, round(frame.relevance, SCORE_DECIMALS))
            for frame in chosen
        ],
        snapshot=snapshot.number,
        query_warnings=list(question.warnings),
        library_warnings=[LibraryWarning("damaged_segments", str(error)) for error in damaged],
    )


def _why_no_frame(video: VideoRecord, options: AnswerOptions) -> str:
    if not video.num_segments:
        return f"The video could not be indexed ({video.verdict}: {video.reason}). Ask about another one."
    end = "its end" if options.end_seconds is None else f"{options.end_seconds:g} s"
    return (
        f"No stored frame of the video lies from {options.start_seconds:g} s to {end}; it lasts "
        f"{video.duration_seconds:g} s. Choose a longer span, such as that of a hit."
    )


def _frames_between(
    snapshot: Snapshot, video_id: str, question: EncodedQuery, options: AnswerOptions
) -> tuple[list[_Frame], list[DamagedRowsError]]:
    """The stored frames of the span, in time order, and what is wrong with segments that are left out."""
    start = options.start_seconds
    end = np.inf if options.end_seconds is None else options.end_seconds
    frames: list[_Frame] = []
    damaged: list[DamagedRowsError] = []
    rows = snapshot.segment_rows(video_id, start, end)
    for first in range(0, len(rows), _SEGMENTS_AT_ONCE):
        _check_time(options.terms)
        for segment in _whole_segments(snapshot, rows[first : first + _SEGMENTS_AT_ONCE], damaged):
            fit = relevance(segment.frame_salience[None], question.salience)[0].tolist()
            ids, pts = segment.frame_ids, segment.frame_pts_seconds.tolist()
            frames += [
                _Frame(segment.row, place, ids[place], pts[place], fit[place])
                for place in places_between(segment, start, end)
            ]
    return frames, damaged


def _whole_segments(
    snapshot: Snapshot, rows: NDArray[np.int64], damaged: list[DamagedRowsError]
) -> list[SegmentRecord]:
    """The segments at these rows but the damaged ones; what is wrong with those is added to `damaged`."""
    while len(rows):
        try:
            return snapshot.segments(rows)
        except DamagedRowsError as error:
            damaged.append(error)
            rows = rows[~np.isin(rows, error.rows)]
    return []


def _salient(frames: list[_Frame], count: int) -> list[_Frame]:
    """The most relevant frames, most relevant first: all frames are those of one candidate."""
    fit = np.array([[frame.relevance for frame in frames]], np.float32)
    index, mask = select_salient(fit, np.array([len(frames)]), count)
    return [frames[place] for place in index[mask]]


def _answers(
    bundle: Bundle, snapshot: Snapshot, question: EncodedQuery, frames: list[_Frame], terms: MatchTerms
) -> Answers:
    """The answers from the frames' tokens; those to a question in parts are the means of their logits."""
    _check_time(terms)
    tokens = snapshot.frame_tokens([frame.segment_row for frame in frames], [frame.place for frame in frames])
    logits = np.zeros((1, len(bundle.vocabulary)), np.float32)
    for part in question.parts or ():
        _check_time(terms)
        logits += (
            np.float32(part.weight) * bundle.answer(part.text, np.zeros(1, np.int64), tokens[None]).logits
        )
    return Answers(bundle.vocabulary, logits)


def _check_time(terms: MatchTerms) -> None:
    if terms.is_over(time.monotonic()):
        raise OverloadedError(
            "The deadline of this question passed before it was answered. Ask about a shorter span, raise "
            "deadline_ms, or try again later."
        )
