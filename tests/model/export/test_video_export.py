"""A ViT with BERT and ALBEF's fusion, trained on videos, as a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from typer.testing import CliRunner

from model.cli import app
from model.data.datasets import open_dataset
from model.evaluation.encoders import BundleEncoder
from model.evaluation.evaluate import evaluate_source
from model.families.lgdn.encoder import TowersEncoder
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import TextTokenizer
from tests.support.tiny_lgdn import lgdn_of
from tests.support.tiny_videos import make_set, trained, video_config

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
def test_it_exports_and_answers_as_trained(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    run = trained(video_config(folder, tmp_path / "run", epochs=1))
    words = ["export", str(run.folder / "last.pt"), "--output", str(tmp_path / "bundle")]
    exact = [f"--{part}=float32" for part in ("image", "text", "words", "matcher-storage")]
    done = CliRunner().invoke(app, [*words, *exact])
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    assert (bundle.manifest.image.size, bundle.manifest.hidden_dim) == (32, 16)
    source = open_dataset(run.config, "test")
    tokenizer = TextTokenizer.from_file(run.folder / "tokenizer.json", 16)
    measured = [
        evaluate_source(encoder, source)
        for encoder in (BundleEncoder(bundle), TowersEncoder(lgdn_of(run).eval(), tokenizer))
    ]
    assert measured[0] == measured[1]
    assert {"global", "local", "ensemble"} <= measured[0].keys()
