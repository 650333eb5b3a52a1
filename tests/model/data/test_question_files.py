"""Questions made of the captions of stills: the files that are written, and what training reads of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("yaml")

from PIL import Image

from model.cli import app
from model.data.datasets.questions import read_mapped_qa
from model.data.question_files import write_questions
from model.data.sources import open_source
from model.data.stills import CaptionedStills
from model.runtime.errors import InputError
from model.settings import DataConfig
from tests.support.tiny_photos import tiny_config

PHOTOS = [
    ("a.png", "train", "a man is playing a guitar"),
    ("a.png", "train", "a man plays a guitar in a kitchen"),
    ("b.png", "train", "a blurred photo"),
    ("c.png", "test", "two dogs run"),
]
FRAMES = [("video7", "train", "a cat sleeps"), ("video9", "test", "a boy is swimming")]


def write(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / name)
    write(folder / "captions.csv", ("image", "split", "caption"), *PHOTOS)
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    (folder / "images").mkdir(parents=True)
    names = [("7_0.png", "video7", "train"), ("7_1.png", "video7", "train"), ("9_0.png", "video9", "test")]
    for name, _, _ in names:
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "images" / name)
    write(folder / "frames.csv", ("image", "video", "split"), *names)
    write(folder / "captions.csv", ("video", "split", "caption"), *FRAMES)
    return folder


def test_the_command_writes_the_official_form(photos: Path, frames: Path, tmp_path: Path) -> None:
    output = tmp_path / "qa"
    done = CliRunner().invoke(app, ["questions", str(photos), str(frames), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "train: 6 questions about 3 items (what 4, who 1, where 1)" in done.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        "test_qa.json",
        "train_qa.json",
        "youtube_mapping.txt",
    ]
    train = json.loads((output / "train_qa.json").read_text())
    assert train[0] == {
        "answer": "man",
        "category_id": 0,
        "id": 0,
        "question": "who is playing a guitar?",
        "video_id": 1,
    }
    test = json.loads((output / "test_qa.json").read_text())
    assert [row["id"] for row in [*train, *test]] == list(range(len(train) + len(test)))
    assert (
        output / "youtube_mapping.txt"
    ).read_text() == "a.png vid1\nvideo7 vid2\nc.png vid3\nvideo9 vid4\n"
    (first, second) = read_mapped_qa(output, "train")
    # Both captions of the first photo give the same questions, which are asked once.
    assert dict(zip(first.captions, first.answers, strict=True)) == {
        "who is playing a guitar?": "man",
        "what is a man playing?": "guitar",
        "what is a man doing?": "play",
        "where is a man playing a guitar?": "kitchen",
    }
    assert len(first.captions) == 4
    assert (second.video_id, second.answers) == ("video7", ("cat", "sleep"))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    write_questions([photos, frames], output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_training_reads_them_with_the_stills(photos: Path, frames: Path, tmp_path: Path) -> None:
    write_questions([photos, frames], tmp_path / "qa")
    config = replace(
        tiny_config(Path(), tmp_path),
        family="lgdn_qa",
        model=None,
        loss=None,
        data=DataConfig(
            kind="questions", path=str(photos), second=str(frames), annotations=str(tmp_path / "qa")
        ),
    )
    source = open_source(config, "train")
    assert isinstance(source, CaptionedStills)
    assert [len(group) for group in source.captions] == [4, 2]
    assert [len(group) for group in source.answers] == [4, 2]
    assert source.answers[1] == ("cat", "sleep")
    assert [part.items for part in source.sets] == [1, 1]
    assert (source.frames(0, 4, 8, None).shape[0], source.frames(1, 4, 8, None).shape[0]) == (1, 2)
    assert source.first(0) is source
    rare = replace(config, data=replace(config.data, num_answers=1, second=""))
    with pytest.raises(InputError, match="none of its 2 items of split train has a question: make some with"):
        open_source(rare, "train")
    alone = replace(config, data=replace(config.data, second=""))
    with pytest.raises(
        InputError, match=r"asks about 2 items of split train, of which 1 are in .*photos: make"
    ):
        open_source(alone, "train")


def test_what_cannot_be_asked_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png of .* occurs in another folder too"):
        write_questions([photos, photos], tmp_path / "qa")
    write(photos / "captions.csv", ("image", "split", "caption"), ("a.png", "train", "nothing to ask"))
    with pytest.raises(InputError, match=r"no caption of .*photos can be made a question"):
        write_questions([photos], tmp_path / "qa")
    both = [("a.png", "train", "a man runs"), ("a.png", "test", "a man runs")]
    write(photos / "captions.csv", ("image", "split", "caption"), *both)
    with pytest.raises(InputError, match=r"a\.png occurs in two splits or folders"):
        write_questions([photos], tmp_path / "qa")
    assert not (tmp_path / "qa").exists()
    write(photos / "captions.csv", ("image", "split", "caption"), ("a.png", "train", "a man runs"))
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(app, ["questions", str(photos), "--output", str(tmp_path / "file")])
    assert refused.exit_code == 2
    assert "--output" in refused.stderr
