"""A model of open_clip (PE-Core, in the small) compared with the package's own forward.

The package needs torchvision; where it is not installed, this is skipped.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from model.importers.importing import import_checkpoint
from model.importers.sources import find_checkpoint
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.published import SHARE, TEXTS
from tests.support.tiny_transformers import stir

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 384,
            "timm_model_name": "vit_pe_core_tiny_patch16_384",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": None,
        },
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        "custom_text": True,
    },
    "preprocess_cfg": {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is optional, and needs torchvision")
    made = tmp_path_factory.mktemp("pe_core")
    (made / "open_clip_config.json").write_text(json.dumps(CONFIG))
    model = stir(open_clip.create_model(f"local-dir:{made}", load_weights=False), SHARE)
    save_file(model.state_dict(), made / "open_clip_model.safetensors")
    return made


def test_a_bundle_equals_open_clip(folder: Path, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    import_checkpoint(find_checkpoint(str(folder)), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    frames = bundle.manifest.image.resizing.frames(photo[None])
    texts = [text for text in TEXTS if len(text) < 100]
    with torch.no_grad():
        shown = F.normalize(model.eval().encode_image(transform(Image.fromarray(photo))[None]), dim=-1)
        said = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    np.testing.assert_allclose(bundle.encode_frames(frames).embedding, shown.numpy(), atol=1e-4)
    np.testing.assert_allclose(bundle.encode_text(texts).embedding, said.numpy(), atol=1e-4)


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(CONFIG))
    wrong["model_cfg"]["embed_dim"] = 24
    (tmp_path / "open_clip_config.json").write_text(json.dumps(wrong))
    (tmp_path / "open_clip_model.safetensors").symlink_to(folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"not read by open_clip .* download the checkpoint again"):
        import_checkpoint(find_checkpoint(str(tmp_path)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_package_is_asked_for(tmp_path: Path) -> None:
    if importlib.util.find_spec("open_clip") is not None:
        pytest.skip("open_clip_torch is installed")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file({"x": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="pip install open_clip_torch"):
        import_checkpoint(find_checkpoint(str(tmp_path)), tmp_path / "bundle")
