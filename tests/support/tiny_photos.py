"""A tiny captioned set, tokenizer and settings, so that training runs in seconds."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.config import Config
from model.families.lgdn.config import LossConfig, ModelConfig
from model.settings import DataConfig, TrainConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220), "white": (240, 240, 240)}
PLACES = {"left": (0, 24), "right": (24, 48)}
SIZES = {"tall": (0, 48), "high": (0, 20), "low": (28, 48)}


def make_photos(folder: Path) -> Path:
    """24 photos of a coloured block to train on and 24 to validate, each with its own two captions."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for split in ("train", "val"):
        for (colour, rgb), (place, columns), (size, lines) in itertools.product(
            COLOURS.items(), PLACES.items(), SIZES.items()
        ):
            photo = rng.integers(90, 130, (48, 48, 3), dtype=np.uint8)
            photo[slice(*lines), slice(*columns)] = rgb
            name = f"{split}_{colour}_{place}_{size}.png"
            Image.fromarray(photo).save(folder / "images" / name)
            captions = (f"a {size} {colour} block {place}", f"{place} is {size} {colour}")
            rows += [(name, split, caption) for caption in captions]
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "split", "caption"), *rows])
    return folder


def make_photos_with_test(folder: Path) -> Path:
    """As `make_photos`, but half of the photos to validate are there to test."""
    make_photos(folder)
    path = folder / "captions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    test = sorted({image for image, split, _ in rows if split == "val"})[12:]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            (image, "test" if image in test else split, caption) for image, split, caption in rows
        )
    return folder


def make_tokenizer(path: Path) -> Path:
    """A word-level tokenizer of the captions' words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "a", "block", "is", *COLOURS, *PLACES, *SIZES]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def tiny_config(data: Path, output: Path, **train: Any) -> Config:
    """Settings of a model that trains in seconds; dropout is on, so that resuming must restore randomness."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "lr_image": 2e-3,
        "lr_text": 5e-4,
        "lr_head": 1e-3,
        "precision": "float32",
        "threads": 1,
        "log_every": 1,
        "closed_form_start": True,
        "evaluate": False,
        "tensorboard": False,
    }
    return Config(
        output=str(output),
        model=ModelConfig(
            backbone="tiny",
            text="tiny",
            dim=16,
            frames=4,
            image_size=48,
            context_length=16,
            classes=7,
            frozen_stages=2,
            bank_size=20,
            momentum=0.9,
            fusion_dim=16,
        ),
        # Some are films of three or four frames, with transitions.
        data=DataConfig(
            path=str(data),
            views=3,
            multi_view=0.5,
            max_views=3,
            film_share=0.4,
            film_frames=4,
            noise_pool=5,
            transitions=0.3,
        ),
        loss=LossConfig(),
        train=TrainConfig(**(settings | train)),
    )
