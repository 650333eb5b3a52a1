"""Imported bundles compared with transformers, in pixels, token ids and embeddings; and used as products."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer

from indexer.library.snapshot import Snapshot
from model.importers import load
from model.importers.importing import ImportOptions, import_checkpoint
from model.importers.sources import find_checkpoint
from model.importers.weights import quiet_transformers
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import load_image
from tests.support.command_line import invoke
from tests.support.imported import index_films, recall_at_10
from tests.support.published import PUBLISHED, TEXTS, save_siglip2
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Pair:
    """A checkpoint as transformers reads it, and the bundle that was made of it."""

    family: str
    folder: Path
    bundle: Bundle

    @property
    def model(self) -> Any:
        from transformers import AutoModel

        with quiet_transformers():
            return AutoModel.from_pretrained(self.folder, attn_implementation="eager").eval()

    @property
    def processor(self) -> Any:
        from transformers import AutoImageProcessor

        processors: Any = AutoImageProcessor
        with quiet_transformers():
            return processors.from_pretrained(self.folder, backend="pil")

    @property
    def tokens(self) -> dict[str, torch.Tensor]:
        """The texts as the library's tokenizer gives them: of one length where the family wants that."""
        from transformers import AutoTokenizer

        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        found = tokenizer(
            list(TEXTS),
            padding="max_length" if self.family.startswith("siglip") else True,
            truncation=True,
            max_length=self.bundle.manifest.text.context_length,
            return_tensors="pt",
        )
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    home = tmp_path_factory.mktemp(request.param)
    folder = PUBLISHED[request.param](home / "published")
    # Random weights are no Matryoshka model: but a bundle may say so of any.
    import_checkpoint(find_checkpoint(str(folder)), home / "bundle", ImportOptions(embedding_dims=(4, 8)))
    return Pair(request.param, folder, Bundle.open(home / "bundle"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A real photo in odd sizes and kinds."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    whole = Image.fromarray(data.astronaut())

    def photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
        return whole.resize((width, height), Image.Resampling.LANCZOS).convert(mode)

    photo(201, 333).save(folder / "odd.png")
    photo(64, 48, "L").save(folder / "grey.png")
    transparent = photo(90, 60, "RGBA")
    transparent.putalpha(photo(90, 60, "L"))
    transparent.save(folder / "transparent.png")
    photo(60, 90, "CMYK").save(folder / "cmyk.jpg")
    deep = np.asarray(photo(50, 70, "L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(40, 120).save(folder / "turned.jpg", exif=turned)
    photo(20, 310).save(folder / "narrow.png")
    return sorted(folder.iterdir())


def test_pixels_are_those_of_the_librarys_processor(pair: Pair, photos: list[Path]) -> None:
    processor = pair.processor
    resizing = pair.bundle.manifest.image.resizing
    scale, mean, std = (
        np.array(value) for value in (processor.rescale_factor, processor.image_mean, processor.image_std)
    )
    for photo in photos:
        pixels = load_image(photo)
        expected = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        ours = (resizing.frames(pixels[None])[0] * scale - mean) / std
        np.testing.assert_allclose(ours.transpose(2, 0, 1), expected, atol=1e-4, err_msg=photo.name)


def test_a_very_narrow_photo_differs_by_rounding_alone(pair: Pair) -> None:
    processor = pair.processor
    ramp = np.linspace(0, 255, 2000, dtype=np.uint8)
    photo = np.repeat(ramp[:, None, None], 3, axis=2)
    found = processor(Image.fromarray(photo), return_tensors="np", do_rescale=False, do_normalize=False)[
        "pixel_values"
    ][0]
    ours = pair.bundle.manifest.image.resizing.frames(photo[None])[0]
    assert np.abs(ours.transpose(2, 0, 1).astype(int) - found).max() <= 1


def test_token_ids_are_those_of_the_librarys_tokenizer(pair: Pair) -> None:
    expected = pair.tokens
    batch = pair.bundle.tokenizer(TEXTS)
    for row in range(len(TEXTS)):
        ours = batch.input_ids[row][batch.attention_mask[row] > 0]
        library = expected["input_ids"][row][expected["attention_mask"][row] > 0]
        np.testing.assert_array_equal(ours, library.numpy())


def test_embeddings_are_those_of_the_library(pair: Pair) -> None:
    model, size = pair.model, pair.bundle.manifest.image.size
    frames = np.random.default_rng(1).integers(0, 256, (5, size, size, 3), np.uint8)
    processor = pair.processor
    pixels = processor(
        list(frames),
        return_tensors="pt",
        do_resize=False,
        do_center_crop=False,
        input_data_format="channels_last",
    )["pixel_values"]
    with torch.no_grad():
        shown = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        tokens = pair.tokens
        if pair.family.startswith("siglip"):
            # Trained without a mask: padding is read.
            del tokens["attention_mask"]
        said = F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    encoding, text = pair.bundle.encode_frames(frames), pair.bundle.encode_text(list(TEXTS))
    np.testing.assert_allclose(encoding.embedding, shown.numpy(), atol=1e-4)
    np.testing.assert_array_equal(encoding.salience, encoding.embedding)
    np.testing.assert_allclose(text.embedding, said.numpy(), atol=1e-4)
    mask = np.array([[True, True, True, False, False]])
    segment = pair.bundle.encode_segments(encoding.embedding[None], mask)
    mean = F.normalize(shown[:3].mean(dim=0), dim=-1)
    np.testing.assert_allclose(segment[0], mean.numpy(), atol=1e-4)


def test_the_bundle_serves(pair: Pair, tmp_path: Path) -> None:
    """Index, search with re-ranking by salient frames, and evaluate, through the commands."""
    films = {"one.mp4": [("red", 1.0), ("blue", 1.0)], "two.mp4": [("green", 2.0)]}
    where = index_films(tmp_path, pair.bundle, films)
    body = json.loads(invoke("search", "a dog", "--json", "--explain", *where).stdout)
    assert body["reranked"] is True
    assert {Path(hit["path"]).name for hit in body["hits"]} == set(films)
    best = body["hits"][0]
    relevance = [frame["relevance"] for frame in best["explanation"]["frames"]]
    assert best["match_score"] == pytest.approx(np.mean(relevance), abs=1e-4)
    assert recall_at_10(tmp_path, where, "a dog", films) == 100.0


def test_a_library_may_be_cut_to_what_the_import_allows(pair: Pair, tmp_path: Path) -> None:
    assert pair.bundle.manifest.embedding_dims == (4, 8)
    make_video(tmp_path / "media" / "one.mp4", parts=[("red", 1.0)], size=(64, 48), fps=4)
    where = ("--library", tmp_path / "library", "--bundle", pair.bundle.folder)
    indexed = invoke("index", tmp_path / "media", *where, "--workers", "0", "--embedding-dim", "4")
    assert indexed.exit_code == 0, indexed.output
    (hit,) = json.loads(invoke("search", "a dog", "--json", *where).stdout)["hits"]
    embedding = pair.bundle.encode_text(["a dog"]).embedding
    snapshot = Snapshot.open(tmp_path / "library")
    assert snapshot.embedding_dim == 4
    scores, _ = snapshot.search(embedding, 1)
    assert hit["similarity"] >= round(float(scores[0, 0]), 4) - 1e-4


def test_siglip_reads_small_letters_whatever_its_tokenizer_does(tmp_path: Path) -> None:
    found = load(find_checkpoint(str(save_siglip2(tmp_path, "GemmaTokenizer"))))
    tokenizer = Tokenizer.from_str(found.tokenizer.decode())
    assert tokenizer.encode("A DOG on").ids == tokenizer.encode("a dog on").ids
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (
        tokenizer.encode("A DOG on").ids == library.encode("a dog on").ids != library.encode("A DOG on").ids
    )
