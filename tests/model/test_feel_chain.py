"""FEEL from videos to answers, by commands alone: features of a bundle, pre-training, fine-tuning, export,
index, search.

Videos are rows of coloured scenes; subtitles and queries name the colours, in TVR's layout.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from typer.testing import CliRunner, Result

from model.cli import app as model_app
from model.families.feel.encoder import FeelEncoder
from model.families.feel.network import Feel
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import TextTokenizer
from model.training.checkpoints import load_checkpoint
from service.cli.app import app as service_app
from service.live import open_searcher
from service.search.searcher import SearchOptions
from service.settings import load_settings
from tests.support.feature_sets import Scene, TinySet, ToyVideo, write_tvr
from tests.support.feel_runs import SIZES, TRAIN, as_overrides, make_mask_tokenizer
from tests.support.paths import ROOT
from tests.support.toy_bundle import COLOURS, make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

RECIPES = ROOT / "model" / "recipes"
EVERY, SCENE = 1.0, 3
#: each video has two colours of its own, and is told of both
PAIRS = (("red", "green"), ("blue", "yellow"), ("cyan", "magenta"), ("white", "black"), ("red", "blue"))


@dataclass(frozen=True)
class Chain:
    """What the commands made."""

    folder: Path
    tiny: TinySet
    toy: Path
    tuned: Path

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.folder / "bundle"

    def run(self, *arguments: object, code: int = 0) -> Result:
        """Run `reelfind-model`."""
        result = CliRunner().invoke(model_app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result


def settings_of(tiny: TinySet, kind: str) -> list[str]:
    data = tiny.settings(kind, max_vectors=40, workers=0)
    if kind == "clips":
        data |= {"annotations": "", "min_clip_seconds": 2.0, "clip_seconds": 40.0}
    return as_overrides("data", data) + as_overrides("model", SIZES | {"unit_query": True})


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    videos = tuple(
        ToyVideo(
            f"show_clip_{number:02d}",
            tuple(Scene(c, SCENE * i, SCENE * i + SCENE - 1) for i, c in enumerate(colours)),
            EVERY,
        )
        for number, colours in enumerate((*PAIRS, *PAIRS[:3]))
    )
    for video in videos:
        parts = [(scene.topic, EVERY * SCENE) for scene in video.scenes]
        make_video(folder / "videos" / f"{video.name}.mp4", parts=parts)
    toy, made = make_toy_bundle(folder / "toy"), folder / "features"
    tiny = replace(write_tvr(folder / "tvr", videos=videos), features=made)
    chain = Chain(folder, tiny, toy, folder / "tuned" / "last.pt")
    chain.run("features", folder / "videos", "--bundle", toy, "--every", str(EVERY), "--output", made)
    fast = TRAIN | {"log_every": 1000, "checkpoint_seconds": 1000.0}
    for name, kind, train, more in (
        ("pretrained", "clips", {"epochs": 3}, []),
        (
            "tuned",
            "tvr",
            {"epochs": 80, "start_from": str(folder / "pretrained" / "last.pt")},
            ["loss.task=finetuning", "loss.span=1.0", "loss.span_skip=0.0"],
        ),
    ):
        make_mask_tokenizer(folder / name / "tokenizer.json", list(COLOURS))
        overrides = [*settings_of(chain.tiny, kind), *as_overrides("train", fast | train), *more]
        chain.run("train", RECIPES / "feel_small.yaml", f"output={folder / name}", *overrides)
    export = ["export", chain.tuned, "--frame-bundle", toy, "--output", chain.bundle]
    said = chain.run(*export, "--matcher-storage", "float32", "--text", "float32", "--words", "float32")
    assert "moment_head.onnx" in said.stderr
    return chain


def test_the_bundle_has_the_frame_encoder_and_finds_moments(chain: Chain) -> None:
    """ONNX over pixels equals PyTorch over the features that the first bundle makes."""
    bundle, toy = Bundle.open(chain.bundle, threads=1), Bundle.open(chain.toy, threads=1)
    manifest = bundle.manifest
    assert bundle.capabilities == {"image_query", "salient_frames", "moments"}
    assert manifest.moments is not None
    assert (manifest.moments.every_seconds, manifest.frames_per_segment, manifest.segment_seconds) == (
        1,
        16,
        16,
    )
    assert (manifest.embedding_dim, manifest.image) == (17, toy.manifest.image)
    assert (manifest.salience_dim, manifest.embedding_in_salience) == (33, True)
    assert manifest.provenance.weights[0].name == "the frame encoder of the bundle toy"
    assert "start_from pretrained/last.pt: clips" in manifest.provenance.data[1].name
    config, model = load_checkpoint(chain.tuned)
    assert isinstance(model, Feel)
    tokenizer = TextTokenizer.from_file(
        chain.folder / "tuned" / "tokenizer.json", config.model.context_length
    )
    encoder = FeelEncoder(model, tokenizer)
    shown = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    vectors = toy.encode_frames(shown).embedding
    embedding = bundle.encode_frames(shown).embedding
    np.testing.assert_allclose(embedding[:, :8], vectors, atol=1e-5)
    frames, mask = encoder.videos([vectors], [""])
    queries = encoder.queries(["Ann sees the red."])
    zero = np.zeros(1, np.int64)
    start, end = encoder.logits(queries, frames, mask, zero, zero)
    text = bundle.encode_text(["Ann sees the red."])
    found = bundle.moments(text.embedding, embedding[None])
    np.testing.assert_allclose(found.start, start, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.end, end, rtol=1e-3, atol=1e-4)
    segment = bundle.encode_segments(embedding[None], np.ones((1, 5), np.bool_))[0]
    units = frames[0] / np.linalg.norm(frames[0], axis=1, keepdims=True)
    cosines = units @ (queries[0] / np.linalg.norm(queries[0]))
    length = np.linalg.norm(units.mean(0))
    assert segment @ text.embedding[0] == pytest.approx(cosines.mean() / length, abs=1e-4)


def test_its_library_answers_queries(chain: Chain) -> None:
    def reelfind(*arguments: object) -> Result:
        result = CliRunner().invoke(service_app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result

    library = ["--library", chain.folder / "library", "--bundle", chain.bundle]
    reelfind("index", chain.folder / "videos", *library, "--workers", 0)
    searcher = open_searcher(
        load_settings({"library": chain.folder / "library", "bundle": chain.bundle, "threads": 1})
    )
    right = 0
    for video in chain.tiny.videos[:4]:
        first = video.scenes[0].topic
        text = f"Ann sees the {first}."
        said = reelfind("search", text, *library, "--json", "--top-k", 8, "--group-by", "video")
        hits = json.loads(said.stdout)["hits"]
        assert len(hits) == 8
        assert all(hit["moments"] for hit in hits)
        # A model as small as this one tells videos apart, but hardly their moments.
        ranked = searcher.search(text, 8, SearchOptions(group_by="segment")).hits
        wanted = {v.name for v in chain.tiny.videos if first in {scene.topic for scene in v.scenes}}
        right += {Path(hit.path).stem for hit in ranked[: len(wanted)]} == wanted
    assert right >= 3, "all videos with a colour come before those without it, for nearly every colour"


def test_another_bundle_or_none_is_refused(chain: Chain, tmp_path: Path) -> None:
    export = ["export", chain.tuned, "--output", tmp_path / "bundle"]
    said = chain.run(*export, code=2).stderr
    assert "error: family=feel reads features, and a bundle needs a frame encoder: name the bundle" in said
    other = make_toy_bundle(tmp_path / "other", name="other")
    said = chain.run(*export, "--frame-bundle", other, code=2).stderr
    assert "made the features of" in said
    assert not (tmp_path / "bundle").exists()
