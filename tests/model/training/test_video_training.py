"""Training on a data set of videos, from Hugging Face's weights to fine-tuning a checkpoint, in the tiny."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from model.families.lgdn.network import LGDN
from model.training.checkpoints import load_start, tokenizer_path
from model.training.run import Run
from model.training.setup import start
from tests.support.tiny_lgdn import lgdn_of
from tests.support.tiny_videos import make_set, trained, video_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"))


def losses(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "total" in row]


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_all_losses_train_on_videos_and_validation_runs(folder: Path, tmp_path: Path) -> None:
    settings = video_config(folder, tmp_path / "run")
    run = trained(replace(settings, data=replace(settings.data, validation=3)))
    rows = losses(run)
    # Five videos with two captions each, in batches of four pairs.
    assert len(rows) == 2 * 2
    assert all(np.isfinite([row[name] for row in rows]).all() for name in ("mvcl", "mfcl", "lsfm", "total"))
    assert rows[-1]["lsfm"] > 0
    assert (run.folder / "best.pt").is_file()


def test_a_frame_cache_serves_the_same_videos_without_them(folder: Path, tmp_path: Path) -> None:
    settings = video_config(folder, tmp_path / "run", epochs=4)
    settings = replace(settings, data=replace(settings.data, frame_cache=str(tmp_path / "frames")))
    first = trained(settings)
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 8
    again = trained(replace(settings, output=str(tmp_path / "again")))
    assert [row["total"] for row in losses(first)] == [row["total"] for row in losses(again)]


def test_a_run_needs_its_weights_folders_no_more_and_starts_another(folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "weights"
    for name in ("vit", "bert"):
        shutil.copytree(folder / name, copies / name)
    settings = video_config(folder, tmp_path / "first", epochs=1)
    model = replace(settings.model, backbone_weights=str(copies / "vit"), text_weights=str(copies / "bert"))
    run = trained(replace(settings, model=model))
    shutil.rmtree(copies)
    assert tokenizer_path(run.config, run.folder) == run.folder / "tokenizer.json"
    LGDN(run.config.model).load_state_dict(run.model.state_dict())
    fine = video_config(folder, tmp_path / "fine", start_from=str(run.folder / "last.pt"))
    tuned = start(fine, lambda _: None)
    for name, tensor in tuned.model.state_dict().items():
        if name.startswith("bank."):
            continue
        assert torch.equal(tensor, run.model.state_dict()[name]), name
    assert (lgdn_of(tuned).bank.owners == -1).all()
    assert (lgdn_of(run).bank.owners >= 0).any()


def test_a_start_that_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    run = start(video_config(folder, tmp_path / "run"), lambda _: None)
    with pytest.raises(ValueError, match=r"start_from=nowhere.pt: no such checkpoint"):
        load_start(run.model, "lgdn", Path("nowhere.pt"))
    other = replace(run.config.model, dim=16)
    torch.save({"model": type(run.model)(other).state_dict()}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"holds another model than the settings name: size mismatch"):
        load_start(run.model, "lgdn", tmp_path / "other.pt")
    state = run.model.state_dict()
    del state["online.frame_projection.bias"]
    torch.save({"model": state}, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"1 weights such as online.frame_projection.bias differ"):
        load_start(run.model, "lgdn", tmp_path / "less.pt")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"bad.pt holds another model"):
        load_start(run.model, "lgdn", tmp_path / "bad.pt")


def test_missing_videos_are_named_before_training(folder: Path, tmp_path: Path) -> None:
    settings = video_config(folder, tmp_path / "run")
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
