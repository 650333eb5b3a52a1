"""Checkpoints are read, averaged and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import torch

from model.families.lgdn.network import LGDN
from model.settings import to_mapping
from model.training.checkpoints import load_checkpoint, load_checkpoints
from tests.support.tiny_photos import tiny_config


def test_checkpoints_are_read_averaged_and_refused(tmp_path: Path) -> None:
    config = tiny_config(Path(), Path())
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(LGDN(config.model))
        torch.save({"config": to_mapping(config), "model": models[-1].state_dict()}, tmp_path / f"{seed}.pt")
    _, mean = load_checkpoints([tmp_path / "0.pt", tmp_path / "1.pt"])
    assert isinstance(mean, LGDN)
    for of in ("online", "momentum"):
        a, b = (getattr(m, of).text_projection.weight for m in models)
        torch.testing.assert_close(getattr(mean, of).text_projection.weight, (a + b) / 2)
    a, b = (m.fusion_average.state_dict() for m in models)
    for name, value in mean.fusion_average.state_dict().items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2)
    assert mean.bank.owners.dtype == torch.int64
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, dim=8))
    torch.save({"config": to_mapping(other), "model": LGDN(other.model).state_dict()}, tmp_path / "2.pt")
    with pytest.raises(ValueError, match="they cannot be averaged"):
        load_checkpoints([tmp_path / "0.pt", tmp_path / "2.pt"])
    with pytest.raises(ValueError, match=r"no checkpoint .*none\.pt: train first"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"config": to_mapping(config), "model": {}}, tmp_path / "3.pt")
    with pytest.raises(ValueError, match=r"3\.pt holds another model than this version builds"):
        load_checkpoint(tmp_path / "3.pt")
    (tmp_path / "4.pt").write_text("This is no checkpoint.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"4\.pt is not a checkpoint"):
        load_checkpoint(tmp_path / "4.pt")


def test_older_checkpoints_are_used_as_when_they_were_trained(tmp_path: Path) -> None:
    """They do not name the settings that came later."""
    config = tiny_config(Path(), Path())
    older = to_mapping(config)
    del older["train"]["beta2"]
    for name in ("inference_weights", "projection_dropout"):
        del older["model"][name]
    torch.save({"config": older, "model": LGDN(config.model).state_dict()}, tmp_path / "old.pt")
    found, _ = load_checkpoint(tmp_path / "old.pt")
    assert (found.train.beta2, found.model.inference_weights) == (0.98, "momentum")
    assert found.model.projection_dropout == config.model.dropout == 0.1
