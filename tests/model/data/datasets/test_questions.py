"""Questions of the data sets' official files: what is read, what is learned, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from model.data.datasets import annotations_of, open_split
from model.data.datasets.questions import (
    AnswerPrior,
    answer_prior,
    common_answers,
    keep_common,
    question_word,
    read_mapped_qa,
    read_mapping,
    read_msrvtt_qa,
)
from model.data.datasets.records import Annotated
from model.runtime.errors import InputError
from model.settings import DataConfig
from tests.support.annotations import write_json


def row(video: int | str, question: str, answer: Any, **changes: Any) -> dict[str, Any]:
    values = {"answer": answer, "category_id": 3, "id": 7, "question": question, "video_id": video}
    return values | changes


ROWS = [
    row(3, "what is a man playing?", "guitar"),
    row(12, "who is singing?", "woman"),
    row(3, "how many men are there?", "two"),
    row(3, "who is singing?", "man"),
    row(12, "where is a woman?", "stage"),
]


def test_msrvtt_qa_names_its_clips_by_number(tmp_path: Path) -> None:
    write_json(tmp_path / "val_qa.json", ROWS)
    assert read_msrvtt_qa(tmp_path, "val") == [
        Annotated(
            "video3",
            ("what is a man playing?", "how many men are there?", "who is singing?"),
            answers=("guitar", "two", "man"),
        ),
        Annotated("video12", ("who is singing?", "where is a woman?"), answers=("woman", "stage")),
    ]


def test_msvd_qa_names_its_clips_by_a_mapping(tmp_path: Path) -> None:
    write_json(tmp_path / "test_qa.json", ROWS)
    (tmp_path / "youtube_mapping.txt").write_text(
        "-4wsuPCjDBc_5_15 vid3\nmy clip (1).avi vid12\n\nx_1_2 vid40\n"
    )
    assert [video.video_id for video in read_mapped_qa(tmp_path, "test")] == [
        "-4wsuPCjDBc_5_15",
        "my clip (1).avi",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "entry must be a list of objects, not dict"),
        ([ROWS[0], 5], "entry 1: must be an object, not 5"),
        ([row(3, " ", "a")], r"val_qa\.json, entry 0: question is ' ': it must be a text"),
        ([row(3, "who?", None)], "entry 0: no field 'answer'; there are answer, category_id"),
        ([row(3, "who?", ["a"])], r"entry 0: answer is \['a'\]: it must be a text"),
        ([row("", "who?", "a")], "entry 0: video_id is '': it must be a text"),
    ],
)
def test_mistakes_are_named_by_entry_and_field(tmp_path: Path, rows: Any, message: str) -> None:
    write_json(tmp_path / "val_qa.json", rows)
    with pytest.raises(InputError, match=message):
        read_msrvtt_qa(tmp_path, "val")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a vid1\nb\n", "line 2: must be like '-4wsuPCjDBc_5_15 vid1', not 'b'"),
        ("a 1\n", "line 1: must be like"),
        ("a vidx\n", "line 1: must be like"),
        ("vid1\n", "line 1: must be like"),
        ("a vid1\nb vid1\n", "line 2: vid1 occurs twice"),
    ],
)
def test_mistakes_of_the_mapping_are_named(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "youtube_mapping.txt"
    path.write_text(lines)
    with pytest.raises(InputError, match=message):
        read_mapping(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no train_qa\.json in .*: set data\.annotations to the folder"):
        read_msrvtt_qa(tmp_path, "train")
    write_json(tmp_path / "train_qa.json", ROWS)
    with pytest.raises(InputError, match=r"no annotation file .*youtube_mapping\.txt"):
        read_mapped_qa(tmp_path, "train")
    (tmp_path / "youtube_mapping.txt").write_text("a vid3\n")
    with pytest.raises(InputError, match=r"entry 1: video_id 12 has no line in youtube_mapping\.txt"):
        read_mapped_qa(tmp_path, "train")
    with pytest.raises(InputError, match=r"no data\.annotations: set it to the folder of msvd_qa's"):
        annotations_of(DataConfig(kind="msvd_qa"), "train")


def test_the_commonest_answers_are_counted_and_ties_are_alphabetical() -> None:
    answers = [("man", "two", "b"), ("man", "a"), ("two", "man")]
    assert common_answers(answers) == ("man", "two", "a", "b")
    assert common_answers(answers, 3) == ("man", "two", "a")
    assert common_answers([], 3) == ()


def test_rare_answers_and_videos_without_others_do_not_train() -> None:
    videos = [
        Annotated("x", ("1", "2"), answers=("man", "rare")),
        Annotated("y", ("3",), answers=("seldom",)),
        Annotated("z", ("4",), answers=("man",)),
    ]
    assert keep_common(videos, 1) == [
        Annotated("x", ("1",), answers=("man",)),
        Annotated("z", ("4",), answers=("man",)),
    ]


def test_only_training_leaves_rare_answers_out(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_json(tmp_path / f"{split}_qa.json", [*ROWS, row(5, "who is that?", "man")])
    data = DataConfig(kind="msrvtt_qa", annotations=str(tmp_path), num_answers=1)
    assert [video.answers for video in annotations_of(data, "train")] == [("man",), ("man",)]
    assert [len(video.answers) for video in annotations_of(data, "test")] == [3, 2, 1]
    held_out = DataConfig(kind="msrvtt_qa", annotations=str(tmp_path), validation=1)
    parts = [{video.video_id for video in annotations_of(held_out, split)} for split in ("train", "val")]
    assert [len(part) for part in parts] == [2, 1]
    assert parts[0] | parts[1] == {"video3", "video12", "video5"}


def test_a_split_finds_its_files(tmp_path: Path) -> None:
    write_json(tmp_path / "test_qa.json", ROWS)
    for name in ("video3.mp4", "video12.webm"):
        (tmp_path / name).touch()
    data = DataConfig(kind="msrvtt_qa", annotations=str(tmp_path), videos=str(tmp_path))
    split = open_split(data, "test")
    assert [(item.path.name, item.answers) for item in split.items] == [
        ("video3.mp4", ("guitar", "two", "man")),
        ("video12.webm", ("woman", "stage")),
    ]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("what is a man doing?", "what"),
        ("Who's there?", "who"),
        (" how many dogs are there?", "how"),
        ("when does it end", "when"),
        ("where?", "where"),
        ("which dog runs?", "other"),
        ("whatever is that?", "other"),
        ("", "other"),
    ],
)
def test_question_words(question: str, word: str) -> None:
    assert question_word(question) == word


def test_the_prior_is_the_commonest_answer_of_each_word() -> None:
    rows = [("who runs?", "man"), ("who sits?", "dog"), ("who eats?", "man"), ("what is it?", "dog")]
    rows += [("what is on it?", "dog"), ("how many?", "two"), ("is it red?", "yes")]
    videos = [Annotated(str(i), (question,), answers=(answer,)) for i, (question, answer) in enumerate(rows)]
    prior = answer_prior(videos)
    assert prior == AnswerPrior("dog", {"who": "man", "what": "dog", "how": "two", "other": "yes"})
    assert [prior.of(q) for q in ("who is it?", "where is it?", "does it run?")] == ["man", "dog", "yes"]
    with pytest.raises(InputError, match="no question with an answer"):
        answer_prior([])
