"""Outputs of the frozen stages for stills, computed once: early stages take most of a backbone's time.

Shapes: F packed frames, C channels or classes, Hv the backbone's width.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.arrays import Rows
from model.backbones import ImageBackbone
from model.data.films import PLAIN, FilmPlan
from model.data.stills import CaptionedStills
from model.data.views import VIEW_SEED, VIEWS_VERSION, view_of
from model.progress import Report
from model.runtime.files import replacing
from model.settings import RunSettings

TEACHER_CLASSES = 8
# Images in one pass of the early stages: their large maps stay in a CPU's caches.
_CHUNK = 8


@dataclass(frozen=True)
class FrozenStages:
    """The stages of a model that never train.

    Attributes:
        image: the backbone; `prepare` runs its frozen stages.
        classifier: rows [C, Hv] and biases [C] of its published classifier.
        key: what decides the outputs, besides the image size.
        teacher_classes: C, if training reads the classifier's shares for each frame; 0: it does not.
    """

    image: ImageBackbone
    classifier: tuple[Tensor, Tensor]
    key: tuple[str | int, ...]
    teacher_classes: int = 0


class ViewCache:
    """Outputs of the frozen stages for the views of every image: 0 is the image, the others are augmented."""

    def __init__(self, folder: Path, views: int, teacher_classes: int = 0) -> None:
        self.maps = [np.load(folder / f"maps_{v}.npy", mmap_mode="r") for v in range(views)]
        self.blank = np.load(folder / "plain.npy")
        self.teacher_classes = [np.load(folder / f"classes_{v}.npy") for v in range(views)]
        self.teacher_shares = [np.load(folder / f"shares_{v}.npy") for v in range(views)]
        self._num_classes = teacher_classes

    def gather(self, views: Rows, images: Rows) -> Tensor:
        """Maps of some views, in channels-last memory; negative images are plain frames.

        Shapes [F], [F] → float [F, C, h', w'].
        """
        blank = list(PLAIN)
        rows = np.stack(
            [
                self.maps[v][p] if p >= 0 else self.blank[blank.index(p)]
                for v, p in zip(views.tolist(), images.tolist(), strict=True)
            ]
        )
        # NumPy converts, since PyTorch would start threads of its own in every thread that makes batches.
        return torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2)

    def frames(self, plan: FilmPlan) -> Tensor:
        """A plan's packed frames. → float [F, C, h', w'].

        A transition mixes maps instead of pixels: that costs nothing, and comes close after early stages.
        """
        maps = self.gather(plan.views[:, 0], plan.images[:, 0])
        mixed = np.flatnonzero(plan.share)
        if len(mixed):
            other = self.gather(plan.views[mixed, 1], plan.images[mixed, 1])
            maps[mixed] = maps[mixed].lerp(other, torch.from_numpy(plan.share[mixed])[:, None, None, None])
        return maps

    def plain(self, images: Rows) -> Tensor:
        """Maps of images as they are. Shape [F] → float [F, C, h', w']."""
        return self.gather(np.zeros_like(images), images)

    def teacher(self, plan: FilmPlan) -> Tensor | None:
        """The published classifier's shares of its likeliest classes; None without a classifier. → [F, C]

        Rows of zeros do not count: transitions, and frames that count for another process.
        """
        if not self._num_classes:
            return None
        out = torch.zeros(len(plan.share), self._num_classes)
        for row in np.flatnonzero(plan.plain & plan.first):
            v, p = plan.views[row, 0], plan.images[row, 0]
            out[row, self.teacher_classes[v][p]] = torch.from_numpy(self.teacher_shares[v][p])
        return out


def build_cache(
    folder: Path, stills: CaptionedStills, stages: FrozenStages, config: RunSettings, report: Report
) -> ViewCache:
    """Open the cache and compute what is missing; after an interruption, only the missing views.

    Views are the same for every `train.seed`, so that runs of several seeds share a cache.
    """
    size, seed = config.model.image_size, VIEW_SEED
    key = json.dumps([*stages.key, size, [image.name for image in stills.images], seed, VIEWS_VERSION])
    folder = folder / hashlib.sha256(key.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    weight, bias = stages.classifier
    image = copy.deepcopy(stages.image).eval().channels_last()
    if config.train.precision == "bfloat16":
        image = image.bfloat16()
    if not (folder / "plain.npy").exists():
        blank = np.stack([np.full((size, size, 3), grey, np.uint8) for grey in PLAIN.values()])
        with torch.inference_mode():
            _write(folder / "plain.npy", _half(image.prepare(torch.from_numpy(blank))))
    for view in range(config.data.views):
        target = folder / f"maps_{view}.npy"
        if target.exists():
            continue
        maps: list[NDArray[np.float16]] = []
        shares, classes = [], []
        for start in range(0, len(stills.images), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(stills.images)))
            frames = np.stack([view_of(stills, row, view, size, seed) for row in rows])
            with torch.inference_mode():
                out = image.prepare(torch.from_numpy(frames))
                pooled = image(out)[0]
            top = torch.softmax(pooled @ weight.T + bias, -1).topk(min(TEACHER_CLASSES, len(bias)))
            maps.append(_half(out))
            shares.append((top.values / top.values.sum(-1, keepdim=True)).numpy())
            classes.append(top.indices.numpy())
            if start % 1024 == 0:
                report(f"cache view {view + 1}/{config.data.views} image {start}/{len(stills.images)}")
        _write(folder / f"shares_{view}.npy", np.concatenate(shares))
        _write(folder / f"classes_{view}.npy", np.concatenate(classes))
        _write(target, np.concatenate(maps))
    return ViewCache(folder, config.data.views, stages.teacher_classes)


def _half(maps: Tensor) -> NDArray[np.float16]:
    """Shape [B, C, h', w'] → [B, h', w', C]."""
    rows: NDArray[np.float16] = maps.permute(0, 2, 3, 1).half().numpy()
    return rows


def _write(path: Path, array: NDArray[Any]) -> None:
    """Write an array whole. Runs that share a cache may write the same one."""
    with replacing(path, shared=True) as temporary:
        np.save(temporary, array)
