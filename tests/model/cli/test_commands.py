"""`reelfind-model` from the outside: a whole small run, and mistakes that end in one line and a code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
import yaml
from typer.testing import CliRunner

from model.cli import app
from model.data.stills import read_stills
from model.runtime.bundle import Bundle
from model.settings import to_mapping
from model.training.setup import start
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

runner = CliRunner()


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_train_export_and_evaluate(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "holiday")
    # The tiny text encoder comes without a package: a run's own copy is what every command reads.
    (tmp_path / "run").mkdir()
    make_tokenizer(tmp_path / "run" / "tokenizer.json")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_mapping(tiny_config(Path(), tmp_path / "run"))), encoding="utf-8")

    trained = runner.invoke(
        app, ["train", str(recipe), f"data={data}", "train.epochs=2", "train.evaluate=true"]
    )
    assert trained.exit_code == 0, trained.output
    assert "step 6/6" in trained.stderr
    assert "epoch 2/2: validation" in trained.stderr
    best, bundle, metrics = tmp_path / "run" / "best.pt", tmp_path / "bundle", tmp_path / "metrics.json"

    photos = ["--data", str(data), "--split", "val", "--mode", "all-pairs", "--threads", "1"]
    tuned = runner.invoke(
        app,
        ["evaluate", "photos", str(best), *photos, "--ensemble-lambda", "train", "--output", str(metrics)],
    )
    assert tuned.exit_code == 0, tuned.output
    written = json.loads(metrics.read_text(encoding="utf-8"))
    assert list(written) == ["settings", "tuned", "photos"]
    lam = written["tuned"]["ensemble_lambda"]
    assert written["settings"]["ensemble_lambda"] == lam
    assert f"λ = {lam:g} was best of {len(written['tuned']['tried'])} on train" in tuned.stdout
    assert written["photos"]["val"]["global"]["text_to_video"]["n"] == 48

    asked = ["--metrics", str(metrics), "--salience", "simdot", "--num-salient-frames", "3"]
    exported = runner.invoke(app, ["export", str(best), "--output", str(bundle), "--threads", "1", *asked])
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    assert json.loads(manifest["provenance"]["recipe"])["train"]["epochs"] == 2
    assert (manifest["ensemble_lambda"], manifest["num_salient_frames"]) == (lam, 3)
    assert manifest["salience_strategy"] == "simdot"
    assert manifest["provenance"]["metrics"]["photos"] == written["photos"]
    assert "tried" not in manifest["provenance"]["metrics"]["tuned"]
    # What is told of the data is what was trained on, and no licence that nobody stated.
    assert manifest["provenance"]["data"] == [
        {
            "name": 'photos "holiday", split train: 24 photos, 48 captions',
            "licence": "not stated",
            "source": "not stated",
        }
    ]
    assert (manifest["licence"], manifest["description"]) == ("not stated", "")
    assert "Flickr" not in (bundle / "bundle.json").read_text(encoding="utf-8")
    # A bundle is published: it must not tell where it was made.
    assert str(tmp_path) not in (bundle / "bundle.json").read_text(encoding="utf-8")

    measured = runner.invoke(app, ["evaluate", "photos", str(bundle), *photos, "--json"])
    assert measured.exit_code == 0, measured.output
    result = json.loads(measured.stdout)
    assert result["settings"]["ensemble_lambda"] == lam
    assert result["photos"]["val"]["ensemble"]["video_to_text"]["n"] == 24
    # Stored weights and int8 tokens change little.
    first, second = (r["photos"]["val"]["ensemble"]["R@SUM"] for r in (written, result))
    assert second == pytest.approx(first, abs=30)


def test_export_says_what_it_is_told_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    run = start(tiny_config(make_photos(tmp_path / "holiday"), tmp_path / "run"), lambda _: None, tokenizer)
    state = torch.load(run.folder / "start.pt", weights_only=True)
    del state["data"]  # as an earlier version wrote it
    torch.save(state, run.folder / "older.pt")
    export = ["export", str(run.folder / "start.pt"), "--output", str(tmp_path / "bundle"), "--threads", "1"]
    twice = runner.invoke(app, [*export, "--data-licence", "MIT", "--data-licence", "MIT"])
    assert twice.exit_code == 2
    assert twice.stderr.startswith("error: ")
    assert '2 given, 1 needed, one for each data set in this order: photos "holiday"' in twice.stderr
    assert not (tmp_path / "bundle").exists()

    export[1] = str(run.folder / "older.pt")
    stated = ["--licence", "MIT", "--data-licence", "CC0-1.0", "--data-source", "my camera"]
    done = runner.invoke(app, [*export, *stated])
    assert done.exit_code == 0, done.output
    name = 'photos "holiday", split train: counts not recorded by the checkpoint'
    assert f"trained on {name} (licence: CC0-1.0; source: my camera)" in done.stderr
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert manifest["licence"] == "MIT"
    assert manifest["provenance"]["data"] == [{"name": name, "licence": "CC0-1.0", "source": "my camera"}]


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_hubness_is_corrected_by_training_captions(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    data = make_photos(tmp_path / "holiday")
    run = start(tiny_config(data, tmp_path / "run"), lambda _: None, tokenizer)
    checkpoint, bundle, plain = run.folder / "start.pt", tmp_path / "bundle", tmp_path / "plain"
    export = ["export", str(checkpoint), "--threads", "1", "--match", "none", "--output"]
    done = runner.invoke(
        app, [*export, str(bundle), "--hubness-weight", "0.5", "--reference-texts", "30", "--text", "float32"]
    )
    assert done.exit_code == 0, done.output
    assert "hubness: weight 0.5, 30 reference texts" in done.stderr
    assert json.loads((bundle / "bundle.json").read_text())["hubness"] == {"weight": 0.5, "neighbours": 10}
    opened = Bundle.open(bundle, threads=1)
    assert opened.hubness_correction is not None
    captions = read_stills(data, "train").captions
    embeddings = opened.encode_text([text for texts in captions for text in texts]).embedding
    # Each reference text is a caption that was trained on.
    nearest = (opened.hubness_correction.references @ embeddings.T).max(axis=1)
    np.testing.assert_allclose(nearest, 1, atol=2e-3)

    def evaluate(model: Path, *options: str) -> dict[str, Any]:
        photos = ["--data", str(data), "--split", "val", "--no-rerank", "--threads", "1", "--json"]
        result = runner.invoke(app, ["evaluate", "photos", str(model), *photos, *options])
        assert result.exit_code == 0, result.output
        written: dict[str, Any] = json.loads(result.stdout)
        return written

    assert runner.invoke(app, [*export, str(plain), "--text", "float32"]).exit_code == 0
    assert "hubness" not in (plain / "bundle.json").read_text()
    without, shipped = evaluate(plain), evaluate(bundle)
    assert without["settings"] == {"rerank": False}
    assert shipped["settings"] == {"rerank": False, "hubness_weight": 0.5}
    assert shipped["photos"] == evaluate(bundle, "--hubness-weight", "0.5")["photos"] != without["photos"]
    assert evaluate(bundle, "--hubness-weight", "0")["photos"] == without["photos"]
    of_checkpoint = evaluate(checkpoint, "--hubness-weight", "0.5")
    assert of_checkpoint["settings"]["hubness_weight"] == 0.5
    assert of_checkpoint["photos"] != evaluate(checkpoint)["photos"]
    assert evaluate(plain, "--hubness-weight", "0") == without
    refused = runner.invoke(
        app, ["evaluate", "photos", str(plain), "--data", str(data), "--hubness-weight", "1"]
    )
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: --hubness-weight is 1, but {plain} has no reference texts: ")


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_a_bundle_re_ranks_as_tuned(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    data = make_photos(tmp_path / "holiday")
    run = start(tiny_config(data, tmp_path / "run"), lambda _: None, tokenizer)
    checkpoint, tuned = run.folder / "start.pt", tmp_path / "tuned.json"
    material = [str(checkpoint), "--data", str(data), "--films", "8", "--film-noise", "8", "--threads", "1"]
    tune = ["tune", *material, "--salience", "simdot", "--hubness-weight", "0.25", "--output", str(tuned)]
    tune += ["--frame-hubness-weight", "0.75"]
    by_matcher = runner.invoke(app, [*tune, "--json"])
    assert by_matcher.exit_code == 0, by_matcher.output
    assert "salience_match" not in json.loads(by_matcher.stdout)["settings"]
    assert json.loads(by_matcher.stdout)["tuned"]["galleries"] == {
        "holiday": 24,
        "films of holiday": 8,
        "holiday by 3": 24,
    }
    export = ["export", str(checkpoint), "--threads", "1", "--salience", "simdot", "--match", "salience"]
    export += ["--tuned", str(tuned), "--output", str(tmp_path / "bundle")]
    untuned = runner.invoke(app, export)
    assert untuned.exit_code == 2
    assert "error: --match salience needs to know how relevance becomes a match: " in untuned.stderr

    twice = runner.invoke(app, ["tune", str(checkpoint), "--data", str(data), "--data", str(data)])
    assert twice.exit_code == 2
    assert "two folders are called holiday: rename one" in twice.stderr
    by_salience = runner.invoke(app, [*tune, "--match", "salience", "--salient-frames", "2,3"])
    # Untrained as the model is, wrong photos may be more relevant than right ones.
    if by_salience.exit_code:
        assert "wrong videos are more relevant than the right ones" in by_salience.stderr
        settings = {
            **json.loads(tuned.read_text())["settings"],
            "salience_match": {"scale": 9, "bias": -2, "coherence": [0.5, 0.9]},
        }
        tuned.write_text(json.dumps({"settings": settings, "tuned": {}}))
    settings = json.loads(tuned.read_text())["settings"]
    exported = runner.invoke(app, export)
    assert exported.exit_code == 0, exported.output
    manifest = Bundle.open(tmp_path / "bundle", threads=1).manifest
    assert manifest.match_kind == "salience"
    assert manifest.salience_match is not None
    assert manifest.salience_match.model_dump(mode="json") == settings["salience_match"]
    # Each salience has the correction of frames as a further number.
    assert settings["frame_hubness_weight"] == 0.75
    assert manifest.salience_dim == manifest.embedding_dim + 1
    assert manifest.ensemble_lambda == settings["ensemble_lambda"]
    assert manifest.num_salient_frames == settings["num_salient_frames"]
    assert manifest.hubness is not None
    assert manifest.hubness.weight == 0.25
    measured = runner.invoke(
        app, ["evaluate", "photos", str(tmp_path / "bundle"), "--data", str(data), "--split", "val"]
    )
    assert measured.stdout.startswith("the 100 nearest matched by the relevance of ")
    wrong = runner.invoke(app, [*export, "--match", "best"])
    assert wrong.exit_code == 2
    assert "error: --match is 'best': choose matcher, salience or none" in wrong.stderr


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_a_bundle_is_tuned(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "holiday")
    toy, output, tuned = make_toy_bundle(tmp_path / "toy"), tmp_path / "new", tmp_path / "tuned.json"
    tune = ["tune", str(toy), "--data", str(data), "--films", "8", "--film-noise", "8", "--threads", "1"]
    done = runner.invoke(app, [*tune, "--output", str(tuned), "--bundle", str(output)])
    assert done.exit_code == 0, done.output
    assert f"tuned bundle written to {output}" in done.output
    settings = json.loads(tuned.read_text())["settings"]
    before, after = Bundle.open(toy, threads=1), Bundle.open(output, threads=1)
    assert after.manifest.ensemble_lambda == settings["ensemble_lambda"]
    assert after.manifest.num_salient_frames == settings["num_salient_frames"]
    assert (
        json.loads(after.manifest.provenance.recipe)["tuned"]["ensemble_lambda"]
        == settings["ensemble_lambda"]
    )
    graphs = [name for name in before.manifest.files if name.endswith(".onnx")]
    for name in graphs:
        assert after.manifest.files[name].sha256 == before.manifest.files[name].sha256
    refused = runner.invoke(app, ["tune", str(tuned), "--data", str(data), "--bundle", str(tmp_path / "no")])
    assert refused.exit_code == 2
    assert f"{tuned} is no bundle; pass --output FILE" in " ".join(refused.stderr.split())
    assert not (tmp_path / "no").exists()


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_videos_are_measured_and_drawn(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle")
    for name in ("red", "blue", "green"):
        make_video(tmp_path / f"{name}.mp4", parts=[("white", 1.0), (name, 1.0)])
    queries = tmp_path / "queries.jsonl"
    rows = [{"video": f"{n}.mp4", "query": f"a {n} one", "set": "s"} for n in ("red", "blue", "green")]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    figure = tmp_path / "figure.png"
    material = [str(bundle), "--clips", str(tmp_path), "--queries", str(queries)]
    done = runner.invoke(app, ["evaluate", "videos", *material, "--salient-frames", "1,16"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "the 100 nearest matched on 2 salient frames (int8 tokens, 4 a frame); λ = 1"
    assert "videos, s, gallery own: 3 texts, 3 videos" in lines
    (row,) = {line for line in lines if line.startswith("ensemble, 1 frame")}
    assert row.split()[3:] == ["100.0", "100.0", "100.0", "1.0", "1.0"] * 2 + ["600.0"]
    drawn = runner.invoke(app, ["evaluate", "figure", *material, "--output", str(figure), "--lines", "3,1"])
    assert drawn.exit_code == 0, drawn.output
    assert f"figure written to {figure}" in drawn.stderr
    with Image.open(figure) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    framed = (np.abs(pixels - [206, 32, 41]).max(axis=2) < 8).any(axis=1)
    # Two rows, one for each line asked for.
    assert np.count_nonzero(np.diff(framed.astype(int)) == 1) >= 2

    beyond = runner.invoke(app, ["evaluate", "figure", *material, "--output", str(figure), "--lines", "4"])
    assert beyond.exit_code == 2
    assert "error: --lines 4: there are 3 queries, counted from 1" in beyond.stderr

    plain = runner.invoke(app, ["evaluate", "videos", *material, "--no-rerank"])
    assert plain.exit_code == 0
    assert plain.stdout.startswith("by similarity alone\n")
    assert "ensemble" not in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.yaml"], 2, "error: no recipe none.yaml"),
        (["export", "none.pt", "--output", "x"], 2, "error: no checkpoint none.pt"),
        (["export", "none.pt", "--output", "x", "--image", "int4"], 2, "error: unknown storage 'int4'"),
        (["evaluate", "photos", ".", "--data", "."], 3, "error: "),
        (
            ["evaluate", "photos", ".", "--data", ".", "--mode", "all"],
            2,
            "error: --mode is 'all': choose top-k or all-pairs",
        ),
        (
            ["evaluate", "photos", ".", "--data", ".", "--salient-frames", "1;2"],
            2,
            "error: --salient-frames is '1;2'",
        ),
        (
            ["evaluate", "photos", ".", "--data", ".", "--device", "gpu"],
            2,
            "error: --device is 'gpu': choose cpu or cuda",
        ),
        (
            ["evaluate", "videos", "none.pt", "--clips", ".", "--queries", "q"],
            2,
            "error: no checkpoint none.pt",
        ),
        (
            ["evaluate", "films", "none.pt", "--data", ".", "--films", "9", "--tokens", "int4"],
            2,
            "error: --tokens is 'int4': choose int8 or float32",
        ),
        (
            ["evaluate", "dataset", "none.pt", "--dataset", "none.yaml"],
            2,
            "error: no checkpoint none.pt",
        ),
        (
            ["evaluate", "figure", "none.pt", "--clips", ".", "--queries", "none.jsonl", "--output", "x.png"],
            2,
            "error: none.jsonl cannot be read as text",
        ),
        (["evaluate", "photos", "none.pt", "--data", "."], 2, "error: no checkpoint none.pt"),
        (["export", "none.pt", "--output", "x", "--lambda", "-1"], 2, "error: λ is -1.0"),
        (["export", "none.pt", "--output", "x", "--licence", " "], 2, "error: the bundle's licence is blank"),
        (["export", "none.pt", "--output", "x", "--metrics", "none.json"], 2, "error: none.json holds no"),
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


def test_a_bug_is_a_fault_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_threads: int) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REELFIND_TRACEBACK", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", fail)
    export = ["export", "none.pt", "--output", "x"]
    result = runner.invoke(app, export)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: internal error, ValueError: shapes do not match.")
    assert "REELFIND_TRACEBACK=1" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    monkeypatch.setenv("REELFIND_TRACEBACK", "1")
    assert isinstance(runner.invoke(app, export).exception, ValueError)


def test_a_failure_of_the_system_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle")
    make_video(tmp_path / "red.mp4", parts=[("red", 1.0)])
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"video": "red.mp4", "query": "red", "set": "s"}\n', encoding="utf-8")
    measure = ["evaluate", "videos", str(bundle), "--clips", str(tmp_path), "--queries", str(queries)]
    result = runner.invoke(app, [*measure, "--output", str(tmp_path / "none" / "x.json")])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines()[-1].startswith("error: [Errno 2] No such file or directory")


def test_ctrl_c_is_exit_code_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_threads: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", stop)
    result = runner.invoke(app, ["export", "none.pt", "--output", "x"])
    assert result.exit_code == 130
    assert result.stderr == "interrupted: repeat the command to resume a training run\n"


@pytest.mark.parametrize(
    ("recipe", "word", "message"),
    [
        ("train: [1, 2", "train.epochs=2", "recipe.yaml cannot be read as YAML"),
        ("train:\n  epochs: 2\n", "train.epochs=[1", "'train.epochs=[1': the value cannot be read as YAML"),
    ],
)
def test_a_recipe_that_is_no_yaml_is_a_mistake(recipe: str, word: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    result = runner.invoke(app, ["train", str(path), word])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
