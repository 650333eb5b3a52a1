"""ViT and BERT in Hugging Face's layout, against the models of transformers with tiny random weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import onnxruntime  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from model.backbones import build_image, build_text, with_shapes  # noqa: E402
from model.backbones.bert import TextEncoder  # noqa: E402
from model.backbones.efficientnet import EfficientNetLite  # noqa: E402
from model.backbones.huggingface import find_folder  # noqa: E402
from model.backbones.vit import VisionTransformer, VitShape  # noqa: E402
from model.config import ModelConfig  # noqa: E402

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
VIT_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
}
BERT_SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


def stir(module: nn.Module) -> nn.Module:
    """Random values everywhere: a bias or a norm that is left at its start would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("vit")
    model = stir(transformers.ViTModel(transformers.ViTConfig(**VIT_SIZES)))
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return model, folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("bert")
    model = stir(transformers.BertModel(transformers.BertConfig(**BERT_SIZES)))
    model.save_pretrained(folder)
    return model, folder


def config(vit: Path | str = "", bert: Path | str = "", **settings: Any) -> ModelConfig:
    values = {"image_size": 32, "context_length": 16, "classes": 0, "frozen_stages": 0, "dropout": 0.0}
    return ModelConfig(
        backbone="vit", backbone_weights=str(vit), text="bert", text_weights=str(bert), **(values | settings)
    )


def frames_of(size: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def pixels_of(frames: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    return ((frames / 255.0 - mean) / std).permute(0, 3, 1, 2)


def load_vit(folder: Path, **settings: Any) -> VisionTransformer:
    image = build_image(config(folder, **settings))
    assert isinstance(image, VisionTransformer)
    image.load(folder)
    return image.eval()


@pytest.mark.parametrize("size", [32, 48, 16])
def test_vit_equals_transformers_at_any_image_size(vit: tuple[Any, Path], size: int) -> None:
    model, folder = vit
    image, frames = load_vit(folder, image_size=size), frames_of(size)
    with torch.no_grad():
        expected = model(pixels_of(frames), interpolate_pos_encoding=True).last_hidden_state
        pooled, cells = image(image.prepare(frames))
    assert cells.shape == (2, (size // 8) ** 2, image.width)
    torch.testing.assert_close(pooled, expected[:, 0], **CLOSE)
    torch.testing.assert_close(cells, expected[:, 1:], **CLOSE)


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
    text, other = build_text(config(bert=bert[1])), build_text(config(bert=tmp_path / "bert"))
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


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 2:] = 0, 0
    return ids, mask


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bert_equals_transformers_on_padded_texts(bert: tuple[Any, Path], pooling: str) -> None:
    model, folder = bert
    text = build_text(config(bert=folder, text_pooling=pooling)).eval()
    text.load(folder)
    ids, mask = texts()
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).last_hidden_state
        tokens, pooled = text(ids, mask)
    for row in range(len(ids)):
        real = expected[row, : int(mask[row].sum())]
        torch.testing.assert_close(tokens[row, : len(real)], real, **CLOSE)
        torch.testing.assert_close(pooled[row], real.mean(0) if pooling == "mean" else real[0], **CLOSE)


def test_layers_handed_to_the_fusion_finish_what_the_text_encoder_begins(bert: tuple[Any, Path]) -> None:
    model, folder = bert
    text = build_text(config(bert=folder, fusion_from_text=3)).eval()
    top = text.load(folder)
    assert (len(text.layers), len(top)) == (1, 3)
    ids = texts()[0]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        x = text(ids, mask)[0]
        for layer in top:
            x = layer(x, torch.zeros(len(ids), 1, 1, 1))
        torch.testing.assert_close(x, model(ids, attention_mask=mask).last_hidden_state, **CLOSE)
    with pytest.raises(ValueError, match=r"fusion_from_text=4 must be 0 to 3"):
        build_text(config(bert=folder, fusion_from_text=4))


def gradients(module: nn.Module, outputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    module.zero_grad()
    sum((o.square().sum() for o in outputs), torch.zeros(())).backward()
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["vit", "bert", "efficientnet"])
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    sizes = {
        "backbone_shape": "hidden=24,layers=3,heads=4,intermediate=40,patch=8",
        "text_shape": "vocabulary=60,hidden=24,layers=3,heads=4,intermediate=40,positions=20",
        "dropout": 0.2,
    }
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        settings = config(gradient_checkpointing=again, **sizes)
        if kind == "efficientnet":
            settings = replace(settings, backbone="tiny", image_size=64)
        module = build_text(settings) if kind == "bert" else build_image(settings)
        module.freeze()
        module.train()
        calls = count_calls(module)
        torch.manual_seed(1)
        if kind == "bert":
            out = module(*texts())
        else:
            assert not isinstance(module, TextEncoder)
            out = module(module.prepare(frames_of(settings.image_size)))
        found.append((out, gradients(module, out), calls))
    (plain, plain_grad, once), (saved, saved_grad, twice) = found
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b)
    assert plain_grad.keys() == saved_grad.keys()
    assert len(plain_grad) > 5
    for name, gradient in plain_grad.items():
        torch.testing.assert_close(gradient, saved_grad[name])
    assert len(twice) == 2 * len(once) > 0


def count_calls(module: nn.Module) -> list[str]:
    """Grows with every layer that runs, in the backward pass too."""
    calls: list[str] = []
    layers = module.blocks if isinstance(module, EfficientNetLite) else module.layers
    for layer in layers:
        layer.register_forward_pre_hook(lambda *_: calls.append("layer"))
    return calls


def test_frozen_layers_of_a_vit_run_in_prepare_and_do_not_train(vit: tuple[Any, Path]) -> None:
    folder, frames = vit[1], frames_of(32)
    whole, late = load_vit(folder), load_vit(folder, frozen_stages=2)
    with torch.no_grad():
        prepared = late.prepare(frames)
        for a, b in zip(whole(whole.prepare(frames)), late(prepared), strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    late.freeze()
    trained = {n for n, p in late.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in trained} == {"layers", "norm"}
    assert {n.split(".")[1] for n in trained if "layers" in n} == {"2"}


class ImageGraph(nn.Module):
    def __init__(self, image: VisionTransformer) -> None:
        super().__init__()
        self.image = image

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(self.image.prepare(frames))


@pytest.mark.filterwarnings("ignore")
def test_both_export_with_any_batch(tmp_path: Path, vit: tuple[Any, Path], bert: tuple[Any, Path]) -> None:
    text = build_text(config(bert=bert[1], text_pooling="cls")).eval()
    text.load(bert[1])
    text.trim(16)
    assert text.positions.num_embeddings == 16
    image = ImageGraph(load_vit(vit[1])).eval()
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    cases = (
        ("image", image, (frames_of(32),), ({0: batch},), (frames_of(32, 5),)),
        (
            "text",
            text,
            texts(),
            ({0: batch, 1: length}, {0: batch, 1: length}),
            tuple(t[:2] for t in texts()),
        ),
    )
    for name, module, example, dynamic, other in cases:
        path = tmp_path / f"{name}.onnx"
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamic_shapes=dynamic,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        for inputs in (example, other, tuple(t[:1] for t in other)):
            found = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
            with torch.no_grad():
                expected = module(*inputs)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)


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
    text = build_text(settings)
    text.load(bert[1])
    assert (text.vocabulary, text.width, len(text.layers)) == (60, 24, 4)


def test_sizes_without_weights_are_those_of_the_paper() -> None:
    assert VitShape() == VitShape(768, 12, 12, 3072, 16)
    with torch.device("meta"):
        image = build_image(config(image_size=224))
        text = build_text(config(fusion_from_text=6))
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
        ValueError, match=r"text_weights=google-bert/none: cannot be fetched .* as text_weights=DIR"
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
    assert build_text(config(bert=folder)).width == 24
    build_text(config(bert="someone/tiny")).load(folder)


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
        (build_text if "context_length" in settings else build_image)(chosen)
