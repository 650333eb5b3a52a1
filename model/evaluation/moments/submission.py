"""Predicted moments in TVR's submission format: written, read and checked.

{"video2idx": {name: number}, "VCMR": [{"desc_id", "desc", "predictions": [[number, start, end, score], …]}],
"SVMR": […], "VR": […]}: moments in the corpus, moments of the given video, and videos. Predictions are best
first.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.data.datasets.moments import Moment
from model.data.datasets.records import Entry, entries_of, read_annotation_json
from model.runtime.errors import InputError
from model.runtime.files import replace_text

Task = Literal["VCMR", "SVMR", "VR"]
#: moments in the corpus, moments of the given video, videos
TASKS: tuple[Task, ...] = ("VCMR", "SVMR", "VR")
# So many names of queries are listed in an error.
_NAMED = 3
# Whole numbers up to here are exact in double precision.
_LARGEST = 2**53


@dataclass(frozen=True)
class Predictions:
    """The predictions for one query, best first. K predictions.

    Attributes:
        video: numbers of videos, as in `Submission.video_numbers`; int64 [K].
        span: start and end in seconds, float64 [K, 2]; videos alone have 0 and 0.
        score: float64 [K]; evaluation ignores it.

    Raises:
        InputError: the shapes do not fit, or a number is not finite.
    """

    video: NDArray[np.int64]
    span: NDArray[np.float64]
    score: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.video)
        if self.video.shape != (count,) or self.span.shape != (count, 2) or self.score.shape != (count,):
            raise InputError(
                f"video {list(self.video.shape)}, span {list(self.span.shape)} and score "
                f"{list(self.score.shape)}: pass [K], [K, 2] and [K]"
            )
        if not (np.isfinite(self.span).all() and np.isfinite(self.score).all()):
            raise InputError("a span or a score is NaN or infinite: predict finite numbers")

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class Submission:
    """Predictions for every query of one or more tasks.

    Attributes:
        video_numbers: the number of each video, by name.
        tasks: for each task, the predictions for each query, by the query's id.
    """

    video_numbers: Mapping[str, int]
    tasks: Mapping[Task, Mapping[str, Predictions]]

    def unknown_videos(self) -> int:
        """How many predictions name a video that has no number here. They count as wrong."""
        known = np.array(sorted(self.video_numbers.values()), np.int64)
        groups = (rows.video for queries in self.tasks.values() for rows in queries.values())
        return sum(int(np.count_nonzero(~np.isin(video, known))) for video in groups)


def write_submission(path: Path, submission: Submission, moments: Sequence[Moment]) -> None:
    """Write a submission for the queries of `moments`, in their order.

    Raises:
        InputError: a query has no predictions, or predictions are of no query.
    """
    values: dict[str, Any] = {"video2idx": dict(submission.video_numbers)}
    for task, queries in submission.tasks.items():
        check_queries(f"{task} predictions", queries, moments)
        values[task] = [
            {
                "desc_id": _identifier(moment.moment_id),
                "desc": moment.text,
                "predictions": _rows(queries[moment.moment_id]),
            }
            for moment in moments
        ]
    replace_text(path, json.dumps(values, ensure_ascii=False) + "\n")


def read_submission(path: Path) -> Submission:
    """Read a submission with one or more of the three tasks.

    Raises:
        InputError: the file is missing or malformed; the message names the task and the query.
    """
    values = read_predictions(path)
    if not isinstance(values, dict) or not isinstance(values.get("video2idx"), dict):
        raise InputError(f"{path} must hold an object with video2idx, an object {{video: number}}")
    numbers: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name, number in values["video2idx"].items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(f"{path}: video2idx gives {name} the number {number!r}: it must be an integer")
        if number in owners:
            raise InputError(f"{path}: video2idx gives {owners[number]} and {name} the same number, {number}")
        numbers[name], owners[number] = number, name
    tasks = {task: _read_task(path, task, values[task]) for task in TASKS if task in values}
    if not tasks:
        raise InputError(f"{path} has no predictions: give it VCMR, SVMR or VR")
    return Submission(numbers, tasks)


def read_predictions(path: Path) -> Any:
    """The value that a JSON file of predictions holds.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    check_file(path)
    return read_annotation_json(path)


def check_file(path: Path) -> None:
    """Check that a file of predictions is there.

    Raises:
        InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"no predictions in {path}: name the file that holds them")


def check_queries(what: str, predicted: Iterable[str], moments: Sequence[Moment]) -> None:
    """Check that the queries that have predictions are those of the annotations, each once.

    Raises:
        InputError: they are not; the message names the queries.
    """
    wanted = [moment.moment_id for moment in moments]
    if not wanted:
        raise InputError("the annotations hold no query: there is nothing to evaluate")
    if twice := _repeated(wanted):
        raise InputError(f"the annotations hold {_names(twice)} more than once: remove the repetitions")
    known, given = set(wanted), set(predicted)
    if missing := [name for name in wanted if name not in given]:
        raise InputError(f"{what} lack {_names(missing)} of the annotations: predict for every query")
    if unknown := sorted(given - known):
        raise InputError(
            f"{what} are for {_names(unknown)}, which the annotations lack: evaluate against the file that "
            "they were made for"
        )


def no_repetition(path: Path, where: str, names: Sequence[str]) -> None:
    """Check that each query is predicted once.

    Raises:
        InputError: a query is there twice.
    """
    if twice := _repeated(names):
        raise InputError(
            f"{path}{where}: there is {_names(twice)} more than once: predict for each query once"
        )


def number_rows(entry: Entry, field: str, query: str, least: int, form: str) -> NDArray[np.float64]:
    """A list of lists of numbers, of each the first `least`. [K, least]; an empty list gives no row.

    Raises:
        InputError: the field is missing, or a row is malformed; the message names the query.
    """
    rows = entry.values.get(field)
    if not isinstance(rows, list):
        raise entry.fail(f"query {query}: {field} must be a list of {form}")
    # A full submission of TVR has three million rows: one by one only to find the one at fault.
    try:
        values = np.array([row[:least] for row in rows])
    except (KeyError, TypeError, ValueError):
        values = np.empty(0, object)
    good = values.shape == (len(rows), least) and values.dtype.kind in "iuf"
    if not good or not np.isfinite(values).all():
        for row in rows:
            if not isinstance(row, list) or len(row) < least or not all(map(_is_number, row[:least])):
                raise entry.fail(f"query {query}: {field} holds {row!r}: it must be {form}")
    return np.array([row[:least] for row in rows], np.float64).reshape(-1, least)


def _read_task(path: Path, task: Task, values: Any) -> dict[str, Predictions]:
    entries = list(entries_of(path, values, task))
    names = [entry.name("desc_id") for entry in entries]
    no_repetition(path, f", {task}", names)
    return {name: _read_rows(entry, name) for name, entry in zip(names, entries, strict=True)}


def _read_rows(entry: Entry, query: str) -> Predictions:
    form = "[video number, start, end, score]"
    rows = number_rows(entry, "predictions", query, 3, form)
    if len(broken := np.flatnonzero((rows[:, 0] != np.floor(rows[:, 0])) | (abs(rows[:, 0]) > _LARGEST))):
        raise entry.fail(
            f"query {query}: predictions name the video {rows[broken[0], 0]:g}: it must be a number of "
            "video2idx"
        )
    # Nothing reads the score: another value in its place is no mistake.
    scores = [row[3] if len(row) > 3 and _is_number(row[3]) else 0.0 for row in entry.values["predictions"]]
    return Predictions(rows[:, 0].astype(np.int64), rows[:, 1:], np.array(scores, np.float64))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rows(predictions: Predictions) -> list[list[float]]:
    columns = (predictions.video, predictions.span[:, 0], predictions.span[:, 1], predictions.score)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _identifier(name: str) -> str | int:
    """The id as the official files write it: a number where it is one."""
    return int(name) if name.isdecimal() and str(int(name)) == name else name


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{'query' if len(names) == 1 else 'queries'} {listed}"
