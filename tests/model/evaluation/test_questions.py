"""Accuracies of answers against those counted by hand, with a bundle whose answers can be predicted."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from model.data.datasets.questions import AnswerPrior
from model.data.datasets.records import Annotated
from model.data.stills import CaptionedStills, read_asked_stills, read_stills
from model.evaluation.encoders import BundleEncoder
from model.evaluation.questions import (
    Answering,
    QuestionOptions,
    Questions,
    encode_frames_of,
    evaluate_questions,
    question_settings,
    questions_table,
)
from model.evaluation.spliced import NOISY, splice_films
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support import toy_bundle as toy

#: the frames of each video, and its questions with the answers of the annotators
VIDEOS: dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]] = {
    "v1": (
        ("red", "blue", "blue"),
        [("what is red", "red"), ("where is blue", "blue"), ("who is a fox", "fox")],
    ),
    "v2": (("green",), [("what is green", "green"), ("is it red", "red")]),
    "v3": (("white", "cyan"), [("what is white", "white"), ("who is cyan", "yellow")]),
}
PRIOR = AnswerPrior("green", {"what": "red", "who": "yellow"})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    folder = toy.make_toy_bundle(
        tmp_path_factory.mktemp("bundles") / "toy", answers=True, num_salient_frames=1
    )
    return BundleEncoder(Bundle.open(folder))


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    (folder / "images").mkdir()
    frames, captions = [("image", "video", "split")], [("video", "split", "caption")]
    for name, (colours, _) in VIDEOS.items():
        captions.append((name, "test", "a caption"))
        for i, colour in enumerate(colours):
            frames.append((f"{name}_{i}.png", name, "test"))
            image = np.full((32, 32, 3), toy.COLOURS[colour], np.uint8)
            Image.fromarray(image).save(folder / "images" / f"{name}_{i}.png")
    for file, rows in (("frames.csv", frames), ("captions.csv", captions)):
        with (folder / file).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def source(stills: Path) -> CaptionedStills:
    asked = {
        name: Annotated(name, tuple(q for q, _ in pairs), answers=tuple(a for _, a in pairs))
        for name, (_, pairs) in VIDEOS.items()
    }
    return read_asked_stills(stills, "test", asked)


def test_accuracies_are_those_counted_by_hand(encoder: BundleEncoder, source: CaptionedStills) -> None:
    """The frame that a question's colour names is salient; the answer is its colour."""
    result = evaluate_questions(encoder, source, PRIOR, QuestionOptions(frames=("salient", "all", "none")))
    assert result["n"] == {"all": 7, "what": 3, "who": 2, "where": 1, "other": 1}
    # The toy knows the eight colours: all answers but "fox".
    assert result["answerable"] == pytest.approx(
        {"all": 600 / 7, "what": 100, "who": 50, "where": 100, "other": 100}
    )
    accuracy = result["accuracy"]
    # SFP answers red, blue, (red or blue); green, green; white, cyan: right are 3 of 3, 0 of 2, 1, 0.
    assert accuracy["salient frames"] == pytest.approx(
        {"all": 400 / 7, "what": 100, "who": 0, "where": 100, "other": 0}
    )
    # All frames: (red + 2 · blue) / 3 is nearest to blue; green; (white + cyan) / 2 is between both.
    tokens = {"v1": "blue", "v2": "green", "v3": mean_colour(("white", "cyan"))}
    expected = [tokens[name] == answer for name, (_, pairs) in VIDEOS.items() for _, answer in pairs]
    assert accuracy["all frames"]["all"] == pytest.approx(100 * sum(expected) / 7)
    # Zeros are grey: as far from every colour, so that the first one is answered.
    assert accuracy["no frames"] == pytest.approx(
        {"all": 200 / 7, "what": 100 / 3, "who": 0, "where": 0, "other": 100}
    )
    assert accuracy["commonest answer"] == pytest.approx(
        {"all": 100 / 7, "what": 100 / 3, "who": 0, "where": 0, "other": 0}
    )
    assert accuracy["commonest answer to the question word"] == pytest.approx(
        {"all": 200 / 7, "what": 100 / 3, "who": 50, "where": 0, "other": 0}
    )


def mean_colour(colours: tuple[str, ...]) -> str:
    """What the toy answers to frames of these colours."""
    frames = np.array([toy.COLOURS[name] for name in colours], np.float64) / 127.5 - 1
    return list(toy.COLOURS)[int(toy.answer_logit(frames[:, None].astype(np.float32)).argmax())]


def test_random_frames_are_the_mean_of_draws(encoder: BundleEncoder, source: CaptionedStills) -> None:
    questions = Questions.about(source)
    answering = Answering(encoder, questions, QuestionOptions(seed=5))
    corpus = encode_frames_of(encoder, source, QuestionOptions())
    draws = [questions.accuracy(answering.answers(corpus, "random", seed))["all"] for seed in (5, 6, 7)]
    assert answering.accuracy(corpus, "random")["all"] == pytest.approx(sum(draws) / 3)
    answers = {tuple(answering.answers(corpus, "random", seed)) for seed in range(8)}
    assert len(answers) > 1
    for given in answers:
        # Only frames of the video itself are drawn.
        names = [name for name, (_, pairs) in VIDEOS.items() for _ in pairs]
        assert all(answer in VIDEOS[name][0] for name, answer in zip(names, given, strict=True))


def test_more_salient_frames_than_a_video_has(encoder: BundleEncoder, source: CaptionedStills) -> None:
    options = QuestionOptions(frames=("salient", "all"), num_salient_frames=9)
    accuracy = evaluate_questions(encoder, source, PRIOR, options)["accuracy"]
    assert accuracy["salient frames"] == accuracy["all frames"]


def test_films_ask_what_their_items_ask(encoder: BundleEncoder, source: CaptionedStills) -> None:
    films = splice_films(source, 1, 2, NOISY, encoder.profile.frames_per_segment, 0)
    questions = Questions.about(films)
    row = int(films.rows[0, 0])
    assert questions.texts == source.captions[row]
    assert questions.answers == source.answers[row]
    assert questions.segments.tolist() == [0] * len(questions.texts)
    result = evaluate_questions(encoder, films, PRIOR)
    assert result["n"]["all"] == len(questions.texts)
    assert list(result["accuracy"])[:4] == ["salient frames", "random frames", "all frames", "no frames"]


def test_the_table_and_a_second_model(encoder: BundleEncoder, source: CaptionedStills) -> None:
    options = QuestionOptions(frames=("salient",))
    block = evaluate_questions(encoder, source, PRIOR, options, alone=encoder)
    assert block["accuracy"]["question alone, trained so"]["other"] == 100
    settings = question_settings(encoder, options)
    assert settings == {
        "num_salient_frames": 1,
        "tokens": "int8",
        "tokens_per_frame": 4,
        "answers": 8,
        "seed": 0,
    }
    lines = questions_table({"settings": settings, "questions": {"test": block}}).splitlines()
    assert lines[0] == "8 answers; 1 salient frames (int8 tokens, 4 a frame)"
    assert lines[2] == "test: accuracy in percent"
    assert lines[3].split() == ["all", "what", "who", "where", "other"]
    assert lines[4].split() == ["questions", "7", "3", "2", "1", "1"]
    found = next(line for line in lines if line.startswith("salient frames"))
    assert found.split() == ["salient", "frames", "57.1", "100.0", "0.0", "100.0", "0.0"]


def test_what_cannot_be_measured_is_refused(
    encoder: BundleEncoder, source: CaptionedStills, stills: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"split test has captions, not questions: set data\.kind"):
        evaluate_questions(encoder, read_stills(stills, "test"), PRIOR)
    plain = BundleEncoder(Bundle.open(toy.make_toy_bundle(tmp_path / "plain")))
    with pytest.raises(InputError, match="this model has no answer head: train one"):
        evaluate_questions(plain, source, PRIOR)
    with pytest.raises(InputError, match="frames is 'some': choose among salient, random, all, none"):
        QuestionOptions(frames=("some",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_salient_frames is 0: it must be at least 1"):
        QuestionOptions(num_salient_frames=0)
