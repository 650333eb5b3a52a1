"""`reelfind-model` from the outside: a whole small run, and mistakes that end in one line and a code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import yaml  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from model.cli import app  # noqa: E402
from model.config import to_mapping  # noqa: E402
from tests.tiny_training import make_photos, make_tokenizer, tiny_config  # noqa: E402

runner = CliRunner()


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_train_export_and_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, tokenizer = make_photos(tmp_path / "data"), make_tokenizer(tmp_path / "tokenizer.json")
    # The tiny text encoder comes without a package.
    for module in ("train", "cli"):
        monkeypatch.setattr(f"model.{module}.tokenizer_path", lambda _: tokenizer)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_mapping(tiny_config(Path(), tmp_path / "run"))), encoding="utf-8")

    trained = runner.invoke(
        app, ["train", str(recipe), f"data={data}", "train.epochs=2", "train.evaluate=true"]
    )
    assert trained.exit_code == 0, trained.output
    assert "step 6/6" in trained.stderr
    assert "epoch 2/2: validation" in trained.stderr
    best, bundle = tmp_path / "run" / "best.pt", tmp_path / "bundle"
    exported = runner.invoke(app, ["export", str(best), "--output", str(bundle), "--threads", "1"])
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    assert json.loads(manifest["provenance"]["recipe"])["train"]["epochs"] == 2
    # A bundle is published: it must not tell where it was made.
    assert str(tmp_path) not in (bundle / "bundle.json").read_text(encoding="utf-8")
    measured = runner.invoke(app, ["evaluate", str(bundle), "--data", str(data), "--split", "val"])
    assert measured.exit_code == 0, measured.output
    metrics = json.loads(measured.stdout)["photos"]["val"]
    assert metrics["text_to_video"]["n"] == 48
    assert metrics["video_to_text"]["n"] == 24


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.yaml"], 2, "error: no recipe none.yaml"),
        (["export", "none.pt", "--output", "x"], 2, "error: no checkpoint none.pt"),
        (["export", "none.pt", "--output", "x", "--image", "int4"], 2, "error: unknown storage 'int4'"),
        (["evaluate", "none.pt"], 2, "error: nothing to measure on"),
        (["evaluate", ".", "--data", "."], 3, "error: "),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
