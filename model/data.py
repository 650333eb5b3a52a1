"""Captioned photos as one-frame videos, the cache of what the frozen stages make of them, and batches.

Shapes: F packed frames, B videos, N frame slots, L text tokens.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from model.config import Config
from model.lgdn import Batch, Towers
from model.runtime.preprocess import TextTokenizer, load_image, resize_frames

TEACHER_CLASSES = 8
# Photos a pass of the early stages, whose maps are large: few enough to stay in a CPU's caches.
_CHUNK = 8


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos of one split with their captions."""

    folder: Path
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, size: int) -> NDArray[np.uint8]:
        """One photo by the serving path's resize rule. Shape [size, size, 3]."""
        return resize_frames(load_image(self.folder / self.names[index])[None], size)[0]


def read_captions(path: Path, split: str) -> CaptionedPhotos:
    """Read `captions.csv` (image, split, caption) and keep one split.

    Raises:
        ValueError: when the folder or the split is not there.
    """
    table = path / "captions.csv"
    if not table.is_file():
        raise ValueError(f"no captions.csv in {path}: pass the data set's folder as data=DIR")
    groups: dict[str, list[str]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                groups.setdefault(row["image"], []).append(row["caption"])
    if not groups:
        raise ValueError(f"{table} has no rows of split {split!r}")
    names = tuple(sorted(groups))
    return CaptionedPhotos(path / "images", names, tuple(tuple(groups[n]) for n in names))


def augment(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random view that looks like a frame of a small video. Shape [s, s, 3] → the same.

    Crops change the aspect, as squashing wide video does; blur and JPEG stand for low resolution and strong
    compression; black bars for letterboxes.
    """
    size = photo.shape[0]
    image = Image.fromarray(photo)
    area, ratio = rng.uniform(0.5, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    width = min(size, round(size * np.sqrt(area * ratio)))
    height = min(size, round(size * np.sqrt(area / ratio)))
    left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
    image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.5:
            image = enhance(image).enhance(float(rng.uniform(0.65, 1.35)))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 75)))
        image = Image.open(buffer).convert("RGB")
    if rng.random() < 0.08:
        bar = int(rng.integers(size // 16, size // 6))
        inner = image.resize((size, size - 2 * bar), Image.Resampling.BICUBIC)
        image = Image.new("RGB", (size, size))
        image.paste(inner, (0, bar))
    return np.asarray(image)


class ViewCache:
    """Outputs of the frozen stages for some views of every photo: view 0 is plain, the others are augmented.

    The early stages are most of the backbone's time and do not change, so each view costs them once.
    """

    def __init__(self, folder: Path, views: int) -> None:
        self.maps = [np.load(folder / f"maps_{v}.npy", mmap_mode="r") for v in range(views)]
        self.teacher_classes = [np.load(folder / f"classes_{v}.npy") for v in range(views)]
        self.teacher_shares = [np.load(folder / f"shares_{v}.npy") for v in range(views)]

    def gather(self, views: NDArray[np.int64], photos: NDArray[np.int64]) -> Tensor:
        """Maps of chosen views, in channels-last memory. Shapes [F], [F] → float [F, C, h', w']."""
        rows = np.stack([self.maps[v][p] for v, p in zip(views, photos, strict=True)])
        return torch.from_numpy(rows).float().permute(0, 3, 1, 2)

    def teacher(self, views: NDArray[np.int64], photos: NDArray[np.int64], classes: int) -> Tensor:
        """The published classifier's likeliest classes, the rest dropped. Shape [F, C]."""
        out = torch.zeros(len(views), classes)
        for row, (v, p) in enumerate(zip(views, photos, strict=True)):
            out[row, self.teacher_classes[v][p]] = torch.from_numpy(self.teacher_shares[v][p])
        return out


def build_cache(
    folder: Path,
    photos: CaptionedPhotos,
    towers: Towers,
    classifier: tuple[Tensor, Tensor],
    config: Config,
    report: Callable[[str], None],
) -> ViewCache:
    """Open the cache, computing what is missing. Views are written whole, so an interrupted build resumes."""
    model = config.model
    key = json.dumps([model.backbone, model.frozen_stages, model.image_size, photos.names, config.train.seed])
    folder = folder / hashlib.sha256(key.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    weight, bias = classifier
    towers = copy.deepcopy(towers).eval().to(memory_format=torch.channels_last)
    if config.train.precision == "bfloat16":
        towers = towers.bfloat16()
    for view in range(config.data.views):
        target = folder / f"maps_{view}.npy"
        if target.exists():
            continue
        maps: list[NDArray[np.float16]] = []
        shares, classes = [], []
        for start in range(0, len(photos), _CHUNK):
            frames = []
            for index in range(start, min(start + _CHUNK, len(photos))):
                photo = photos.load(index, model.image_size)
                rng = np.random.default_rng((config.train.seed, view, index))
                frames.append(augment(photo, rng) if view else photo)
            with torch.inference_mode():
                out = towers.frozen_maps(torch.from_numpy(np.stack(frames)))
                pooled = towers.image(out)[0]
            top = torch.softmax(pooled @ weight.T + bias, -1).topk(min(TEACHER_CLASSES, len(bias)))
            maps.append(out.permute(0, 2, 3, 1).half().numpy())
            shares.append((top.values / top.values.sum(-1, keepdim=True)).numpy())
            classes.append(top.indices.numpy())
            if start % 1024 == 0:
                report(f"cache view {view + 1}/{config.data.views} photo {start}/{len(photos)}")
        np.save(folder / f"shares_{view}.npy", np.concatenate(shares))
        np.save(folder / f"classes_{view}.npy", np.concatenate(classes))
        partial = target.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(maps))
        partial.replace(target)
    return ViewCache(folder, config.data.views)


def batches(
    cache: ViewCache,
    photos: CaptionedPhotos,
    tokenizer: TextTokenizer,
    config: Config,
    epoch: int,
    first: int = 0,
    classes: int = 0,
) -> Iterator[Batch]:
    """One epoch's batches from number `first` on.

    All choices come from (seed, epoch, batch number): a resumed run sees what an uninterrupted one would.
    """
    size, slots = config.train.batch_size, config.model.frames
    order = np.random.default_rng((config.train.seed, epoch)).permutation(len(photos))
    for number in range(first, steps_per_epoch(len(photos), size)):
        rng = np.random.default_rng((config.train.seed, epoch, number))
        rows = order[number * size : (number + 1) * size]
        chosen = [photos.captions[r][rng.integers(len(photos.captions[r]))] for r in rows]
        # Sorted by length: the text encoder works in parts, each padded to its own longest text.
        by_length = sorted(range(len(rows)), key=lambda i: len(chosen[i]))
        rows, texts = rows[by_length], [chosen[i] for i in by_length]
        counts = np.ones(len(rows), np.int64)
        several = rng.random(len(rows)) < config.data.multi_view
        if config.data.max_views > 1:
            counts[several] = rng.integers(2, config.data.max_views + 1, int(several.sum()))
        packed = np.repeat(rows, counts)
        views = rng.integers(0, config.data.views, len(packed))
        # Frames take random places of the segment, in order, so that every learned position is trained.
        places = [np.sort(rng.choice(slots, c, replace=False)) + i * slots for i, c in enumerate(counts)]
        taken = np.concatenate(places)
        mask = torch.zeros(len(rows) * slots)
        mask[taken] = 1.0
        tokens = tokenizer(texts)
        yield Batch(
            maps=cache.gather(views, packed),
            slots=torch.from_numpy(taken),
            frame_mask=mask.view(len(rows), slots),
            input_ids=torch.from_numpy(tokens.input_ids),
            attention_mask=torch.from_numpy(tokens.attention_mask),
            video_ids=torch.from_numpy(rows),
            teacher=cache.teacher(views, packed, classes) if classes else None,
        )


def steps_per_epoch(photos: int, batch_size: int) -> int:
    """Whole batches only; a smaller last one would weigh its photos more. A tiny set gives one batch."""
    return max(1, photos // batch_size)
