"""Bundles with a calibration: written, read, and refused where its values are of no use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.runtime.bundle import Bundle
from model.runtime.calibration import SearchEvidence, probabilities
from model.runtime.errors import BundleError
from tests.model.runtime.bundle.test_damage import change_manifest
from tests.support.command_line import invoke
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_calibration import toy_calibration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_toy_bundle(tmp_path / "toy", calibration=toy_calibration())


def test_a_calibration_is_read_as_it_was_written(folder: Path) -> None:
    calibration = Bundle.open(folder).manifest.calibration
    assert calibration is not None
    assert calibration == toy_calibration()
    content = json.loads((folder / "bundle.json").read_text())["calibration"]
    assert content["first_stage"]["score"] == {"weight": 3.0, "offset": 0.2, "scale": 0.1}
    assert (content["final"]["bias"], content["final"]["medium"], content["final"]["high"]) == (-2, 0.1, 0.4)
    scores, evidence = np.array([0.4, 0.2]), SearchEvidence(0.1, 0.5)
    np.testing.assert_array_equal(
        probabilities(calibration.first_stage, scores, evidence),
        probabilities(toy_calibration().first_stage, scores, evidence),
    )
    assert invoke("bundle", "verify", folder).exit_code == 0


def test_a_bundle_without_re_ranking_has_one_for_the_first_stage(tmp_path: Path) -> None:
    calibration = toy_calibration().model_copy(update={"final": None})
    opened = Bundle.open(make_toy_bundle(tmp_path / "toy", matcher=False, calibration=calibration))
    assert opened.manifest.calibration == calibration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["first_stage"]["score"].update(weight=0), "score.weight is 0: it must be positive"),
        (lambda c: c["final"]["score"].update(weight=-1), "score.weight is -1: it must be positive"),
        (lambda c: c["final"]["best"].update(scale=0), "calibration.final.best.scale"),
        (lambda c: c["final"].update(bias=1e9), "calibration.final.bias"),
        (lambda c: c["first_stage"].update(medium=0.5), "high 0.4 is below medium 0.5"),
        (lambda c: c["first_stage"].update(high=1.5), "calibration.first_stage.high"),
        (lambda c: c["first_stage"].pop("background"), "calibration.first_stage.background: Field required"),
        (lambda c: c.pop("final"), "calibration.final: Field required"),
        (lambda c: c.update(first_stage=None), "calibration.first_stage"),
    ],
)
def test_a_calibration_of_no_use_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_manifest(folder, lambda content: change(content["calibration"]))
    with pytest.raises(BundleError, match=rf"bundle\.json is not valid: .*{message}"):
        Bundle.open(folder)
