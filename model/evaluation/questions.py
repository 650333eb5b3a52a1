"""Accuracy of answers to questions about videos, overall and by question word, beside what needs no video.

Shapes: Q questions, G segments, N frame slots, n frames that are read, P tokens a frame, H their width,
S salience, A answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows
from model.data.datasets.questions import OTHER_WORD, QUESTION_WORDS, AnswerPrior, question_word
from model.data.sources import Source
from model.evaluation.corpus import Corpus, Texts, TokenOptions, encode_all_texts, encode_source
from model.evaluation.spliced import SplicedFilms, encode_films
from model.families.encoder import FRAME_CHOICES, AnswersQuestions, Encoder, FrameChoice
from model.progress import Progress, Report, silent
from model.runtime.errors import InputError
from model.runtime.ranking import select_salient

# Questions about random frames are answered so many times, and the accuracies averaged.
_RANDOM_DRAWS = 3
_PAIRS_A_CALL = 1024


@dataclass(frozen=True)
class QuestionOptions:
    """What is measured; None: as the model's settings say.

    Attributes:
        frames: the choices of frames to measure.
        num_salient_frames: frames that are read of a video, by SFP or at random.
        tokens: how frame tokens are stored between encoder and answer head.
        seed: decides the random frames.

    Raises:
        InputError: a value is invalid.
    """

    frames: tuple[FrameChoice, ...] = FRAME_CHOICES
    num_salient_frames: int | None = None
    tokens: TokenOptions = field(default_factory=TokenOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        for choice in self.frames:
            if choice not in FRAME_CHOICES:
                raise InputError(f"frames is {choice!r}: choose among {', '.join(FRAME_CHOICES)}", "frames")
        if self.num_salient_frames is not None and self.num_salient_frames < 1:
            count = self.num_salient_frames
            raise InputError(f"num_salient_frames is {count}: it must be at least 1", "num_salient_frames")


@dataclass(frozen=True)
class Questions:
    """Q questions and their answers, each with the segment it is about, by its row in a corpus."""

    texts: tuple[str, ...]
    answers: tuple[str, ...]
    segments: Rows

    @classmethod
    def about(cls, source: Source | SplicedFilms) -> Questions:
        """All questions of a source; a film has those of its item.

        Raises:
            InputError: its texts are captions.
        """
        groups: Iterable[tuple[Sequence[str], Sequence[str]]] = ()
        if isinstance(source, SplicedFilms):
            stills = source.stills
            if stills.answers:
                groups = ((stills.captions[row], stills.answers[row]) for (row,) in source.rows)
        elif source.answers:
            groups = zip(source.captions, source.answers, strict=True)
        asked = list(groups)
        if not asked:
            raise InputError(
                f"split {source.name} has captions, not questions: set data.kind to questions, msrvtt_qa or "
                "msvd_qa"
            )
        return cls(
            tuple(text for texts, _ in asked for text in texts),
            tuple(answer for _, answers in asked for answer in answers),
            np.repeat(np.arange(len(asked)), [len(texts) for texts, _ in asked]),
        )

    def accuracy(self, predicted: Sequence[str]) -> dict[str, float]:
        """The share of right answers in percent, of `all` questions and by question word."""
        right = np.array([p == a for p, a in zip(predicted, self.answers, strict=True)])
        return {name: float(100 * right[rows].mean()) for name, rows in self.groups().items()}

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Which questions are counted together: `all`, then by each question word that occurs. bool [Q]"""
        words = np.array([question_word(text) for text in self.texts])
        groups = {"all": np.ones(len(words), np.bool_)}
        return groups | {w: words == w for w in (*QUESTION_WORDS, OTHER_WORD) if (words == w).any()}


class Answering:
    """Answers the questions about one corpus with a model's answer head.

    Raises:
        InputError: the model has no answer head.
    """

    def __init__(self, encoder: Encoder, questions: Questions, options: QuestionOptions) -> None:
        if not isinstance(encoder, AnswersQuestions) or not encoder.vocabulary:
            raise InputError(
                "this model has no answer head: train one with a recipe such as model/recipes/msrvtt_qa.yaml"
            )
        self.head: AnswersQuestions = encoder
        self.questions, self.options = questions, options
        self.salient = options.num_salient_frames or encoder.profile.num_salient_frames
        self.texts: Texts = encode_all_texts(encoder, questions.texts, tokens=True)

    def accuracy(self, corpus: Corpus, choice: FrameChoice, report: Report = silent) -> dict[str, float]:
        """The accuracy with one choice of frames; with random ones, the mean of several draws."""
        draws = _RANDOM_DRAWS if choice == "random" else 1
        rows = [
            self.questions.accuracy(self.answers(corpus, choice, self.options.seed + draw, report))
            for draw in range(draws)
        ]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def answers(
        self, corpus: Corpus, choice: FrameChoice, seed: int = 0, report: Report = silent
    ) -> list[str]:
        """The likeliest answer to each question, Q of them.

        Raises:
            ValueError: the corpus was encoded without tokens.
        """
        if corpus.tokens is None:
            raise ValueError(
                "the corpus has no frame tokens, which the answer head reads: encode it with tokens"
            )
        index, real = self._frames(corpus, choice, seed)
        vocabulary = self.head.vocabulary
        predicted = [""] * len(self.texts)
        progress = Progress("questions", len(predicted), report)
        step = max(1, _PAIRS_A_CALL // index.shape[1])
        for rows, encoding in self.texts.parts:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                places = np.arange(start, start + len(part))
                tokens = corpus.tokens.take(index[part].ravel())
                tokens = tokens.reshape(*index[part].shape, *tokens.shape[1:])
                if choice == "none":
                    tokens = np.zeros_like(tokens)
                logits = self.head.answer(encoding, places, tokens, real[part].astype(np.float32))
                for row, best in zip(part.tolist(), logits.argmax(1).tolist(), strict=True):
                    predicted[row] = vocabulary[best]
                progress.step(len(part))
        return predicted

    def _frames(self, corpus: Corpus, choice: FrameChoice, seed: int) -> tuple[Rows, NDArray[np.bool_]]:
        """The distinct frames that each question is answered from. → int64 [Q, n], bool [Q, n]"""
        slots = corpus.slots[self.questions.segments]
        counts = corpus.counts[self.questions.segments]
        relevance = np.random.default_rng(seed).random(slots.shape, np.float32)
        count = {"all": int(counts.max()), "none": 1}.get(choice, self.salient)
        if choice == "salient":
            relevance = self._relevance(corpus, slots)
        index, real = select_salient(relevance, counts, min(count, slots.shape[1]))
        return np.take_along_axis(slots, index, axis=1), real

    def _relevance(self, corpus: Corpus, slots: Rows) -> Array:
        """The relevance of each frame slot for its question. int64 [Q, N] → [Q, N]"""
        relevance = np.empty(slots.shape, np.float32)
        for row, frames in enumerate(slots):
            relevance[row] = corpus.salience[frames] @ self.texts.salience[row]
        return relevance


def evaluate_questions(
    encoder: Encoder,
    source: Source | SplicedFilms,
    prior: AnswerPrior,
    options: QuestionOptions | None = None,
    alone: Encoder | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Answer all questions of a source.

    Args:
        encoder: a model with an answer head.
        source: videos or films, with questions.
        prior: the commonest answers of the training set.
        options: how to measure; None: as the model's settings say.
        alone: a model of the same kind that was trained without frames.
        report: told how long it will take.

    Returns:
        `n`, the questions by question word; `answerable`, the percentage of them whose answer the model
        knows; and `accuracy` in percent, by question word, of each choice of frames ("salient frames", …), of
        "question alone, trained so" where `alone` is given, and of the two priors.

    Raises:
        InputError: the model has no answer head, or the source has no questions.
    """
    options = options or QuestionOptions()
    questions = Questions.about(source)
    answering = Answering(encoder, questions, options)
    corpus = encode_frames_of(encoder, source, options, report)
    accuracy = {_ROW_OF[choice]: answering.accuracy(corpus, choice, report) for choice in options.frames}
    if alone is not None:
        blind = Answering(alone, questions, options)
        # Its frames are zeros, so that any corpus does that has the model's shapes.
        own = encode_frames_of(alone, source, options, report)
        accuracy["question alone, trained so"] = blind.accuracy(own, "none", report)
    word_answers = [prior.of(text) for text in questions.texts]
    accuracy["commonest answer to the question word"] = questions.accuracy(word_answers)
    accuracy["commonest answer"] = questions.accuracy([prior.overall] * len(questions.texts))
    known = set(answering.head.vocabulary)
    groups = questions.groups()
    answerable = np.array([answer in known for answer in questions.answers])
    return {
        "n": {name: int(rows.sum()) for name, rows in groups.items()},
        "answerable": {name: float(100 * answerable[rows].mean()) for name, rows in groups.items()},
        "accuracy": accuracy,
    }


_ROW_OF: Mapping[FrameChoice, str] = {
    "salient": "salient frames",
    "random": "random frames",
    "all": "all frames",
    "none": "no frames",
}


def encode_frames_of(
    encoder: Encoder, source: Source | SplicedFilms, options: QuestionOptions, report: Report = silent
) -> Corpus:
    """Encode the videos or films of a source, with tokens as the options and the model say."""
    per_frame = options.tokens.per_frame or encoder.profile.tokens_per_frame
    tokens = TokenOptions(options.tokens.kind, per_frame)
    if isinstance(source, SplicedFilms):
        return encode_films(encoder, source, tokens, report)
    return encode_source(encoder, source, tokens, report)


def question_settings(encoder: Encoder, options: QuestionOptions) -> dict[str, Any]:
    """The settings that a result is measured with, for its JSON."""
    profile = encoder.profile
    return {
        "num_salient_frames": options.num_salient_frames or profile.num_salient_frames,
        "tokens": options.tokens.kind,
        "tokens_per_frame": options.tokens.per_frame or profile.tokens_per_frame,
        "answers": len(encoder.vocabulary) if isinstance(encoder, AnswersQuestions) else 0,
        "seed": options.seed,
    }


def questions_table(result: Mapping[str, Any]) -> str:
    """A table for each split, with a line for each way to answer; figures are in percent."""
    settings = result["settings"]
    per_frame = settings["tokens_per_frame"]
    tokens = f"{settings['tokens']} tokens" + ("" if per_frame is None else f", {per_frame} a frame")
    frames = settings["num_salient_frames"]
    lines = [f"{settings['answers']:,} answers; {frames} salient frames ({tokens})"]
    for title, block in result["questions"].items():
        groups = list(block["n"])
        width = max(map(len, (*block["accuracy"], "answer known"))) + 1
        lines += ["", f"{title}: accuracy in percent"]
        lines.append(f"{'':{width}}" + "".join(f"{name:>8}" for name in groups))
        lines.append(f"{'questions':{width}}" + "".join(f"{block['n'][name]:8,}" for name in groups))
        for name, values in {"answer known": block["answerable"], **block["accuracy"]}.items():
            lines.append(f"{name:{width}}" + "".join(f"{values[group]:8.1f}" for group in groups))
    return "\n".join(lines)
