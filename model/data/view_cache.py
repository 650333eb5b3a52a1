"""What the frozen stages make of photos, computed once: the early stages are most of the backbone's time.

Shapes: F packed frames, C channels or classes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from model.backbones import ImageBackbone
from model.config import Config
from model.data.films import PLAIN, Plan

if TYPE_CHECKING:
    from model.data.loaders import CaptionedPhotos

TEACHER_CLASSES = 8
# Photos a pass of the early stages, whose maps are large: few enough to stay in a CPU's caches.
_CHUNK = 8


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
    """Outputs of the frozen stages for views of every photo: 0 is plain, the others are augmented."""

    def __init__(self, folder: Path, views: int) -> None:
        self.maps = [np.load(folder / f"maps_{v}.npy", mmap_mode="r") for v in range(views)]
        self.plain = np.load(folder / "plain.npy")
        self.teacher_classes = [np.load(folder / f"classes_{v}.npy") for v in range(views)]
        self.teacher_shares = [np.load(folder / f"shares_{v}.npy") for v in range(views)]

    def gather(self, views: NDArray[np.int64], photos: NDArray[np.int64]) -> Tensor:
        """Maps of chosen views, in channels-last memory; negative photos are plain frames.

        Shapes [F], [F] → float [F, C, h', w'].
        """
        plain = list(PLAIN)
        rows = np.stack(
            [
                self.maps[v][p] if p >= 0 else self.plain[plain.index(p)]
                for v, p in zip(views.tolist(), photos.tolist(), strict=True)
            ]
        )
        # By NumPy: in a thread that makes batches PyTorch would start threads of its own beside training's.
        return torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2)

    def frames(self, plan: Plan) -> Tensor:
        """A plan's packed frames. A transition mixes maps, not pixels: that costs nothing and comes close,
        as the frozen stages are early ones. → float [F, C, h', w'].
        """
        maps = self.gather(plan.views[:, 0], plan.photos[:, 0])
        mixed = np.flatnonzero(plan.share)
        if len(mixed):
            other = self.gather(plan.views[mixed, 1], plan.photos[mixed, 1])
            maps[mixed] = maps[mixed].lerp(other, torch.from_numpy(plan.share[mixed])[:, None, None, None])
        return maps

    def teacher(self, plan: Plan, classes: int) -> Tensor:
        """The published classifier's likeliest classes, the rest dropped. → [F, C]

        Rows of zeros are not to be counted: transitions, and frames that count for another process.
        """
        out = torch.zeros(len(plan.share), classes)
        for row in np.flatnonzero(plan.plain & plan.first):
            v, p = plan.views[row, 0], plan.photos[row, 0]
            out[row, self.teacher_classes[v][p]] = torch.from_numpy(self.teacher_shares[v][p])
        return out


def build_cache(
    folder: Path,
    photos: CaptionedPhotos,
    image: ImageBackbone,
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
    image = copy.deepcopy(image).eval().channels_last()
    if config.train.precision == "bfloat16":
        image = image.bfloat16()
    if not (folder / "plain.npy").exists():
        size = model.image_size
        plain = np.stack([np.full((size, size, 3), grey, np.uint8) for grey in PLAIN.values()])
        with torch.inference_mode():
            _write(folder / "plain.npy", _half(image.prepare(torch.from_numpy(plain))))
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
                out = image.prepare(torch.from_numpy(np.stack(frames)))
                pooled = image(out)[0]
            top = torch.softmax(pooled @ weight.T + bias, -1).topk(min(TEACHER_CLASSES, len(bias)))
            maps.append(_half(out))
            shares.append((top.values / top.values.sum(-1, keepdim=True)).numpy())
            classes.append(top.indices.numpy())
            if start % 1024 == 0:
                report(f"cache view {view + 1}/{config.data.views} photo {start}/{len(photos)}")
        np.save(folder / f"shares_{view}.npy", np.concatenate(shares))
        np.save(folder / f"classes_{view}.npy", np.concatenate(classes))
        _write(target, np.concatenate(maps))
    return ViewCache(folder, config.data.views)


def _half(maps: Tensor) -> NDArray[np.float16]:
    """Shape [B, C, h', w'] → [B, h', w', C]."""
    rows: NDArray[np.float16] = maps.permute(0, 2, 3, 1).half().numpy()
    return rows


def _write(target: Path, array: NDArray[np.float16]) -> None:
    """Write beside the final name, then rename: a file that is there is whole."""
    partial = target.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.replace(target)
