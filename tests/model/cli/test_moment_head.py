"""`reelfind-model moment-head` and `evaluate spliced-moments`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from model.cli import app
from model.data.stills import read_stills
from model.families.moment_head.encodings import encode_stills
from model.runtime.bundle import Bundle
from tests.support.tiny_photos import make_photos
from tests.support.toy_bundle import make_toy_bundle, text_embedding
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a bundle, and the bundle with a moment head."""
    folder = tmp_path_factory.mktemp("moments")
    make_photos(folder / "photos")
    make_toy_bundle(folder / "toy")
    words = [
        "moment-head",
        str(folder / "toy"),
        "--data",
        str(folder / "photos"),
        "--output",
        str(folder / "out"),
    ]
    words += ["--cache", str(folder / "cache"), "--steps", "3", "--channels", "8", "--layers", "1"]
    done = CliRunner().invoke(app, [*words, "--films", "4", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "20 queries, 4 films" in done.output
    assert "| moment head |" in done.output
    return folder


def test_a_bundle_gets_a_head(place: Path) -> None:
    bundle = Bundle.open(place / "out")
    assert bundle.capabilities == {"image_query", "salient_frames", "match", "moments"}
    recipe = json.loads(bundle.manifest.provenance.recipe)["moment_head"]
    assert (recipe["model"]["channels"], recipe["train"]["steps"], recipe["items"]) == (8, 3, 1200)
    (data,) = bundle.manifest.provenance.data
    assert data.name == 'photos "photos", split train: 24 photos, for the moment head'


def test_embeddings_are_kept(place: Path) -> None:
    assert len(list((place / "cache").glob("*.npz"))) == 2
    bundle, stills = Bundle.open(place / "toy"), read_stills(place / "photos", "train")
    kept = encode_stills(bundle, stills, 2, 2, place / "cache")
    assert len(list((place / "cache").glob("*.npz"))) == 2
    images = np.stack([stills.load(image, 32) for image in range(len(stills.images))])
    np.testing.assert_allclose(kept.views[:, 0], bundle.encode_frames(images).embedding, atol=1e-5)
    texts = [text for own in stills.captions for text in own]
    np.testing.assert_allclose(kept.texts, [text_embedding(text) for text in texts], atol=1e-5)
    assert kept.owners.tolist() == [row for row, own in enumerate(stills.captions) for _ in own]
    # Other views or captions are other embeddings; a damaged file is made again.
    assert encode_stills(bundle, stills, 3, 1, place / "cache").texts.shape == (24, 8)
    files = sorted((place / "cache").glob("*.npz"))
    assert len(files) == 3
    for file in files:
        file.write_bytes(b"damaged")
    again = encode_stills(bundle, stills, 2, 2, place / "cache")
    np.testing.assert_array_equal(again.views, kept.views)


def test_moments_in_spliced_videos(place: Path) -> None:
    colours = ["red", "green", "blue", "yellow"]
    for colour in colours:
        make_video(place / "clips" / f"{colour}.mp4", parts=[(colour, 3.0)])
    rows = [json.dumps({"query": colour, "video": f"{colour}.mp4"}) for colour in colours]
    (place / "queries.jsonl").write_text("\n".join(rows))
    words = ["evaluate", "spliced-moments", str(place / "out"), "--clips", str(place / "clips"), "--queries"]
    words += [
        str(place / "queries.jsonl"),
        "--seed",
        "0,1",
        "--clips-per-film",
        "2",
        "--output",
        str(place / "m.json"),
    ]
    done = CliRunner().invoke(app, [*words, "--folder", str(place / "films")])
    assert done.exit_code == 0, done.output
    assert done.output.count("4 queries, 2 films") == 2
    result = json.loads((place / "m.json").read_text())
    assert result["every_seconds"] == 1.0
    # Colours are told apart without fail, so that a threshold finds each part.
    ways = result["seed 0"]["ways"]
    assert ways["threshold on the similarity of frames"]["VCMR"]["0.5-r1"] == 100
    assert len(list((place / "films").rglob("*.mp4"))) == 4


def test_a_bundle_without_a_head_is_refused(place: Path) -> None:
    words = [
        "evaluate",
        "spliced-moments",
        str(place / "toy"),
        "--clips",
        "clips",
        "--queries",
        "queries.jsonl",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "has no moment head: `reelfind-model moment-head` adds one" in done.output
