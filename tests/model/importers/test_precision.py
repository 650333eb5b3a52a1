"""`reelfind-model import` in lower precision, with what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.cli import app
from model.importers import importing
from model.importers.probe import TEXTS
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import load_image
from tests.support.command_line import invoke
from tests.support.published import save_clip
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for number in range(7):
        pixels = rng.integers(0, 256, (5, 4 + number, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 50)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "a-clip")


def ranks(bundle: Bundle, photos: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the photos, and for each text the photos in order."""
    resizing = bundle.manifest.image.resizing
    frames = [resizing.frames(load_image(path)[None]) for path in sorted(photos.iterdir())]
    shown = np.concatenate([bundle.encode_frames(frame).embedding for frame in frames])
    said = np.concatenate([bundle.encode_text([text]).embedding for text in TEXTS])
    return shown, np.argsort(-(said @ shown.T), axis=1)


def test_lower_precision_and_its_loss(published: Path, photos: Path, tmp_path: Path) -> None:
    found, bundles = {}, {}
    for precision in ("fp32", "fp16", "int8"):
        output = tmp_path / precision
        options = ["--precision", precision, "--probe", str(photos), "--json", "--name", "ours"]
        result = CliRunner().invoke(app, ["import", str(published), "--output", str(output), *options])
        assert result.exit_code == 0, result.output
        found[precision], bundles[precision] = json.loads(result.stdout), Bundle.open(output)
        assert found[precision]["precision"] == precision
        assert (found[precision]["name"], found[precision]["family"]) == ("ours", "clip")
        assert bundles[precision].checksum == found[precision]["checksum"]
        # What is rounded to 8 bits is scaled by the greatest value of a call.
        assert bundles[precision].encodes_texts_apart == (precision != "int8")
        assert found[precision]["bytes"] == sum(
            path.stat().st_size for path in output.iterdir() if path.name != "bundle.json"
        )
    assert found["fp32"]["loss"] is None
    assert found["fp32"]["bytes"] > 1.4 * found["fp16"]["bytes"]
    exact, order = ranks(bundles["fp32"], photos)
    for precision, least, most in (("fp16", 0, 5e-3), ("int8", 1e-4, 0.1)):
        loss = found[precision]["loss"]
        lower, lower_order = ranks(bundles[precision], photos)
        assert loss["outputs"]["frame_encoder.onnx"] == pytest.approx(np.abs(lower - exact).max(), rel=0.06)
        assert least < loss["outputs"]["text_encoder.onnx"] < most
        assert loss["same_first"] == pytest.approx((order[:, 0] == lower_order[:, 0]).mean(), abs=1e-4)
        places, lower_places = np.argsort(order, axis=1), np.argsort(lower_order, axis=1)
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(places, lower_places, strict=True)]
        assert loss["rank_correlation"] == pytest.approx(np.mean(correlation), abs=1e-4)
        assert bundles[precision].manifest.provenance.metrics["loss"] == loss


def test_an_8_bit_bundle_finds_videos(published: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["import", str(published), "--output", str(tmp_path / "bundle"), "--precision", "int8"]
    )
    assert "int8: from fp32 frame_encoder.onnx" in result.stderr
    make_video(tmp_path / "media" / "one.mp4", parts=[("red", 1.0)], size=(64, 48), fps=4)
    where = ("--library", tmp_path / "library", "--bundle", tmp_path / "bundle")
    assert invoke("index", tmp_path / "media", *where).exit_code == 0
    assert "one.mp4" in invoke("search", "a dog", *where).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp8"], "--precision is 'fp8': use one of fp32, fp16, int8"),
        (["--precision", "int8", "--probe", "EMPTY"], "holds 0 photos: --probe needs at least 2"),
    ],
)
def test_bad_options_leave_the_bundle_that_is_there(
    published: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    options = [str(tmp_path / "empty") if option == "EMPTY" else option for option in options]
    result = CliRunner().invoke(
        app, ["import", str(published), "--output", str(tmp_path / "bundle"), *options]
    )
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_graph_above_the_limit_is_imported_in_lower_precision(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 2 GB is lowered to between the sizes of the two precisions."""
    monkeypatch.setattr(importing, "MOST_BYTES", 60_000)
    command = ["import", str(published), "--output", str(tmp_path / "bundle")]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert (
        "GB in fp32, and a file of a bundle holds 2 GB at most: import it with --precision fp16"
        in refused.stderr
    )
    assert not (tmp_path / "bundle").exists()
    monkeypatch.setattr(importing, "MOST_BYTES", 100)
    refused = CliRunner().invoke(app, [*command, "--precision", "int8"])
    assert "import a smaller model of the family" in refused.stderr
