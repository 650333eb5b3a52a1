"""Imported models that read whole segments, compared with transformers, and used as products."""

from __future__ import annotations

import json
import shutil
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from model.importers import load
from model.importers.importing import ImportOptions, import_checkpoint
from model.importers.sources import find_checkpoint
from model.importers.video_towers import slots
from model.importers.weights import quiet_transformers
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.command_line import invoke
from tests.support.imported import index_films, recall_at_10
from tests.support.published import TEXTS
from tests.support.published_video import PUBLISHED_VIDEO

pytestmark = pytest.mark.slow


def canonical_text(text: str) -> str:
    """A text as VideoPrism's authors prepare it before they tokenise it."""
    spaces = str.maketrans(string.punctuation, " " * len(string.punctuation))
    return " ".join(text.translate(spaces).lower().split()) + "."


@dataclass(frozen=True)
class Pair:
    """A checkpoint as transformers reads it, and the bundle that was made of it."""

    family: str
    folder: Path
    bundle: Bundle
    model: Any

    @property
    def tokens(self) -> dict[str, torch.Tensor]:
        """The texts as the library's tokenizer gives them, padded as its processor pads them."""
        from transformers import AutoTokenizer

        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        found = tokenizer(
            [canonical_text(text) for text in TEXTS] if self.family == "videoprism" else list(TEXTS),
            padding="max_length" if self.family == "videoprism" else True,
            truncation=True,
            max_length=self.bundle.manifest.text.context_length,
            return_tensors="pt",
        )
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def pixels(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Frames of the model's size as it reads them. [N, h, w, 3] → [1, N, 3, h, w]."""
        if self.family == "videoprism":
            scaled = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255
            return scaled.float()
        from transformers import AutoImageProcessor

        processors: Any = AutoImageProcessor
        with quiet_transformers():
            processor = processors.from_pretrained(self.folder, backend="pil")
        options = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
        found: torch.Tensor = processor(list(frames), return_tensors="pt", **options)["pixel_values"]
        return found

    def video(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The library's embedding of N frames. → [D]"""
        with torch.no_grad():
            if self.family == "videoprism":
                found = self.model.get_video_features(pixel_values_videos=self.pixels(frames))
            else:
                found = self.model.get_video_features(pixel_values=self.pixels(frames))
        unit: NDArray[np.float32] = F.normalize(found.pooler_output.flatten(), dim=-1).numpy()
        return unit

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the library's parts give for each of N frames. → [N, D]"""
        pixels, count = self.pixels(frames), len(frames)
        with torch.no_grad():
            if self.family == "xclip":
                seen = self.model.vision_model(pixel_values=pixels[0]).pooler_output
                found = self.model.mit(self.model.visual_projection(seen)[None]).last_hidden_state[0]
            else:
                video = self.model.video_model
                hidden = video(pixel_values_videos=pixels).last_hidden_state
                # The pooler reads all patches, and those of the other frames are masked.
                of_frame = torch.arange(hidden.shape[1]) // (hidden.shape[1] // count)
                others = [torch.where(of_frame == n, 0.0, -1e9)[None, None, None] for n in range(count)]
                pooled = [video.head(hidden, attention_mask=mask)[0][0, 0] for mask in others]
                found = video.head_layernorm(torch.stack(pooled))
        return np.asarray(found.numpy(), np.float32)


@pytest.fixture(scope="module", params=sorted(PUBLISHED_VIDEO))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from transformers import AutoModel

    home = tmp_path_factory.mktemp(request.param)
    folder = PUBLISHED_VIDEO[request.param](home / "published")
    import_checkpoint(find_checkpoint(str(folder)), home / "bundle")
    models: Any = AutoModel
    with quiet_transformers():
        model = models.from_pretrained(folder, attn_implementation="eager").eval()
    return Pair(request.param, folder, Bundle.open(home / "bundle"), model)


def noise(pair: Pair, count: int) -> NDArray[np.uint8]:
    size = pair.bundle.manifest.image.size
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def unit(x: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def naive_slots(count: int, most: int) -> list[int]:
    return [int((slot + 0.5) * count / most) for slot in range(most)]


@pytest.mark.parametrize("most", [1, 4, 8, 16])
def test_frames_of_short_segments_are_repeated_evenly(most: int) -> None:
    mask = torch.tensor([[float(place < count) for place in range(most)] for count in range(1, most + 1)])
    found = slots(mask, most).tolist()
    assert found == [naive_slots(count, most) for count in range(1, most + 1)]
    for count, row in enumerate(found, start=1):
        times = np.bincount(row, minlength=count)
        assert len(times) == count
        assert times.max() - times.min() <= 1


def test_segments_and_frames_are_those_of_the_library(pair: Pair) -> None:
    """Whole segments, and short ones of repeated frames."""
    most, size = pair.bundle.manifest.frames_per_segment, pair.bundle.manifest.image.size
    counts = (most, 1, most - 1, 2)
    padded = np.full((len(counts), most, size, size, 3), 99, np.uint8)
    segments = [noise(pair, count) for count in counts]
    for row, frames in enumerate(segments):
        padded[row, : len(frames)] = frames
    mask = np.arange(most) < np.array(counts)[:, None]
    found = pair.bundle.encode_videos(padded, mask)
    salience = np.split(found.salience, np.cumsum(counts)[:-1])
    for row, frames in enumerate(segments):
        places = naive_slots(len(frames), most)
        shown = frames[places]
        np.testing.assert_allclose(found.embedding[row], pair.video(shown), atol=1e-4)
        of_slots = pair.frames(shown)
        for frame in range(len(frames)):
            mean = of_slots[np.array(places) == frame].mean(axis=0)
            np.testing.assert_allclose(salience[row][frame], unit(mean), atol=1e-4)


def test_texts_are_those_of_the_library(pair: Pair) -> None:
    with torch.no_grad():
        expected = F.normalize(pair.model.get_text_features(**pair.tokens).pooler_output, dim=-1)
    text = pair.bundle.encode_text(list(TEXTS))
    np.testing.assert_allclose(text.embedding, expected.numpy(), atol=1e-4)
    np.testing.assert_array_equal(text.salience, text.embedding)
    batch, library = pair.bundle.tokenizer(TEXTS), pair.tokens
    for row in range(len(TEXTS)):
        ours = batch.input_ids[row][batch.attention_mask[row] > 0]
        theirs = library["input_ids"][row][library["attention_mask"][row] > 0]
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_similarities_are_those_of_the_whole_model(pair: Pair) -> None:
    """Of X-CLIP without its generator of prompts, which gives each pair its own text embedding."""
    frames = noise(pair, pair.bundle.manifest.frames_per_segment)
    pixels, tokens = pair.pixels(frames), pair.tokens
    found = pair.bundle.encode_videos(frames[None], np.ones((1, len(frames)), np.bool_)).embedding
    ours = found @ pair.bundle.encode_text(list(TEXTS)).embedding.T
    if pair.family == "videoprism":
        with torch.no_grad():
            out = pair.model(pixel_values_videos=pixels, **tokens)
        np.testing.assert_allclose(ours, (out.video_embeds @ out.text_embeds.T).numpy(), atol=1e-4)
        return
    alpha = pair.model.prompts_generator.alpha
    published, scale = alpha.data.clone(), float(pair.model.logit_scale.detach().exp())
    cosines = {}
    try:
        for name, value in (("off", torch.zeros_like(published)), ("on", published)):
            alpha.data = value
            with torch.no_grad():
                cosines[name] = pair.model(pixel_values=pixels, **tokens).logits_per_video.numpy() / scale
    finally:
        alpha.data = published
    np.testing.assert_allclose(ours, cosines["off"], atol=1e-4)
    assert np.abs(ours - cosines["on"]).max() > 1e-3


def test_pixels_are_those_of_the_library(pair: Pair) -> None:
    """VideoPrism's processor needs torchvision, which resizes by this function: to a level of each pixel."""
    rng = np.random.default_rng(0)
    resizing = pair.bundle.manifest.image.resizing
    for height, width in ((201, 333), (20, 310), (64, 48)):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        photo = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        ours = resizing.frames(photo[None])[0]
        if pair.family == "videoprism":
            planes = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]
            side = (resizing.size, resizing.size)
            kernel = F.interpolate(planes, side, mode="bicubic", antialias=True, align_corners=False)
            expected = kernel[0].permute(1, 2, 0).numpy()
            assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1
            continue
        from transformers import AutoImageProcessor

        processors: Any = AutoImageProcessor
        with quiet_transformers():
            processor = processors.from_pretrained(pair.folder, backend="pil")
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        found = processor([Image.fromarray(photo)], **options)["pixel_values"][0, 0]
        np.testing.assert_array_equal(ours.transpose(2, 0, 1), found)


def test_the_bundle_serves(pair: Pair, tmp_path: Path) -> None:
    """Index, search for moments and videos, re-rank where it can, and evaluate, through the commands."""
    films = {
        "one.mp4": [("red", 1.0), ("blue", 1.0)],
        "still.mp4": [("green", 3.0)],
        "long.mp4": [("red", 20.0), ("white", 20.0), ("black", 5.0)],
    }
    where = index_films(tmp_path, pair.bundle, films, fps=2)
    matches = pair.family == "xclip"
    for group_by in ("moment", "video"):
        body = json.loads(invoke("search", "a dog", "--json", "--group-by", group_by, *where).stdout)
        assert {Path(hit["path"]).name for hit in body["hits"]} == set(films)
        assert (body["reranked"], body["rerank_skipped"]) == (matches, None if matches else "no_matcher")
        for hit in body["hits"]:
            assert any(frame["salient"] for frame in hit["frames"])
            if matches:
                best = [frame["match_score"] for frame in hit["frames"] if frame["salient"]]
                assert hit["match_score"] == pytest.approx(np.mean(best), abs=1e-4)
    assert recall_at_10(tmp_path, where, "a dog", films) == 100.0


def test_a_lower_precision_tells_its_loss(pair: Pair, tmp_path: Path) -> None:
    if pair.family != "xclip":
        pytest.skip("one family is enough: what is lowered are the same operators")
    checkpoint = find_checkpoint(str(pair.folder))
    result = import_checkpoint(checkpoint, tmp_path / "int8", ImportOptions(precision="int8"))
    assert result.loss is not None
    assert set(result.loss.outputs) == {"video_encoder.onnx", "text_encoder.onnx"}
    assert min(result.loss.outputs.values()) > 1e-6
    assert max(result.loss.outputs.values()) < 0.2
    frames = noise(pair, pair.bundle.manifest.frames_per_segment)[None]
    mask = np.ones(frames.shape[:2], np.bool_)
    found = Bundle.open(tmp_path / "int8").encode_videos(frames, mask).embedding
    assert float((found @ pair.bundle.encode_videos(frames, mask).embedding.T)[0, 0]) > 0.98


def test_what_does_not_fit_is_refused(pair: Pair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pair.folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    changed = json.loads(json.dumps(config))
    changed["vision_config"]["num_frames"] += 1
    for content, said in ((changed, "has shape|cannot be read as"), ({**config, "text_config": {}}, "copy")):
        (copy / "config.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=said):
            load(find_checkpoint(str(copy)))
    (copy / "config.json").write_text(json.dumps(config))
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(
        InputError, match=r"no \w*preprocessor_config\.json in .*: add the files of its processor"
    ):
        load(find_checkpoint(str(copy)))
