"""An imported BLIP compared with transformers' own forward, and used as a product."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from model.cli import app
from model.importers import load
from model.importers.blip import ENC_ID, Matcher
from model.importers.probe import TEXTS as ASKED
from model.importers.sources import find_checkpoint
from model.importers.weights import quiet_transformers
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import load_image
from model.runtime.tokens import dequantise, merge_tokens, quantise
from tests.support.command_line import invoke
from tests.support.imported import index_films, recall_at_10
from tests.support.published import SIDE, TEXTS, save_blip, save_clip

pytestmark = pytest.mark.slow

CAPTIONS = [*TEXTS, 'He said: "run!" (now) ~ #1; it\'s a well-known dog, or not?']
CLS_ID = 101


@dataclass(frozen=True)
class Published:
    """A BLIP as transformers reads it, the bundle that was made of it, and what was printed."""

    folder: Path
    model: Any
    bundle: Bundle
    found: dict[str, Any]
    lines: str

    @property
    def processor(self) -> Any:
        from transformers import AutoImageProcessor

        processors: Any = AutoImageProcessor
        with quiet_transformers():
            return processors.from_pretrained(self.folder, backend="pil")

    def ids(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of BERT's own tokenizer, after BLIP's own preparation of captions."""
        from transformers import AutoTokenizer

        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        prepared = [re.sub(r"([.!\"()*#:;~])", " ", text.lower()) for text in texts]
        found = tokenizer(prepared, padding=True, truncation=True, max_length=35, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]

    def logits(self, texts: list[str], frames: NDArray[np.uint8], first_id: int) -> NDArray[np.float32]:
        """logit₁ − logit₀ of each text with each frame, by transformers' own forward. → [Q, M]"""
        ids, mask = self.ids(texts)
        ids[:, 0] = first_id
        pixels, found = self.pixels(frames), []
        for row in range(len(ids)):
            with torch.no_grad():
                score = self.model(
                    input_ids=ids[row].repeat(len(pixels), 1),
                    pixel_values=pixels,
                    attention_mask=mask[row].repeat(len(pixels), 1),
                ).itm_score
            found.append((score[:, 1] - score[:, 0]).numpy())
        return np.stack(found)

    def pixels(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        pixels: torch.Tensor = self.processor(list(frames), return_tensors="pt", do_resize=False)[
            "pixel_values"
        ]
        return pixels


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 photos, of which losses of matching are measured with 16."""
    folder = tmp_path_factory.mktemp("losses") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(18):
        pixels = rng.integers(0, 256, (5, 4 + number % 7, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 50)).save(folder / f"{number:02}.png")
    return folder


def run(source: Path, output: Path, *options: str | Path) -> tuple[dict[str, Any], str]:
    """Import, → what is printed as JSON, and the lines for people."""
    words = ["import", source, "--output", output, "--json", "--threads", "1", *options]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found, result.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Published:
    from transformers import BlipForImageTextRetrieval

    home = tmp_path_factory.mktemp("blip")
    folder = save_blip(home / "published")
    found, lines = run(folder, home / "bundle", "--probe", photos)
    with quiet_transformers():
        model: Any = BlipForImageTextRetrieval.from_pretrained(folder)
    return Published(folder, model.eval(), Bundle.open(home / "bundle"), found, lines)


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    grids = rng.integers(0, 256, (6, 6, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(grid).resize((SIDE, SIDE))) for grid in grids])


def test_pixels_and_ids_are_those_of_the_library(published: Published) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (201, 333, 3), np.uint8)
    processor, image = published.processor, published.bundle.manifest.image
    expected = processor(Image.fromarray(photo), return_tensors="np")["pixel_values"][0]
    ours = image.resizing.frames(photo[None])[0] / 255
    normalised = (ours - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(normalised.transpose(2, 0, 1), expected, atol=1e-4)
    ids, mask = published.ids(CAPTIONS)
    batch = published.bundle.tokenizer(CAPTIONS)
    np.testing.assert_array_equal(batch.input_ids, ids)
    np.testing.assert_array_equal(batch.attention_mask, mask)
    assert ids.shape[1] == published.bundle.manifest.text.context_length == 35


def test_embeddings_are_those_of_the_library(published: Published, frames: NDArray[np.uint8]) -> None:
    ids, mask = published.ids(CAPTIONS)
    pixels = published.pixels(frames)
    with torch.no_grad():
        found = published.model(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_itm_head=False)
        projected = published.model.vision_proj(found.last_hidden_state[:, 0])
    shown = published.bundle.encode_frames(frames, tokens=True)
    said = published.bundle.encode_text(CAPTIONS, tokens=True)
    assert shown.tokens is not None
    assert said.tokens is None
    np.testing.assert_allclose(shown.salience @ said.embedding.T, found.itm_score, atol=1e-4)
    np.testing.assert_allclose(shown.embedding, projected, atol=1e-4)
    np.testing.assert_allclose(shown.salience, F.normalize(projected, dim=-1), atol=1e-4)
    np.testing.assert_allclose(shown.tokens, found.last_hidden_state, atol=1e-4)
    segment = published.bundle.encode_segments(shown.embedding[None, :4], np.ones((1, 4), np.bool_))[0]
    mean = F.normalize(projected[:4].mean(dim=0), dim=-1)
    np.testing.assert_allclose(segment, mean, atol=1e-4)


def test_match_logits_are_those_of_the_library(published: Published, frames: NDArray[np.uint8]) -> None:
    """With [ENC] in the bundle, as BLIP is trained; by the module's option with [CLS], as in transformers."""
    shown = published.bundle.encode_frames(frames, tokens=True).tokens
    text = published.bundle.encode_text(CAPTIONS)
    rows = np.repeat(np.arange(len(CAPTIONS)), len(frames))
    assert shown is not None
    logits = published.bundle.match(text, rows, np.tile(shown, (len(CAPTIONS), 1, 1)))
    expected = published.logits(CAPTIONS, frames, ENC_ID)
    np.testing.assert_allclose(logits.reshape(expected.shape), expected, atol=1e-4)

    ids, mask = published.ids(CAPTIONS)
    with_cls = Matcher(published.model, first_id=None)
    every = torch.from_numpy(shown)
    with torch.no_grad():
        found = [
            with_cls(ids[[row]].repeat(len(every), 1), mask[[row]].repeat(len(every), 1), every).numpy()
            for row in range(len(ids))
        ]
    by_cls = published.logits(CAPTIONS, frames, CLS_ID)
    np.testing.assert_allclose(np.stack(found), by_cls, atol=1e-4)
    assert np.abs(by_cls - expected).max() > 1e-2


def test_a_published_vocabulary_file_is_enough(published: Published, tmp_path: Path) -> None:
    """As the hub has it: `vocab.txt` and no `tokenizer.json`."""
    from transformers import AutoTokenizer

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in published.folder.iterdir():
        if not path.name.startswith("tokenizer"):
            (copy / path.name).symlink_to(path)
    vocabulary = AutoTokenizer.from_pretrained(published.folder).get_vocab()
    (copy / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    (copy / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    before, after = (json.loads(load(find_checkpoint(str(at))).tokenizer) for at in (published.folder, copy))
    assert before["model"] == after["model"]
    assert before["normalizer"] == after["normalizer"]


@pytest.mark.parametrize(
    ("text", "config", "warning"),
    [
        ({"num_attention_heads": 8}, {}, r'8 attention heads, .* write "num_attention_heads": 12 there'),
        ({"vocab_size": 400}, {}, r"400 ids and so no \[ENC\] \(30523\).*keep \[CLS\]"),
        ({}, {"architectures": ["BlipForConditionalGeneration"]}, None),
    ],
)
def test_what_is_not_as_published(
    tmp_path: Path, text: dict[str, Any], config: dict[str, Any], warning: str | None
) -> None:
    folder = save_blip(tmp_path / "other", **text)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    checkpoint = find_checkpoint(str(folder))
    if warning is None:
        with pytest.raises(InputError, match=r"config\.json: architectures is .*: import a BlipForImage"):
            load(checkpoint)
    else:
        (said,) = load(checkpoint).warnings
        assert re.search(warning, said)


def test_the_bundle_serves(published: Published, tmp_path: Path) -> None:
    """Index, search with re-ranking by the matcher, and evaluate, through the commands."""
    films = {
        "one.mp4": [("red", 1.0), ("blue", 1.0)],
        "two.mp4": [("green", 2.0)],
        "three.mp4": [("white", 1.0)],
    }
    where = index_films(tmp_path, published.bundle, films)
    text = "the dog runs"
    body = json.loads(invoke("search", text, "--json", "--explain", *where).stdout)
    assert body["reranked"] is True
    assert {Path(hit["path"]).name for hit in body["hits"]} == set(films)
    stored = published.bundle.manifest.stored_tokens_per_frame
    assert stored == 5
    # Films of one colour, whose frames are all alike: the score is the logit of one of them.
    for name, colour in (("two.mp4", "green"), ("three.mp4", "white")):
        score = next(hit["match_score"] for hit in body["hits"] if hit["path"].endswith(name))
        expected = _logit_of_colour(published, text, colour, stored)
        assert score == pytest.approx(expected, abs=0.05)
    assert recall_at_10(tmp_path, where, text, films) == 100.0


def _logit_of_colour(published: Published, text: str, colour: str, stored: int) -> float:
    """transformers' own matching of a text and a plain picture, whose tokens are merged and rounded first."""
    from tests.support.toy_bundle import COLOURS

    frame = np.full((1, SIDE, SIDE, 3), COLOURS[colour], np.uint8)
    ids, mask = published.ids([text])
    ids[:, 0] = ENC_ID
    model = published.model
    with torch.no_grad():
        tokens = model.vision_model(pixel_values=published.pixels(frame)).last_hidden_state.numpy()
        kept = torch.from_numpy(dequantise(quantise(merge_tokens(tokens, stored))))
        states = model.text_encoder(ids, mask, encoder_hidden_states=kept).last_hidden_state
        logits = model.itm_head(states[:, 0])[0]
    return float(logits[1] - logits[0])


def logits_of(bundle: Bundle, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    text = bundle.encode_text(list(ASKED))
    rows = np.repeat(np.arange(len(ASKED)), len(tokens))
    return bundle.match(text, rows, np.tile(tokens, (len(ASKED), 1, 1))).reshape(len(ASKED), -1)


def tokens_of(bundle: Bundle, photos: Path) -> NDArray[np.float32]:
    resizing = bundle.manifest.image.resizing
    frames = [resizing.frames(load_image(path)[None]) for path in sorted(photos.iterdir())[:16]]
    tokens = bundle.encode_frames(np.concatenate(frames), tokens=True).tokens
    assert tokens is not None
    return tokens


def test_what_is_stored_is_measured(published: Published, photos: Path) -> None:
    found, lines = published.found, published.lines
    loss, costs = found["match_loss"], found["match_loss"]["costs"]
    assert found["stored_tokens_per_frame"] == 5
    assert [cost["tokens_per_frame"] for cost in costs] == [17, 9, 5]
    assert [cost["chosen"] for cost in costs] == [False, False, True]
    assert [cost["bytes_per_frame"] for cost in costs] == [17 * 26, 9 * 26, 5 * 26]
    assert found["loss"] is None
    assert (loss["pictures"], loss["texts"]) == ("16 of 18 photos of photos", 12)
    assert "match logits (16 of 18 photos of photos, 12 texts" in lines
    assert lines.count("(chosen)") == 1

    bundle = published.bundle
    assert bundle.manifest.provenance.metrics["match_loss"] == loss
    tokens = tokens_of(bundle, photos)
    exact = logits_of(bundle, tokens)
    assert loss["logits"] == pytest.approx([exact.min(), exact.max()], rel=1e-3)
    for cost in costs:
        stored = logits_of(bundle, dequantise(quantise(merge_tokens(tokens, cost["tokens_per_frame"]))))
        assert cost["mean_difference"] == pytest.approx(np.abs(stored - exact).mean(), rel=2e-3)
        assert cost["largest_difference"] == pytest.approx(np.abs(stored - exact).max(), rel=2e-3)
        assert cost["same_first"] == pytest.approx((stored.argmax(1) == exact.argmax(1)).mean(), abs=1e-3)
        ranks = (scores.argsort(axis=1).argsort(axis=1) for scores in (exact, stored))
        correlations = [np.corrcoef(*rows)[0, 1] for rows in zip(*ranks, strict=True)]
        assert cost["rank_correlation"] == pytest.approx(np.mean(correlations), abs=1e-3)


def test_a_lower_precision_is_measured_alone_and_with_fewer_tokens(
    published: Published, photos: Path, tmp_path: Path
) -> None:
    output, options = tmp_path / "int8", ("--precision", "int8", "--tokens-per-frame", "6")
    found, lines = run(published.folder, output, *options, "--probe", photos)
    assert "int8: from fp32 frame_encoder.onnx" in lines
    assert found["stored_tokens_per_frame"] == 6
    costs = found["match_loss"]["costs"]
    kinds = [(cost["tokens_per_frame"], cost["int8"], cost["chosen"]) for cost in costs]
    assert kinds == [(17, False, False), (17, True, False), (9, True, False), (6, True, True)]
    exact, lower = published.bundle, Bundle.open(output)
    assert lower.manifest.files["matcher.onnx"].bytes < 0.4 * exact.manifest.files["matcher.onnx"].bytes
    before, after = (logits_of(bundle, tokens_of(bundle, photos)) for bundle in (exact, lower))
    assert found["match_loss"]["logits"] == published.found["match_loss"]["logits"]
    # Activations are rounded with the scale of a whole batch, so that other batches differ a little.
    assert costs[0]["mean_difference"] == pytest.approx(np.abs(after - before).mean(), rel=0.5)
    assert 0 < costs[0]["mean_difference"] < 0.1 * np.ptp(before)


@pytest.mark.parametrize(
    ("family", "count", "message"),
    [
        ("blip", 18, "--tokens-per-frame: 17 tokens per frame cannot be merged to 18: choose 2 to 17"),
        ("clip", 5, "--tokens-per-frame is 5, but the model has no matching head"),
    ],
)
def test_counts_that_cannot_be(tmp_path: Path, family: str, count: int, message: str) -> None:
    save = {"blip": save_blip, "clip": save_clip}[family]
    words = ["import", str(save(tmp_path / family)), "--output", str(tmp_path / "bundle")]
    result = CliRunner().invoke(app, [*words, "--tokens-per-frame", str(count)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "bundle").exists()
