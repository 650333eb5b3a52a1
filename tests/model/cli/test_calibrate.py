"""`reelfind-model calibrate`, as it is typed, and what other commands do with its bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner, Result

from model.cli import app
from model.runtime.bundle import Bundle, HubnessCorrection
from tests.support import toy_bundle as toy
from tests.support.tiny_photos import make_photos
from tests.support.toy_bundle import COLOURS
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_videos import make_video


def calibrate(place: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(app, ["calibrate", str(place / "toy"), "--threads", "1", *map(str, words)])


def recipe_of(bundle: Bundle) -> dict[str, Any]:
    """How its calibration was fitted."""
    recipe: dict[str, Any] = json.loads(bundle.manifest.provenance.recipe)["calibration"]
    return recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photos, a bundle, and the bundle with a calibration."""
    folder = tmp_path_factory.mktemp("calibration")
    make_photos(folder / "photos")
    shutil.copytree(folder / "photos", folder / "holiday")
    references = toy.unit(np.random.default_rng(0).normal(size=(40, toy.DIM)))
    toy.make_toy_bundle(folder / "toy", matcher=True, hubness=HubnessCorrection(0.5, 10, references))
    data = ["--data", str(folder / "photos"), "--data", str(folder / "holiday")]
    done = calibrate(folder, *data, "--output", folder / "out", "--draws", "1", "--json")
    assert done.exit_code == 0, done.output
    (folder / "result.json").write_text(done.stdout)
    return folder


def test_a_bundle_gets_a_calibration(place: Path) -> None:
    before, after = Bundle.open(place / "toy"), Bundle.open(place / "out")
    result = json.loads((place / "result.json").read_text())
    calibration = after.manifest.calibration
    assert calibration is not None
    assert calibration.final is not None
    assert calibration.model_dump() == result["calibration"]
    assert calibration.first_stage != calibration.final
    changed = {"calibration", "provenance", "files"}
    assert after.manifest.model_dump(exclude=changed) == before.manifest.model_dump(exclude=changed)
    assert set(after.manifest.files) == {
        *before.manifest.files,
        "reference_images.npy",
        "reference_axes.npy",
    }
    # The photos of split train of both folders, which have 24 each.
    assert after.reference_images is not None
    assert len(after.reference_images) == recipe_of(after)["reference_images"] == 48
    assert calibration.first_stage.usual is not None
    assert after.checksum != before.checksum
    recipe = recipe_of(after)
    assert (recipe["split"], recipe["together"], recipe["draws"], recipe["seed"]) == ("val", 3, 1, 0)
    assert [record.name for record in after.manifest.provenance.data] == [
        'photos "photos", split val: 24 photos, for the calibration',
        'photos "holiday", split val: 24 photos, for the calibration',
        'photos "photos", split train, for the reference images',
        'photos "holiday", split train, for the reference images',
    ]
    assert after.manifest.provenance.metrics["calibration"] == result["figures"]


def test_figures_of_each_folder_and_of_what_was_fitted_on_the_others(place: Path) -> None:
    figures = json.loads((place / "result.json").read_text())["figures"]
    assert list(figures) == [
        *("photos", "photos by 3", "holiday", "holiday by 3"),
        *("photos, fitted without photos", "photos by 3, fitted without photos"),
        *("holiday, fitted without holiday", "holiday by 3, fitted without holiday"),
    ]
    for by_score in figures.values():
        assert list(by_score) == ["first_stage", "final"]
    # Colours are told apart: captions are found, and nonsense is not.
    assert figures["photos"]["first_stage"]["auroc"]["letters"] > 0.9
    assert figures["photos"]["first_stage"]["n"]["present"] > 20


def test_a_table_and_another_calibration(place: Path, tmp_path: Path) -> None:
    words = ["--data", place / "photos", "--output", tmp_path / "out", "--together", "1", "--draws", "1"]
    done = CliRunner().invoke(
        app, ["calibrate", str(place / "out"), "--threads", "1", "--seed", "3", *map(str, words)]
    )
    assert done.exit_code == 0, done.output
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.calibration is not None
    assert f"first stage: medium from {manifest.calibration.first_stage.medium:.4f} on" in done.stdout
    assert "fitted without" not in done.stdout
    assert "photos by 3" not in done.stdout
    assert json.loads(manifest.provenance.recipe)["calibration"]["seed"] == 3
    # What was known of the data is not said twice.
    assert len(manifest.provenance.data) == 4


def test_a_moment_head_keeps_the_calibration(place: Path) -> None:
    words = [
        "moment-head",
        str(place / "out"),
        "--data",
        str(place / "photos"),
        "--output",
        str(place / "both"),
    ]
    words += ["--steps", "1", "--channels", "8", "--layers", "1", "--films", "0", "--threads", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    both, before = Bundle.open(place / "both"), Bundle.open(place / "out")
    assert "moments" in both.capabilities
    assert both.manifest.calibration == before.manifest.calibration
    assert set(json.loads(both.manifest.provenance.recipe)) >= {"calibration", "moment_head"}


def test_probabilities_of_videos(place: Path) -> None:
    for number, colour in enumerate(COLOURS):
        make_video(place / "clips" / f"{number}.mp4", parts=[(colour, 1.0)])
    rows = [
        json.dumps({"query": f"a {name}", "video": f"{number}.mp4"}) for number, name in enumerate(COLOURS)
    ]
    queries = place / "queries.jsonl"
    queries.write_text("\n".join(rows))
    known = toy.make_toy_bundle(place / "known", calibration=toy_calibration())
    words = ["evaluate", "probabilities", str(known), "--clips", str(place / "clips"), "--queries"]
    done = CliRunner().invoke(app, [*words, str(queries), "--threads", "1", "--draws", "3", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]["clips"]["first_stage"]
    # Half of the eight videos three times; each colour is found, and nothing else is as near.
    assert (figures["n"]["present"], figures["n"]["absent"], figures["n"]["right"]) == (12, 12, 12)
    assert figures["auroc"]["absent"] == 1
    words[2] = str(place / "toy")
    refused = CliRunner().invoke(app, [*words, str(queries)])
    assert refused.exit_code == 2
    assert "has no calibration: `reelfind-model calibrate` adds one" in refused.stderr
    queries.write_text("\n".join(rows[:7]))
    words[2] = str(known)
    few = CliRunner().invoke(app, [*words, str(queries)])
    assert few.exit_code == 2
    assert "queries.jsonl has 7 items: probabilities need 8" in few.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "photos", "--split", "test"], "has no rows of split 'test'"),
        (["--data", "photos", "--data", "photos"], "two folders are called photos: rename one"),
        (
            ["--data", "photos", "--together", "4"],
            "photos has 24 photos of split val, too few for 8 films of 4",
        ),
        (["--data", "nowhere"], "no captions.csv in"),
    ],
)
def test_mistakes_end_in_one_line(place: Path, tmp_path: Path, words: list[str], message: str) -> None:
    paths = [str(place / word) if word in ("photos", "nowhere") else word for word in words]
    done = calibrate(place, *paths, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
