"""`reelfind-model compress`, as it is typed, on an imported bundle."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

pytest.importorskip("torch")
pytest.importorskip("transformers")

from typer.testing import CliRunner

from model.cli import app
from model.data.stills import read_stills
from model.export.copying import copy_bundle
from model.runtime.bundle import Bundle
from model.runtime.bundle.integer_products import with_integer_products
from tests.support.published import save_clip
from tests.support.tiny_photos import make_photos
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_calibration import toy_calibration

WIDTH = 128


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, an imported bundle, and the same with 4 and 5.5 bits."""
    folder = tmp_path_factory.mktemp("compress")
    make_photos(folder / "photos")
    save_clip(folder / "clip", patch=4, hidden_size=WIDTH, intermediate_size=2 * WIDTH)
    run("import", folder / "clip", "--output", folder / "imported", "--precision", "fp32")
    copy_bundle(Bundle.open(folder / "imported"), folder / "imported", calibration=toy_calibration())
    output = compress(folder, "small", "--frame-bits", 4, "--text-bits", 5.5)
    assert "no calibration: scores changed" in output
    for graph in ("frame_encoder", "text_encoder"):
        assert f"{graph}.onnx: rounded to" in output
    assert output.count("mean cosine of embeddings to what they were: 0.9") == 2
    return folder


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--threads", 1)])
    assert done.exit_code == 0, done.output
    return done.output


def compress(folder: Path, name: str, *options: object) -> str:
    where = ("--data", folder / "photos", "--output", folder / name, "--images", 24)
    return run("compress", folder / "imported", *where, *options)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_both_encoders_are_smaller_and_give_nearly_what_they_gave(place: Path) -> None:
    before, after = Bundle.open(place / "imported"), Bundle.open(place / "small")
    stills = read_stills(place / "photos", "val")
    size = before.manifest.image.size
    frames = np.stack([stills.load(image, size) for image in range(len(stills.images))])
    texts = [caption for captions in stills.captions for caption in captions]
    for old, new in (
        (before.encode_frames(frames).embedding, after.encode_frames(frames).embedding),
        (before.encode_text(texts).embedding, after.encode_text(texts).embedding),
    ):
        assert (unit(old) * unit(new)).sum(-1).mean() > 0.98
    for graph, bits in (("frame_encoder.onnx", 4), ("text_encoder.onnx", 5.5)):
        sizes = [bundle.manifest.files[graph].bytes for bundle in (before, after)]
        assert sizes[1] < 1.3 * bits / 32 * sizes[0] + 40_000
        assert (place / "small" / f"{graph}.gz").stat().st_size == sizes[1]
        # Any program unpacks it to what any program that runs ONNX reads.
        unpacked = gzip.decompress((place / "small" / f"{graph}.gz").read_bytes())
        assert unpacked == after.read_graph(graph)
        onnx.checker.check_model(onnx.load_from_string(unpacked))


def test_a_cpu_multiplies_the_codes_as_they_are(place: Path) -> None:
    bundle = Bundle.open(place / "small")
    path, content = place / "small" / "frame_encoder.onnx.gz", bundle.read_graph("frame_encoder.onnx")
    changed = with_integer_products(path, content, many_rows=True)
    assert changed is not None
    graph = onnx.load_from_string(changed).graph
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(content).graph.initializer
    }
    taken = [tensor for tensor in graph.initializer if tensor.name.endswith("_values_of_columns")]
    assert len(taken) > 5
    for tensor in taken:
        own = stored[tensor.name.removesuffix("_values_of_columns") + "_i8"]
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), own)


def test_a_copy_stays_packed(place: Path) -> None:
    small = Bundle.open(place / "small")
    copy_bundle(small, place / "copied", ensemble_lambda=0.25)
    copied = Bundle.open(place / "copied")
    assert copied.manifest.packed_graphs == {"frame_encoder.onnx", "text_encoder.onnx"}
    assert copied.manifest.files == small.manifest.files
    assert copied.manifest.format_version == 3


def test_probabilities_of_other_scores_are_left_out(place: Path) -> None:
    assert Bundle.open(place / "imported").manifest.calibration is not None
    assert Bundle.open(place / "small").manifest.calibration is None


def test_segments_are_those_of_before_in_half_precision(place: Path) -> None:
    before, after = Bundle.open(place / "imported"), Bundle.open(place / "small")
    random = np.random.default_rng(1)
    embedded = unit(random.normal(size=(3, 8, before.manifest.embedding_dim)).astype(np.float32))
    mask = np.ones((3, 8), np.float32)
    np.testing.assert_allclose(
        after.encode_segments(embedded, mask), before.encode_segments(embedded, mask), atol=5e-3
    )


def test_a_frame_does_not_depend_on_the_others(place: Path) -> None:
    bundle = Bundle.open(place / "small")
    size = bundle.manifest.image.size
    frames = np.random.default_rng(0).integers(0, 256, (9, size, size, 3)).astype(np.uint8)
    alone = np.concatenate([bundle.encode_frames(frame[None]).embedding for frame in frames])
    np.testing.assert_allclose(bundle.encode_frames(frames).embedding, alone, atol=2e-5)


def test_the_provenance_says_what_was_done(place: Path) -> None:
    provenance = Bundle.open(place / "small").manifest.provenance
    recipe = json.loads(provenance.recipe)["compression"]
    del recipe["commit"]
    assert recipe == {"bits": {"frames": 4.0, "texts": 5.5, "words": 3.3}, "images": 24, "texts": 48}
    assert provenance.data[-1].name == 'photos "photos", split train, for the compression'


def test_a_compressed_bundle_can_be_compressed_no_more(place: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["compress", str(place / "small"), "--data", str(place / "photos"), "--output", str(place / "again")],
    )
    assert done.exit_code == 2, done.output
    assert "has weights of a few bits already" in done.output
    assert not (place / "again").exists()


def test_a_bundle_in_half_precision_is_refused(place: Path) -> None:
    run("import", place / "clip", "--output", place / "half", "--precision", "fp16")
    words = ["compress", str(place / "half"), "--data", str(place / "photos"), "--output", str(place / "h")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert "import the model with `--precision fp32`" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frame-bits", "6.5"], "--frame-bits"),
        (["--images", "3"], "--images"),
        (["--data", "nowhere"], "no captions.csv in nowhere"),
    ],
)
def test_bad_options_are_refused(place: Path, options: list[str], said: str) -> None:
    words = ["compress", str(place / "imported"), "--output", str(place / "bad"), *options]
    if "--data" not in options:
        words += ["--data", str(place / "photos")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (place / "bad").exists()


def test_a_bundle_that_reads_segments_is_refused(place: Path) -> None:
    make_toy_bundle(place / "video", video=True)
    words = ["compress", str(place / "video"), "--data", str(place / "photos"), "--output", str(place / "v")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert "reads whole segments at once" in " ".join(done.output.split())
