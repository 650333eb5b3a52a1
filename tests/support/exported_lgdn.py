"""An LGDN to export, and graphs run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.families.lgdn.network import LGDN
from model.runtime.bundle.manifest import Provenance, SourceRecord
from model.runtime.onnx import ort
from tests.support.tiny_photos import tiny_config

PROVENANCE = Provenance(
    recipe="tiny",
    data=(SourceRecord(name="generated", licence="CC0-1.0", source="tests"),),
    weights=(),
    commit="none",
    metrics={},
)


def exportable_model(fusion: str = "joint") -> LGDN:
    """A model whose twins differ, and whose fusion and temporal layer do something."""
    torch.manual_seed(0)
    config = dataclasses.replace(tiny_config(Path(), Path()).model, fusion=fusion, fusion_dim=32)
    model = LGDN(config)
    assert model.online.class_projection is not None
    with torch.no_grad():
        for parameter in (*model.online.temporal.parameters(), *model.online.class_projection.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.normal_(model.fusion.get_parameter("head.weight"), std=1.0)
        model.reset_momentum()
        for parameter in (p for p in model.online.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.fusion.get_parameter("head.bias").add_(torch.tensor([0.0, 3.0]))
    return model.eval()


def run_onnx(content: bytes, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, dict(inputs))
    return outputs
