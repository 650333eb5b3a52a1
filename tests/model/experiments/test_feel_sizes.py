"""One step of FEEL, at tiny sizes; the script takes it at the paper's."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch

from model.experiments.feel_sizes import count_parameters, pretraining_step, table
from model.families.feel.config import FeelModelConfig
from model.families.feel.network import Feel
from tests.support.tiny_feel import tiny_config, tiny_feel


def test_a_step_tells_what_it_took() -> None:
    report = pretraining_step(tiny_config(), videos=3)
    assert report.parameters == count_parameters(tiny_feel())
    assert set(report.losses) >= {"mlm", "mfm", "gmr", "cs", "total"}
    # Without training no word is likelier than another: about the logarithm of the vocabulary.
    assert report.losses["mlm"] == pytest.approx(math.log(128), abs=1.0)
    assert all(0 <= value < 20 for value in report.losses.values())
    assert report.seconds > 0
    assert report.peak_bytes > 10_000_000
    text = table(report)
    assert f"| total | {report.parameters['total']:,} |" in text
    assert "One step: " in text


def test_parameters_in_the_papers_sizes_add_up() -> None:
    with torch.device("meta"):
        model = Feel(FeelModelConfig())
    counts = count_parameters(model)
    layer = 12 * 768**2 + 13 * 768
    assert counts["MCB video to text"] == counts["MCB text to video"] == 2 * layer
    # The layers, two tables of 100 positions, two modalities, and a norm.
    assert counts["cross-modal Transformer"] == 6 * layer + 2 * 100 * 768 + 2 * 768 + 2 * 768
    # The projection of features, two norms, and the mask of features.
    assert counts["video encoder, norms and other"] == 4352 * 768 + 768 + 4 * 768 + 4352
    assert sum(counts.values()) == 2 * counts["total"]
