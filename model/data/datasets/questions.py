"""Questions about videos: MSRVTT-QA and MSVD-QA (Xu et al., 2017), and questions made by rule.

Files: `train_qa.json`, `val_qa.json` and `test_qa.json`, each a list of {answer, category_id, id, question,
video_id}. A `video_id` is a number: of MSRVTT-QA, N is the file `videoN`; of the others, a line `NAME vidN`
of `youtube_mapping.txt` names the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.data.datasets.records import Annotated, Entry, entries_of, read_annotation_json, read_text
from model.runtime.errors import InputError

QUESTION_FILES = {"train": "train_qa.json", "val": "val_qa.json", "test": "test_qa.json"}
MAPPING_FILE = "youtube_mapping.txt"
#: the question words by which MSRVTT-QA reports accuracy
QUESTION_WORDS = ("what", "who", "how", "when", "where")
#: stands for questions that begin with none of them
OTHER_WORD = "other"
_FIRST_WORD = re.compile(r"\s*([a-z]+)")


def read_msrvtt_qa(folder: Path, split: str) -> list[Annotated]:
    """One split of MSRVTT-QA (6,513 / 497 / 2,990 clips), with the questions of each clip as its captions.

    Raises:
        InputError: the file is missing or malformed.
    """
    return _read(folder, split, None)


def read_mapped_qa(folder: Path, split: str) -> list[Annotated]:
    """One split of MSVD-QA (1,200 / 250 / 520 clips), or of questions in its form.

    Raises:
        InputError: a file is missing or malformed, or a video has no line in `youtube_mapping.txt`.
    """
    return _read(folder, split, read_mapping(folder / MAPPING_FILE))


def read_mapping(path: Path) -> dict[str, str]:
    """The names of videos by their numbers, from lines `NAME vidN`.

    Raises:
        InputError: the file is missing or malformed, or gives a number twice.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = Entry(path, f"line {number}", {})
        name, _, vid = line.strip().rpartition(" ")
        digits = vid.removeprefix("vid")
        if not name or digits == vid or not digits.isdecimal():
            raise row.fail(f"must be like '-4wsuPCjDBc_5_15 vid1', not {line.strip()!r}")
        if digits in names:
            raise row.fail(f"vid{digits} occurs twice")
        names[digits] = name.strip()
    return names


def _read(folder: Path, split: str, mapping: Mapping[str, str] | None) -> list[Annotated]:
    """The videos in the order of their first questions; without a mapping, N is `videoN`."""
    path = folder / QUESTION_FILES[split]
    if not path.is_file():
        raise InputError(f"no {path.name} in {folder}: set data.annotations to the folder that holds it")
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in entries_of(path, read_annotation_json(path)):
        number = row.name("video_id")
        name = f"video{number}" if mapping is None else mapping.get(number)
        if name is None:
            raise row.fail(f"video_id {number} has no line in {MAPPING_FILE}")
        asked.setdefault(name, []).append((row.text("question"), row.name("answer")))
    return [
        Annotated(name, tuple(q for q, _ in pairs), answers=tuple(a for _, a in pairs))
        for name, pairs in asked.items()
    ]


def common_answers(answers: Iterable[Sequence[str]], count: int | None = None) -> tuple[str, ...]:
    """The commonest answers, the most frequent first, of equal ones in alphabetical order.

    Args:
        answers: those to the questions about each video.
        count: the most to give; None: all.
    """
    counts = Counter(answer for group in answers for answer in group)
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:count])


def keep_common(annotated: Sequence[Annotated], count: int) -> list[Annotated]:
    """Only the questions with one of the `count` commonest answers, and only videos that keep a question."""
    known = set(common_answers((video.answers for video in annotated), count))
    kept = []
    for video in annotated:
        pairs = [pair for pair in zip(video.captions, video.answers, strict=True) if pair[1] in known]
        if pairs:
            questions, answers = zip(*pairs, strict=True)
            kept.append(Annotated(video.video_id, questions, video.span_seconds, answers))
    return kept


def question_word(question: str) -> str:
    """The question word that a question begins with, or "other"."""
    first = _FIRST_WORD.match(question.lower())
    return first[1] if first is not None and first[1] in QUESTION_WORDS else OTHER_WORD


@dataclass(frozen=True)
class AnswerPrior:
    """The commonest answer of a training set, overall and to each question word."""

    overall: str
    by_word: Mapping[str, str]

    def of(self, question: str) -> str:
        """The commonest answer to questions with this question's word."""
        return self.by_word.get(question_word(question), self.overall)


def answer_prior(annotated: Iterable[Annotated]) -> AnswerPrior:
    """Count the answers of a training set.

    Raises:
        InputError: there is no question.
    """
    by_word: dict[str, list[str]] = {}
    for video in annotated:
        for question, answer in zip(video.captions, video.answers, strict=True):
            by_word.setdefault(question_word(question), []).append(answer)
    if not by_word:
        raise InputError("the training set has no question with an answer: check data.annotations")
    commonest = {word: common_answers([answers], 1)[0] for word, answers in by_word.items()}
    return AnswerPrior(common_answers(by_word.values(), 1)[0], commonest)
