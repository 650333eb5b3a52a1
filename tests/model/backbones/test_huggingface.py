"""ViT and BERT in Hugging Face's layout: every form of their folders, and what is wrong with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from model.backbones import build_image, with_shapes
from model.backbones.huggingface import find_folder
from model.backbones.vit import VitShape
from tests.support.tiny_transformers import bert, build_bert, config, load_vit, vit

__all__ = ["bert", "vit"]


def save_pickled(source: Path, folder: Path) -> None:
    torch.save(load_file(source / "model.safetensors"), folder / "pytorch_model.bin")


def save_split(source: Path, folder: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    parts = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(parts.values()):
        save_file({n: t for n, t in tensors.items() if parts[n] == part}, folder / part)
    index = json.dumps({"weight_map": parts})
    (folder / "model.safetensors.index.json").write_text(index)


def save_wrapped(source: Path, folder: Path) -> None:
    """As in a model with a head around it."""
    tensors = load_file(source / "model.safetensors")
    prefix = json.loads((source / "config.json").read_text())["model_type"]
    wrapped = {f"{prefix}.{name}": t for name, t in tensors.items()} | {"classifier.bias": torch.zeros(2)}
    save_file(wrapped, folder / "model.safetensors")


def save_old_names(source: Path, folder: Path) -> None:
    """The first BERTs name a norm's scale and shift as TensorFlow does."""
    tensors = load_file(source / "model.safetensors")
    for name in [n for n in tensors if "LayerNorm" in n]:
        new = name.replace("weight", "gamma").replace("bias", "beta")
        tensors[new] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("save", [save_pickled, save_split, save_wrapped, save_old_names])
def test_all_layouts_of_weights_are_read(
    tmp_path: Path, vit: tuple[Any, Path], bert: tuple[Any, Path], save: Any
) -> None:
    for kind, source in (("vit", vit[1]), ("bert", bert[1])):
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("config.json", "preprocessor_config.json"):
            if (source / name).exists():
                shutil.copy(source / name, folder)
        save(source, folder)
    loaded, expected = load_vit(tmp_path / "vit"), load_vit(vit[1])
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    text, other = build_bert(config(bert=bert[1])), build_bert(config(bert=tmp_path / "bert"))
    text.load(bert[1])
    other.load(tmp_path / "bert")
    for name, tensor in text.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_vit_reads_the_names_that_transformers_uses_in_memory(tmp_path: Path, vit: tuple[Any, Path]) -> None:
    model, folder = vit
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    expected = load_vit(folder).state_dict()
    for name, tensor in load_vit(tmp_path).state_dict().items():
        assert torch.equal(expected[name], tensor), name


def test_settings_carry_the_sizes_so_that_a_checkpoint_needs_no_folder(
    tmp_path: Path, vit: tuple[Any, Path], bert: tuple[Any, Path]
) -> None:
    folders = tmp_path / "vit", tmp_path / "bert"
    for source, target in zip((vit[1], bert[1]), folders, strict=True):
        shutil.copytree(source, target)
    settings = with_shapes(config(*folders))
    assert "hidden=24,layers=3,heads=4,intermediate=40,patch=8" in settings.backbone_shape
    for target in folders:
        shutil.rmtree(target)
    build_image(settings).load_state_dict(load_vit(vit[1]).state_dict())
    text = build_bert(settings)
    text.load(bert[1])
    assert (text.vocabulary, text.width, len(text.layers)) == (60, 24, 4)


def test_sizes_without_weights_are_those_of_the_paper() -> None:
    assert VitShape() == VitShape(768, 12, 12, 3072, 16)
    with torch.device("meta"):
        image = build_image(config(image_size=224))
        text = build_bert(config(), hand_over=6)
    assert (image.width, text.width, text.vocabulary, len(text.layers)) == (768, 768, 30522, 6)
    # ViT-B/16 without head and pooler.
    assert sum(p.numel() for p in image.parameters()) == 85_798_656


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "clip"}, "model_type is 'clip'; this encoder reads vit"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ({"hidden_size": None}, "hidden_size is None: it must be a positive whole number"),
        ({"num_attention_heads": 5}, "hidden=24 must be a multiple of heads=5"),
        ({"num_hidden_layers": 4}, "holds other weights than this ViT"),
        ({"num_channels": 1}, "num_channels is 1; frames have 3"),
    ],
)
def test_another_network_is_refused(
    tmp_path: Path, vit: tuple[Any, Path], change: dict[str, Any], message: str
) -> None:
    shutil.copytree(vit[1], tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_vit(tmp_path)


def damage(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json in"),
        ("config.json", b"{", "config.json cannot be read as JSON"),
        ("config.json", b"[]", "config.json must hold an object, not list"),
        ("model.safetensors", None, r"no model.safetensors and no pytorch_model.bin in"),
        ("model.safetensors", b"x" * 20, "model.safetensors cannot be read as weights"),
        ("preprocessor_config.json", b'{"image_std": [0, 1, 1]}', "image_std is .* must be three numbers"),
    ],
)
def test_damaged_folders_are_named(
    tmp_path: Path, vit: tuple[Any, Path], name: str, content: bytes | None, message: str
) -> None:
    shutil.copytree(vit[1], tmp_path, dirs_exist_ok=True)
    damage(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        load_vit(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_pickled_code_is_never_run(tmp_path: Path, vit: tuple[Any, Path]) -> None:
    shutil.copytree(vit[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"embeddings.cls_token": Trap(tmp_path / "sprung")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin cannot be read as weights"):
        load_vit(tmp_path)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("source", ["./missing", "/missing/vit", "~/missing", "a/b/c"])
def test_a_missing_folder_is_named(source: str) -> None:
    with pytest.raises(ValueError, match=r"no such folder; pass a folder .* as model.backbone_weights=DIR"):
        find_folder(source, "model.backbone_weights")


def test_a_name_that_cannot_be_fetched_names_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=r"text_weights=google-bert/none: cannot be fetched .*HF_HUB_OFFLINE=0 .* as text_weights=DIR",
    ):
        find_folder("google-bert/none", "text_weights")


def test_a_name_already_fetched_is_found_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bert: tuple[Any, Path]
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--someone--tiny", "0" * 40
    shutil.copytree(bert[1], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    folder = find_folder("someone/tiny", "text_weights")
    assert build_bert(config(bert=folder)).width == 24
    build_bert(config(bert="someone/tiny")).load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "image_size=30 must be a multiple of 8"),
        ({"frozen_stages": 5}, "frozen_stages=5 must be 0 to this ViT's 3 layers"),
        ({"backbone_shape": "width=3"}, "backbone_shape: unknown size 'width'"),
        ({"backbone_shape": "hidden=many"}, "'hidden=many' must be hidden=<int>"),
        ({"backbone_shape": "hidden=0"}, "hidden=0 must be positive"),
        ({"context_length": 21}, "context_length=21 exceeds the text encoder's positions: use at most 20"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    vit: tuple[Any, Path], bert: tuple[Any, Path], settings: dict[str, Any], message: str
) -> None:
    chosen = config(vit[1], bert[1], **settings)
    with pytest.raises(ValueError, match=message):
        (build_bert if "context_length" in settings else build_image)(chosen)
