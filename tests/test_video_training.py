"""Training on a data set of videos, from Hugging Face's weights to fine-tuning a checkpoint, in the tiny."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model.config import Config, DataConfig, LossConfig, ModelConfig, TrainConfig  # noqa: E402
from model.lgdn import LGDN  # noqa: E402
from model.train import Run, start, train  # noqa: E402
from model.weights import load_start, tokenizer_path  # noqa: E402
from tests.annotations import write_msrvtt  # noqa: E402
from tests.tiny_training import make_tokenizer  # noqa: E402
from tests.toy import COLOURS, make_video  # noqa: E402

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, annotations and ten videos of two colours each."""
    parent = tmp_path_factory.mktemp("set")
    vit = transformers.ViTConfig(**SIZES, num_hidden_layers=1, image_size=32, patch_size=16)
    transformers.ViTModel(vit).save_pretrained(parent / "vit")
    bert = transformers.BertConfig(**SIZES, num_hidden_layers=3, vocab_size=128, max_position_embeddings=20)
    transformers.BertModel(bert).save_pretrained(parent / "bert")
    make_tokenizer(parent / "bert" / "tokenizer.json")
    (parent / "notes").mkdir()
    write_msrvtt(parent / "notes")
    names = sorted(COLOURS)
    for i in range(10):
        parts = ((names[i % len(names)], 0.6), (names[(i + 1) % len(names)], 0.6))
        make_video(parent / "videos" / f"video{i}.mp4", parts=parts, size=(32, 32), fps=10)
    return parent


def config(folder: Path, output: Path, **train_settings: object) -> Config:
    settings: dict[str, object] = {
        "epochs": 2,
        "batch_size": 4,
        "precision": "float32",
        "threads": 1,
        "log_every": 1,
        "evaluate": False,
        "tensorboard": False,
        "device": "cpu",
    }
    return Config(
        output=str(output),
        model=ModelConfig(
            backbone="vit",
            backbone_weights=str(folder / "vit"),
            text="bert",
            text_weights=str(folder / "bert"),
            text_pooling="cls",
            dim=8,
            frames=4,
            image_size=32,
            context_length=16,
            frozen_stages=0,
            classes=0,
            bank_size=12,
            fusion="cross_attention",
            fusion_from_text=1,
            gradient_checkpointing=True,
        ),
        data=DataConfig(
            kind="msrvtt",
            annotations=str(folder / "notes"),
            videos=str(folder / "videos"),
            validation=3,
            workers=2,
        ),
        loss=LossConfig(retention_weight=0.0),
        train=TrainConfig(**(settings | train_settings)),  # type: ignore[arg-type]
    )


def trained(settings: Config) -> Run:
    run = start(settings, lambda _: None)
    train(run)
    return run


def losses(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "total" in row]


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_all_losses_train_on_videos_and_validation_runs(folder: Path, tmp_path: Path) -> None:
    run = trained(config(folder, tmp_path / "run", evaluate=True))
    rows = losses(run)
    # Five videos with two captions each, in batches of four pairs.
    assert len(rows) == 2 * 2
    assert all(np.isfinite([row[name] for row in rows]).all() for name in ("mvcl", "mfcl", "lsfm", "total"))
    assert rows[-1]["lsfm"] > 0
    assert (run.folder / "best.pt").is_file()


def test_a_frame_cache_serves_the_same_videos_without_them(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, tmp_path / "run", epochs=4)
    settings = replace(settings, data=replace(settings.data, frame_cache=str(tmp_path / "frames")))
    first = trained(settings)
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 5
    again = trained(replace(settings, output=str(tmp_path / "again")))
    assert [row["total"] for row in losses(first)] == [row["total"] for row in losses(again)]


def test_a_run_needs_its_weights_folders_no_more_and_starts_another(folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "weights"
    for name in ("vit", "bert"):
        shutil.copytree(folder / name, copies / name)
    settings = config(folder, tmp_path / "first", epochs=1)
    model = replace(settings.model, backbone_weights=str(copies / "vit"), text_weights=str(copies / "bert"))
    run = trained(replace(settings, model=model))
    shutil.rmtree(copies)
    kept = run.config.model
    assert tokenizer_path(kept, run.folder) == run.folder / "tokenizer.json"
    LGDN(kept).load_state_dict(run.model.state_dict())
    fine = config(folder, tmp_path / "fine", start_from=str(run.folder / "last.pt"))
    tuned = start(fine, lambda _: None)
    for name, tensor in tuned.model.state_dict().items():
        if name.startswith("bank."):
            continue
        assert torch.equal(tensor, run.model.state_dict()[name]), name
    assert (tuned.model.bank.owners == -1).all()
    assert (run.model.bank.owners >= 0).any()


def test_a_start_that_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    run = start(config(folder, tmp_path / "run"), lambda _: None)
    with pytest.raises(ValueError, match=r"start_from=nowhere.pt: no such checkpoint"):
        load_start(run.model, Path("nowhere.pt"))
    other = replace(run.config.model, dim=16)
    torch.save({"model": type(run.model)(other).state_dict()}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"holds another model than the settings name: size mismatch"):
        load_start(run.model, tmp_path / "other.pt")
    state = run.model.state_dict()
    del state["online.frame_projection.bias"]
    torch.save({"model": state}, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"1 weights such as online.frame_projection.bias differ"):
        load_start(run.model, tmp_path / "less.pt")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"bad.pt holds another model"):
        load_start(run.model, tmp_path / "bad.pt")


def test_missing_videos_are_named_before_training(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, tmp_path / "run")
    (tmp_path / "videos").mkdir()
    shutil.copy(folder / "videos" / "video0.mp4", tmp_path / "videos")
    settings = replace(settings, data=replace(settings.data, videos=str(tmp_path / "videos"), validation=0))
    with pytest.raises(ValueError, match="7 of 8 files are missing: video1, video2"):
        start(settings, lambda _: None)
    told: list[str] = []
    settings = replace(
        settings, data=replace(settings.data, allow_missing=True), train=replace(settings.train, batch_size=2)
    )
    assert start(settings, told.append).loader.steps == 1
    assert any("7 of 8 files are missing" in line for line in told)
