"""Described moments of videos: TVR, QVHighlights, Charades-STA, ActivityNet Captions, DiDeMo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from model.data.datasets.didemo import chunk_seconds
from model.data.datasets.records import (
    Entry,
    SpanSeconds,
    entries_of,
    json_lines,
    read_annotation_json,
    read_text,
)
from model.runtime.errors import InputError

#: length of a clip of QVHighlights
CLIP_SECONDS = 2.0

_CHARADES = re.compile(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)##(.+)")


@dataclass(frozen=True)
class Moment:
    """A text and the spans of a video that it describes; each of several spans is a right answer."""

    moment_id: str
    video_id: str
    text: str
    spans: tuple[SpanSeconds, ...]
    duration_seconds: float | None = None
    #: what the text describes, in TVR: the video (v), the subtitles (t), or both (vt)
    kind: str | None = None
    #: QVHighlights: clips of two seconds that the text describes, counted from 0
    clip_ids: tuple[int, ...] = ()
    #: QVHighlights: for each of these clips, how salient each annotator finds it, from 0 to 4
    saliency: tuple[tuple[float, ...], ...] = ()


def read_tvr(path: Path, *, spans_hidden: bool = False) -> list[Moment]:
    """TVR, JSON lines: {vid_name, duration, ts: [start, end], desc, type, desc_id}; How2R is alike.

    DiDeMo in this form has a list of [start, end] in `ts`, one of each annotator.

    Args:
        path: the file.
        spans_hidden: `ts` may be missing, as in the test split, whose spans are not published.

    Raises:
        InputError: the file is missing or malformed; all readers here raise it.
    """
    return [
        Moment(
            row.name("desc_id"),
            row.text("vid_name"),
            row.text("desc"),
            () if spans_hidden and row.values.get("ts") is None else _spans(row, "ts"),
            row.number("duration"),
            row.text("type") if row.values.get("type") else None,
        )
        for row in json_lines(path)
    ]


def _spans(row: Entry, field: str) -> tuple[SpanSeconds, ...]:
    """The one span of a field, or several."""
    values = row.items(field)
    if not all(isinstance(value, list) for value in values):
        return (row.span(field),)
    return tuple(row.span(field, value) for value in values)


def read_tvr_durations(path: Path, split: str) -> dict[str, tuple[float, int]]:
    """Seconds and number of each video in a split of a file {split: {video: [seconds, number]}}."""
    values = read_annotation_json(path)
    group = values.get(split) if isinstance(values, dict) else None
    if not isinstance(group, dict):
        raise InputError(f"{path}: no split {split!r}; there are {', '.join(values) if values else 'none'}")
    out = {}
    for name, pair in group.items():
        row = Entry(path, f"split {split}", {name: pair})
        seconds, number = (*row.items(name), None, None)[:2]
        if not isinstance(number, int) or not isinstance(seconds, int | float):
            raise row.fail(f"{name} is {pair}: it must be [seconds, number]")
        out[name] = (float(seconds), number)
    return out


def read_windows(path: Path) -> list[Moment]:
    """QVHighlights, and other sets in its form, JSON lines: {qid, query, duration, vid, relevant_windows}.

    QVHighlights has relevant_clip_ids and saliency_scores too.
    """
    return [
        Moment(
            row.name("qid"),
            row.text("vid"),
            row.text("query"),
            tuple(row.span("relevant_windows", window) for window in row.items("relevant_windows")),
            row.number("duration"),
            None,
            *_highlights(row),
        )
        for row in json_lines(path)
    ]


def _highlights(row: Entry) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """The clips that a text describes, and how salient annotators find each of them."""
    if row.values.get("saliency_scores") is None:
        return (), ()
    clips, scores = row.items("relevant_clip_ids"), row.items("saliency_scores")
    clip_count = int(row.number("duration") / CLIP_SECONDS)
    for clip in clips:
        if not isinstance(clip, int) or isinstance(clip, bool) or not 0 <= clip < clip_count:
            raise row.fail(f"relevant_clip_ids holds {clip!r}: there are clips 0 to {clip_count - 1}")
    if len(scores) != len(clips):
        raise row.fail(f"{len(clips)} relevant_clip_ids and {len(scores)} saliency_scores: give one a clip")
    annotators = len(scores[0]) if isinstance(scores[0], list) else 0
    for score in scores:
        good = isinstance(score, list) and len(score) == annotators > 0
        if not good or not all(isinstance(part, int | float) for part in score):
            raise row.fail(
                f"saliency_scores holds {score!r}: give each clip a list of numbers, one of each annotator"
            )
    return tuple(clips), tuple(tuple(float(part) for part in score) for score in scores)


def read_charades(path: Path) -> list[Moment]:
    """Charades-STA as published: `3MSZA 24.3 30.4##person turn a light on.` Swapped ends are put in order."""
    out = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = _CHARADES.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"{path}, line {number}: must be like '3MSZA 24.3 30.4##person turn a light on.'"
            )
        video, first, second, text = match.groups()
        start, end = sorted((float(first), float(second)))
        out.append(Moment(str(number), video, text.strip(), ((start, end),)))
    return out


def read_activitynet(path: Path) -> list[Moment]:
    """ActivityNet Captions: {"v_<id>": {duration, sentences, timestamps}}. Swapped ends are put in order."""
    values = read_annotation_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold an object of videos, not {type(values).__name__}")
    out = []
    for name, value in values.items():
        if not isinstance(value, dict):
            raise InputError(f"{path}, video {name}: must be an object")
        row = Entry(path, f"video {name}", value)
        sentences, times = row.items("sentences"), row.items("timestamps")
        if len(sentences) != len(times):
            raise row.fail(
                f"{len(sentences)} sentences and {len(times)} timestamps: there must be as many of both"
            )
        for number, (sentence, pair) in enumerate(zip(sentences, times, strict=True)):
            text = Entry(path, f"video {name}", {"sentences": sentence}).text("sentences")
            span = row.span("timestamps", sorted(pair) if _two_numbers(pair) else pair)
            out.append(Moment(f"{name}/{number}", name, text, (span,), row.number("duration")))
    return out


def _two_numbers(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, int | float) for part in pair)


def read_didemo_moments(path: Path) -> list[Moment]:
    """DiDeMo's sentences, each with the chunks that each annotator chose."""
    return [
        Moment(row.name("annotation_id"), row.text("video"), row.text("description"), chunk_seconds(row))
        for row in entries_of(path, read_annotation_json(path))
    ]
