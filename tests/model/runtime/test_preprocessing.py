"""Frames become squares, photos stand upright, texts become tokens."""

import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from model.runtime.preprocessing import (
    Interpolation,
    Resizing,
    TextTokenizer,
    TokenBatch,
    load_image,
    normalise_text,
    resize_frames,
)
from tests.support import toy_bundle as toy


def gradient(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise, [h, w, 3]."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width))
    channels = [y * 200 // height, x * 200 // width, (x + y) * 200 // (height + width)]
    return (np.stack(channels, axis=-1) + noise[..., None]).astype(np.uint8)


def bicubic_weights(source: int, target: int, start: float = 0.0, span: float | None = None) -> np.ndarray:
    """Naive antialiased bicubic weights (a = −0.5, the support widened when it shrinks): [target, source]."""
    span = source if span is None else span
    scale = span / target
    stretch = max(scale, 1.0)
    weights = np.zeros((target, source))
    for i in range(target):
        centre = start + (i + 0.5) * scale
        for j in range(source):
            t = abs(j + 0.5 - centre) / stretch
            if t < 1:
                weights[i, j] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weights[i, j] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    totals: NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
    return weights / totals


def naive_resize(frame: np.ndarray, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    left, top, right, bottom = box
    rows = bicubic_weights(frame.shape[0], size, top, bottom - top)
    columns = bicubic_weights(frame.shape[1], size, left, right - left)
    resized: NDArray[np.float64] = np.einsum("ih,hwc,jw->ijc", rows, frame.astype(np.float64), columns)
    return resized.clip(0, 255)


@pytest.mark.parametrize(("height", "width"), [(90, 160), (48, 20), (33, 33), (17, 64), (1, 1), (3, 200)])
def test_squash_equals_naive_bicubic(height: int, width: int) -> None:
    frames = np.stack([gradient(height, width, seed) for seed in range(2)])
    result = resize_frames(frames, 32)
    assert result.dtype == np.uint8
    for got, frame in zip(result, frames, strict=True):
        expected = naive_resize(frame, 32, (0, 0, width, height))
        # Pillow rounds to whole numbers between its two passes.
        assert np.abs(got - expected).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(90, 160), (48, 20), (33, 33), (64, 128)])
def test_center_crop_equals_naive_bicubic(height: int, width: int) -> None:
    frame = gradient(height, width)
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    expected = naive_resize(frame, 24, (left, top, left + side, top + side))
    assert np.abs(resize_frames(frame[None], 24, "center_crop")[0] - expected).max() <= 2


def test_center_crop_is_resizing_then_cropping() -> None:
    frame = gradient(64, 128)
    whole = np.asarray(Image.fromarray(frame).resize((48, 24), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_frames(frame[None], 24, "center_crop")[0], whole[:, 12:36])


@pytest.mark.parametrize(("height", "width"), [(48, 100), (101, 37), (40, 40), (2, 500)])
def test_scale_crop_equals_naive_scaling_to_whole_pixels_and_a_crop(height: int, width: int) -> None:
    frame = gradient(height, width)
    scaled = [30 * side // min(height, width) for side in (height, width)]
    top, left = ((side - 24) // 2 for side in scaled)
    down, across = height / scaled[0], width / scaled[1]
    box = (left * across, top * down, (left + 24) * across, (top + 24) * down)
    result = Resizing(24, "scale_crop", shorter_side=30).frames(frame[None])[0]
    assert np.abs(result - naive_resize(frame, 24, box)).max() <= 2


def test_interpolations_are_pillows() -> None:
    frame = gradient(40, 60)
    for name in get_args(Interpolation):
        expected = Image.fromarray(frame).resize((16, 16), Image.Resampling[name.upper()])
        result = Resizing(16, interpolation=name).frames(frame[None])[0]
        np.testing.assert_array_equal(result, np.asarray(expected))


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = resize_frames(stripes[None], 16)[0, :, 2:-2]
    assert inner.min() >= 126
    assert inner.max() <= 129


def test_same_size_is_a_copy() -> None:
    frames = gradient(32, 32)[None]
    result = resize_frames(frames, 32)
    np.testing.assert_array_equal(result, frames)
    assert not np.shares_memory(result, frames)


def test_views_resize_like_copies() -> None:
    frames = np.stack([gradient(40, 60, seed) for seed in range(3)])
    view = frames[::-1, ::2, ::-1]
    np.testing.assert_array_equal(resize_frames(view, 16), resize_frames(np.ascontiguousarray(view), 16))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint8), r"\[8, 8, 3\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\[0, 8, 8, 3\]"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"\[1, 0, 8, 3\]"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"\[1, 8, 8, 4\]"),
        ([1], "list"),
    ],
)
def test_resize_refuses(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize_frames(frames, 8)


def test_resize_refuses_sizes_and_rules() -> None:
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="size is 0"):
        resize_frames(frames, 0)
    with pytest.raises(ValueError, match="'fit' is unknown"):
        resize_frames(frames, 8, cast(Any, "fit"))
    for wrong, message in (
        ({"interpolation": "box"}, "'box' is unknown"),
        ({"rule": "scale_crop", "shorter_side": 7}, "shorter_side is 7: a square of 8 pixels"),
        ({"shorter_side": 9}, "only the rule 'scale_crop' reads it"),
    ):
        with pytest.raises(ValueError, match=message):
            Resizing(8, **cast(Any, wrong))


# Photos


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:10, :20], upright[:10, 20:], upright[10:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How a camera held that way stores it: the inverse of what the flag asks a viewer to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(load_image(path), upright)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.full((6, 8), 128, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = Image.fromarray(grey if mode == "P" else np.repeat(grey[..., None], 3, axis=2)).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    result = load_image(path)
    assert result.shape == (6, 8, 3)
    assert result.dtype == np.uint8
    if mode == "1":  # dithered
        assert 96 <= result.mean() <= 160
    else:
        assert np.abs(result.astype(int) - 128).max() <= 3


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "b.png", transparency=bytes([255, 0, 0]))
    result = load_image(tmp_path / "a.png")
    assert result[0, 0].tolist() == [255, 0, 0]
    assert result[1, 1].tolist() == [255, 255, 255]
    assert load_image(tmp_path / "b.png").shape == (2, 2, 3)


def test_bad_photos_are_named(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(gradient(200, 200)).save(photo)
    data = photo.read_bytes()
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"no photo at all",
        "cut.jpg": data[: len(data) // 2],
        "header.jpg": data[:40],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not a readable photo"):
            load_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"nowhere\.jpg does not exist"):
        load_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="is not a readable photo"):
        load_image(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_damaged_photos_never_crash(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for suffix in ("jpg", "png", "gif", "webp", "tif"):
        path = tmp_path / f"photo.{suffix}"
        Image.fromarray(gradient(40, 40)).save(path)
        data = np.frombuffer(path.read_bytes(), np.uint8).copy()
        for _ in range(10):
            damaged = data.copy()
            damaged[generator.integers(0, len(data), 8)] = generator.integers(0, 256, 8)
            path.write_bytes(damaged.tobytes())
            # Pillow may warn and go on; either a picture or the error that names the file is right.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert load_image(path).ndim == 3
                except ValueError as error:
                    assert path.name in str(error)  # noqa: PT017


# Text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a\tdog \n runs ", "a dog runs"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ﬁne", "fine"),
        ("cafe\u0301", "café"),
        ("no\u00a0break", "no break"),
        ("\ud83d\ude00", "😀"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("", ""),
        ("\u2003\n", ""),
    ],
)
def test_normalise_text(text: str, expected: str) -> None:
    assert normalise_text(text) == expected


@given(st.text(st.characters(codec=None)))
def test_normalised_text_is_stable_and_encodable(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFKC", once)
    once.encode()


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    path = tmp_path / "tokenizer.json"
    toy.toy_tokenizer().save(str(path))
    return TextTokenizer.from_file(path, context_length=4)


def test_tokens_are_padded_to_the_longest(tokenizer: TextTokenizer) -> None:
    batch = tokenizer(["red", "green dog blue"])
    assert isinstance(batch, TokenBatch)
    assert len(batch) == 2
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    assert batch.input_ids.tolist() == [[2, 0, 0], [3, 1, 4]]
    assert batch.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_batches_are_joined_as_if_they_were_one(tmp_path: Path) -> None:
    padded = toy.toy_tokenizer()
    padded.enable_padding(pad_id=9, pad_token="black")
    padded.save(str(tmp_path / "t.json"))
    tokenizer = TextTokenizer.from_file(tmp_path / "t.json", context_length=4)
    texts = ["red", "green dog blue", "blue", "white cyan", "red red red red red"]
    joined = tokenizer.join([tokenizer(texts[:1]), tokenizer(texts[1:3]), tokenizer(texts[3:])])
    together = tokenizer(texts)
    assert joined.input_ids.tolist() == together.input_ids.tolist()
    assert joined.attention_mask.tolist() == together.attention_mask.tolist()
    with pytest.raises(ValueError, match="batches is empty"):
        tokenizer.join([])


def test_tokens_are_cut_to_the_context(tokenizer: TextTokenizer) -> None:
    assert tokenizer(["red green blue yellow cyan"]).input_ids.tolist() == [[2, 3, 4, 5]]
    assert tokenizer(["red " * 5000]).input_ids.shape == (1, 4)


def test_texts_are_normalised_first(tokenizer: TextTokenizer) -> None:
    assert tokenizer(["ｒｅｄ\n\ngreen \ud800"]).input_ids.tolist() == [[2, 3, 1]]


def test_the_files_own_padding_and_truncation_are_overruled(tmp_path: Path) -> None:
    fixed = toy.toy_tokenizer()
    fixed.enable_padding(direction="left", pad_id=9, pad_token="black", length=128)
    fixed.enable_truncation(2, direction="left")
    fixed.save(str(tmp_path / "t.json"))
    batch = TextTokenizer.from_file(tmp_path / "t.json", 3)(["red green blue yellow", "red"])
    assert batch.input_ids.tolist() == [[2, 3, 4], [2, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_texts_without_a_token(tmp_path: Path) -> None:
    vocabulary = Tokenizer(models.WordLevel({"[PAD]": 0, "red": 1}, unk_token="[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vocabulary.save(str(tmp_path / "t.json"))
    content = json.loads((tmp_path / "t.json").read_text())
    content["model"] = {"type": "BPE", "vocab": {"[PAD]": 0, "r": 1}, "merges": []}
    (tmp_path / "t.json").write_text(json.dumps(content))
    tokenizer = TextTokenizer.from_file(tmp_path / "t.json", 3)
    with pytest.raises(ValueError, match="text 1 has no token: 'zzz'"):
        tokenizer(["r", "zzz"])


def test_tokenizer_refuses(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    refused: list[tuple[Any, str]] = [
        ([], "empty"),
        ("red", "one string"),
        ([None], "NoneType"),
        (["a", " "], "text 1"),
    ]
    for texts, message in refused:
        with pytest.raises(ValueError, match=message):
            tokenizer(texts)
    with pytest.raises(ValueError, match=r"nowhere\.json is not a readable tokenizer"):
        TextTokenizer.from_file(tmp_path / "nowhere.json", 4)
    with pytest.raises(ValueError, match="context_length is 0"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json", 0)


def test_token_batch_checks_its_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\].*\[1, 3\]"):
        TokenBatch(np.zeros((1, 2), np.int64), np.zeros((1, 3), np.int64))
