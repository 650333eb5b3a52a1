"""Bundles with a calibration: written, read, and refused where its values are of no use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import Calibration, FeatureWeight
from model.runtime.bundle.references import ReferenceImages
from model.runtime.calibration import SearchEvidence, probabilities
from model.runtime.errors import BundleError
from tests.model.runtime.bundle.test_damage import change_manifest
from tests.support.command_line import invoke
from tests.support.toy_bundle import DIM, make_toy_bundle
from tests.support.toy_calibration import toy_calibration, toy_score_calibration


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


IMAGES = ReferenceImages.of(np.random.default_rng(0).normal(size=(30, DIM)).astype(np.float32), 5)
USUAL = FeatureWeight(weight=-0.5, offset=0.3, scale=0.1)


def with_images() -> Calibration:
    return Calibration(first_stage=toy_score_calibration(usual=USUAL), final=toy_score_calibration())


def test_reference_images_are_read_as_written(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "toy", calibration=with_images(), reference_images=IMAGES)
    bundle = Bundle.open(folder)
    assert bundle.manifest.calibration == with_images()
    assert bundle.reference_images is not None
    np.testing.assert_allclose(bundle.reference_images.axes, IMAGES.axes, atol=5e-3)
    np.testing.assert_allclose(bundle.reference_images.images, IMAGES.images, atol=5e-3)
    content = json.loads((folder / "bundle.json").read_text())["calibration"]
    assert content["first_stage"]["usual"] == {"weight": -0.5, "offset": 0.3, "scale": 0.1}
    # Earlier versions do not know the field.
    assert "usual" not in content["final"]
    assert Bundle.open(make_toy_bundle(tmp_path / "plain")).reference_images is None


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": with_images()},
        {"calibration": toy_calibration(), "reference_images": IMAGES},
        {"reference_images": IMAGES},
    ],
)
def test_reference_images_and_their_feature_need_each_other(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"calibration.usual and the file 'reference_images.npy' need"):
        make_toy_bundle(tmp_path / "toy", **changes)
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("name", ["reference_images.npy", "reference_axes.npy"])
def test_damaged_reference_images_are_named(tmp_path: Path, name: str) -> None:
    folder = make_toy_bundle(tmp_path / "toy", calibration=with_images(), reference_images=IMAGES)
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=re.escape(name)):
        Bundle.open(folder)
