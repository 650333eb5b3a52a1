"""A whole small run on questions about coloured blocks: it beats what needs no picture, and is served so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from model.cli import app
from model.config import Config
from model.data.datasets import annotations_of
from model.data.datasets.questions import answer_prior
from model.data.sources import open_source
from model.evaluation.questions import QuestionOptions, evaluate_questions
from model.families.base import PictureFamily
from model.families.encoder import Encoder
from model.families.lgdn_qa.config import AnswerLossConfig, AnswerModelConfig
from model.families.lgdn_qa.network import AnsweringLGDN
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, to_mapping
from model.training.checkpoints import load_checkpoint
from model.training.run import Run
from model.training.setup import start
from model.training.train import train
from tests.support.annotations import write_json
from tests.support.tiny_photos import COLOURS, PLACES, SIZES, make_photos, tiny_config

pytestmark = pytest.mark.slow

ASKED = ("what colour is the block", "where is the block", "how high is it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of blocks with questions whose answers only the photo tells, in `photos` and `qa`."""
    folder = tmp_path_factory.mktemp("questions")
    photos = make_photos(folder / "photos")
    names = sorted(path.name for path in (photos / "images").iterdir())
    (folder / "qa").mkdir()
    mapping = "".join(f"{name} vid{number}\n" for number, name in enumerate(names))
    (folder / "qa" / "youtube_mapping.txt").write_text(mapping)
    for split in ("train", "val"):
        rows = []
        for number, name in enumerate(names):
            part, *answers = name.removesuffix(".png").split("_")
            if part == split:
                rows += [
                    {"answer": answer, "category_id": 0, "id": 0, "question": question, "video_id": number}
                    for question, answer in zip(ASKED, answers, strict=True)
                ]
        write_json(folder / "qa" / f"{split}_qa.json", rows)
    words = sorted({word for question in ASKED for word in question.split()} | {*COLOURS, *PLACES, *SIZES})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def settings(folder: Path, output: Path, model: dict[str, Any], **training: Any) -> Config:
    base = tiny_config(folder / "photos", output)
    sizes = to_mapping(base.model) | {
        "fusion": "joint",
        "fusion_dim": 32,
        "dropout": 0.0,
        "tune_towers": True,
    }
    return Config(
        output=str(output),
        family="lgdn_qa",
        model=AnswerModelConfig(**(sizes | model)),
        data=DataConfig(
            kind="questions",
            path=str(folder / "photos"),
            annotations=str(folder / "qa"),
            views=1,
            multi_view=0.0,
            film_share=0.0,
            max_views=1,
            workers=0,
        ),
        loss=AnswerLossConfig(),
        train=dataclasses.replace(
            base.train,
            **(
                {"epochs": 60, "batch_size": 12, "lr_head": 3e-3, "lr_text": 3e-3, "log_every": 1000}
                | training
            ),
        ),
    )


def trained(folder: Path, config: Config) -> Run:
    run = start(config, lambda _: None, folder / "tokenizer.json")
    train(run)
    return run


def encoder_of(run: Run) -> Encoder:
    assert isinstance(run.family, PictureFamily)
    return run.family.encoder(run.model, run.tokenizer)


@pytest.fixture(scope="module")
def seeing(folder: Path) -> Run:
    return trained(folder, settings(folder, folder / "seeing", {}))


def test_it_beats_the_prior_and_the_question_alone(folder: Path, seeing: Run) -> None:
    blind = trained(folder, settings(folder, folder / "blind", {"frames_read": "none"}, epochs=20))
    source = open_source(seeing.config, "train")
    prior = answer_prior(annotations_of(seeing.config.data, "train"))
    result = evaluate_questions(
        encoder_of(seeing), source, prior, QuestionOptions(frames=("salient", "none")), encoder_of(blind)
    )
    assert result["n"] == {"all": 72, "what": 24, "how": 24, "where": 24}
    accuracy = {name: row["all"] for name, row in result["accuracy"].items()}
    # Without a photo, one of four colours, two places and three heights is a guess.
    best_guess = 100 * (1 / 4 + 1 / 2 + 1 / 3) / 3
    assert accuracy["commonest answer to the question word"] == pytest.approx(best_guess)
    assert accuracy["question alone, trained so"] <= best_guess + 1e-6
    assert accuracy["salient frames"] >= best_guess + 30, accuracy
    assert accuracy["salient frames"] >= accuracy["no frames"] + 30, accuracy


def test_answers_are_learned_from_the_training_data(seeing: Run, folder: Path) -> None:
    assert isinstance(seeing.model, AnsweringLGDN)
    answers = seeing.model.config.answers
    assert set(answers) == {*COLOURS, *PLACES, *SIZES}
    assert answers[:2] == ("left", "right"), "the commonest come first"
    loaded, model = load_checkpoint(seeing.folder / "last.pt")
    assert loaded == seeing.config
    assert isinstance(model, AnsweringLGDN)
    (line,) = [str(each) for each in seeing.data["datasets"]]
    assert "photos with questions" in line


def test_validation_chooses_by_accuracy(folder: Path) -> None:
    run = trained(folder, settings(folder, folder / "validated", {}, epochs=2, evaluate=True))
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    found = [row["validation"]["answers"] for row in rows if "validation" in row]
    assert len(found) == 2
    assert set(found[0]) == {"all", "what", "how", "where"}
    assert run.best == max(row["all"] for row in found)
    assert (run.folder / "best.pt").is_file()


def test_frozen_towers_stay_as_in_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    captions = tiny_config(folder / "photos", tmp_path / "captions", epochs=1)
    first = start(captions, lambda _: None, folder / "tokenizer.json")
    train(first, stop_at=2)
    frozen = {"tune_towers": False, "inference_weights": "momentum", "fusion_dim": 16}
    origin = str(first.folder / "last.pt")
    run = trained(folder, settings(folder, tmp_path / "run", frozen, epochs=1, start_from=origin))
    begun, ended = first.model.state_dict(), run.model.state_dict()
    for name, value in begun.items():
        if not name.startswith("bank."):
            assert (ended[name] == value).all(), name
    assert not (ended["answer_head.fusion.layers.0.up.weight"] == begun["fusion.layers.0.up.weight"]).all()
    with pytest.raises(InputError, match=r"tune_towers=false keeps the towers of a checkpoint: name it as"):
        start(settings(folder, tmp_path / "other", frozen), lambda _: None, folder / "tokenizer.json")
    with pytest.raises(
        InputError, match=r"data\.kind=photos has captions, and family=lgdn_qa learns from quest"
    ):
        dataclasses.replace(run.config, data=captions.data)


def test_the_commands_measure_and_export_it(folder: Path, seeing: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_mapping(seeing.config)), encoding="utf-8")
    last, bundle = str(seeing.folder / "last.pt"), tmp_path / "bundle"
    exported = CliRunner().invoke(app, ["export", last, "--output", str(bundle), "--threads", "1"])
    assert exported.exit_code == 0, exported.output
    opened = Bundle.open(bundle)
    assert opened.capabilities == {"image_query", "salient_frames", "answers"}
    assert 'photos with questions "photos" with "qa", split train: 24 photos, 72 questions' in exported.stderr

    measure = ["--dataset", str(recipe), "--split", "train", "--threads", "1", "--tokens", "float32"]
    results = []
    for model in (last, str(bundle)):
        told = CliRunner().invoke(app, ["evaluate", "questions", model, *measure, "--json"])
        assert told.exit_code == 0, told.output
        results.append(json.loads(told.stdout)["questions"]["train"]["accuracy"]["salient frames"]["all"])
    assert results[1] == pytest.approx(results[0], abs=5)
    table = CliRunner().invoke(
        app, ["evaluate", "questions", last, *measure, "--films", "6", "--film-noise", "8", "--frames", "all"]
    )
    assert table.exit_code == 0, table.output
    assert "noisy films, train: accuracy in percent" in table.stdout
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(to_mapping(tiny_config(folder / "photos", tmp_path))), encoding="utf-8")
    refused = CliRunner().invoke(app, ["evaluate", "questions", last, "--dataset", str(plain)])
    assert refused.exit_code == 2
    assert "has data.kind=photos, which has no questions" in refused.stderr


def test_questions_reach_the_tokenizer(folder: Path) -> None:
    reader = TextTokenizer.from_file(folder / "tokenizer.json", 16)
    assert (reader(list(ASKED)).input_ids != 1).all()
