"""LGDN that starts from CLIP or BLIP, against transformers with the same tiny random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import load_config
from model.families.lgdn.config import ModelConfig
from model.families.lgdn.family import LGDNFamily
from model.families.lgdn.fusion import BlipFusion
from model.families.lgdn.network import LGDN
from model.families.lgdn.start import load_start_model, start_tokenizer
from model.families.lgdn.weights import load_published, sources
from model.importers.sources import find_checkpoint
from model.runtime.bundle import default_bundle_path
from model.runtime.bundle.manifest import Provenance, SourceRecord
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from tests.support.paths import ROOT
from tests.support.tiny_image_text import CLS, CONTEXT, DIM, ENC, clip_pixels, save_blip, save_clip
from tests.support.tiny_transformers import frames_of

RECIPES = ROOT / "model" / "recipes"
CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-4}
TEXTS = ["a red clip", "the first time for the second blue clip", "white"]
# Sizes of the tests, and what is not decided by the model to start from.
SMALL = [f"model.context_length={CONTEXT - 4}", "model.frames=4", "model.bank_size=128"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("clip")
    return save_clip(folder), folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("blip")
    return save_blip(folder), folder


def settings_of(
    folder: Path | str, *changes: str, recipe: str = "clip4clip_msrvtt_1ka", small: Sequence[str] = SMALL
) -> ModelConfig:
    config = load_config(RECIPES / f"{recipe}.yaml", [f"model.start_from={folder}", *small, *changes])
    assert isinstance(config.model, ModelConfig)
    return config.model


def started(folder: Path | str, *changes: str, recipe: str = "clip4clip_msrvtt_1ka") -> LGDN:
    model = LGDN(settings_of(folder, *changes, recipe=recipe))
    load_published(model)
    return model.eval()


def tokens_of(config: ModelConfig) -> tuple[Tensor, Tensor]:
    batch = TextTokenizer.from_file(start_tokenizer(config), config.context_length)(TEXTS)
    return torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)


@pytest.mark.parametrize(
    ("activation", "end", "size"), [("quick_gelu", 2, 32), ("gelu", None, 48)], ids=["openai", "laion"]
)
@torch.no_grad()
def test_from_clip_it_is_clip4clip_with_the_mean_of_frames(
    tmp_path: Path, activation: str, end: int | None, size: int
) -> None:
    """Also at another size of the image, and with activation and end token as either kind states them."""
    published = save_clip(tmp_path, activation=activation, end=end)
    model = started(tmp_path, f"model.image_size={size}")
    frames, (ids, mask) = frames_of(size, 6), tokens_of(model.config)
    features = model.online.encode_frames(frames)
    pixels = clip_pixels(frames)
    image = published.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(features.embedding, F.normalize(image, dim=-1), **CLOSE)
    text = published.get_text_features(ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(
        model.online.encode_text(ids, mask).embedding, F.normalize(text, dim=-1), **CLOSE
    )
    segments = model.online.encode_segment(
        features.temporal_input.reshape(2, 3, DIM), torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    )
    for row, count in ((0, 3), (1, 2)):
        mean = F.normalize(image, dim=-1)[3 * row : 3 * row + count].mean(0)
        torch.testing.assert_close(segments[row], F.normalize(mean, dim=-1), **CLOSE)
    torch.testing.assert_close(1 / model.temperature, published.logit_scale.exp(), rtol=1e-5, atol=0.0)
    for own, momentum in zip(model.online.parameters(), model.momentum.parameters(), strict=True):
        assert torch.equal(own, momentum)


@torch.no_grad()
def test_from_blip_it_is_blip_with_the_mean_of_frames(blip: tuple[Any, Path]) -> None:
    published, folder = blip
    model = started(folder, f"model.fusion_start={CLS}")
    frames, (ids, mask) = frames_of(32, 3), tokens_of(model.config)
    features, text = model.online.encode_frames(frames), model.online.encode_text(ids, mask)
    pixels = clip_pixels(frames)
    cosine = published(ids, pixels, use_itm_head=False, attention_mask=mask).itm_score
    torch.testing.assert_close(features.embedding @ text.embedding.T, cosine, **CLOSE)
    projected = published.vision_proj(published.vision_model(pixels).last_hidden_state[:, 0])
    segment = model.online.encode_segment(features.temporal_input[None], torch.ones(1, 3))
    torch.testing.assert_close(segment[0], F.normalize(projected.mean(0), dim=-1), **CLOSE)
    for fusion in (model.fusion, model.fusion_average):
        logits = fusion(ids, mask, features.tokens)
        matched = published(ids, pixels, attention_mask=mask).itm_score
        torch.testing.assert_close(logits, matched, **CLOSE)
    assert model.config.match_score == "matched"


@torch.no_grad()
def test_blips_fusion_reads_enc_in_place_of_cls_unless_told_otherwise(blip: tuple[Any, Path]) -> None:
    published, folder = blip
    model = started(folder)
    frames, (ids, mask) = frames_of(32, 3), tokens_of(model.config)
    enc = torch.cat([torch.full((3, 1), ENC), ids[:, 1:]], 1)
    matched = published(enc, clip_pixels(frames), attention_mask=mask).itm_score
    torch.testing.assert_close(
        model.fusion(ids, mask, model.online.encode_frames(frames).tokens), matched, **CLOSE
    )
    with pytest.raises(InputError, match=rf"fusion_start={ENC + 1} is no id of the text encoder's {ENC + 1}"):
        LGDN(dataclasses.replace(model.config, fusion_start=ENC + 1))


def test_the_model_replaces_the_settings_of_a_recipe(clip: tuple[Any, Path], blip: tuple[Any, Path]) -> None:
    """LGDN's own recipe names a ViT and a BERT, and a fusion, which stays and starts from random weights."""
    config = settings_of(clip[1], recipe="msrvtt_1ka")
    assert (config.backbone, config.text, config.dim, config.fusion_from_text) == ("clip", "clip", DIM, 0)
    assert (config.image_size, config.fusion, config.temperature) == (224, "cross_attention", 0.07)
    config = settings_of(blip[1], recipe="msrvtt_1ka")
    assert (config.backbone, config.text, config.text_pooling) == ("vit", "bert", "cls")
    assert not isinstance(LGDN(config).fusion, BlipFusion)
    config = settings_of(blip[1])
    assert (config.image_size, config.fusion, config.normalise_frames) == (32, "blip", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "model.dim=256",
            rf"model\.dim=256 contradicts model\.start_from=.*, which has {DIM}: leave model\.dim",
        ),
        ("model.backbone=vit", r"model\.backbone=vit contradicts"),
        ("model.text_weights=bert-base-uncased", r"model\.text_weights=bert-base-uncased contradicts"),
        ("model.fusion=blip", r"model\.fusion=blip is a BERT of its own: set model\.text=bert"),
        (f"model.context_length={CONTEXT + 1}", rf"use at most {CONTEXT}"),
    ],
)
def test_settings_that_contradict_it_are_refused(clip: tuple[Any, Path], change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LGDN(settings_of(clip[1], change))


def test_a_recipe_must_not_contradict_itself(clip: tuple[Any, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: {{start_from: {clip[1]}, dim: 256, text: minilm}}")
    with pytest.raises(InputError, match=r"model\.(dim|text)=.* contradicts"):
        load_config(recipe)


def test_a_run_keeps_all_settings_and_needs_the_model_no_more(clip: tuple[Any, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip[1], copy)
    config = settings_of(copy)
    shutil.rmtree(copy)
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps({"model": dataclasses.asdict(config)}))
    assert load_config(again).model == config
    rebuilt = LGDN(config)
    rebuilt.load_state_dict(started(clip[1]).state_dict())
    with pytest.raises(InputError, match=r"model\.start_from=.*copy: no such folder"):
        load_start_model(rebuilt)


def test_another_model_can_take_the_place_of_a_runs_own(
    clip: tuple[Any, Path], blip: tuple[Any, Path], tmp_path: Path
) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps({"model": dataclasses.asdict(settings_of(clip[1]))}))
    model = load_config(again, [f"model.start_from={blip[1]}"]).model
    assert (model.backbone, model.text, model.start_weights[0]) == ("vit", "bert", f"BLIP {blip[1].name}")


def test_a_model_that_has_changed_since_is_refused(clip: tuple[Any, Path]) -> None:
    changed = dataclasses.replace(settings_of(clip[1]), text_shape="end=3")
    with pytest.raises(InputError, match=r"model\.text_shape='end=3' is not that of model\.start_from"):
        load_start_model(LGDN(dataclasses.replace(changed, context_length=16)))


def test_provenance_names_weights_licence_and_revision(
    clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my-clip"
    shutil.copytree(clip[1], folder)
    assert sources(settings_of(folder)) == [
        {"name": "CLIP my-clip", "licence": "not stated", "source": "a folder"}
    ]
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [vision]\n---\n# CLIP\n")
    assert sources(settings_of(folder))[0]["licence"] == "mit"
    # By name, as the hub's cache holds it.
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--someone--clip", "a" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    config = settings_of("someone/clip")
    assert config.start_from == f"someone/clip@{commit}"
    assert sources(config) == [
        {
            "name": "CLIP someone/clip",
            "licence": "mit",
            "source": "https://huggingface.co/someone/clip",
            "revision": commit,
        }
    ]
    load_published(LGDN(config))
    # A bundle that was imported from it stands for it.
    monkeypatch.setattr("model.importers.sources.HUB_OFFLINE", True)
    bundle = bundle_in(tmp_path / "bundle", find_checkpoint("someone/clip").provenance())
    assert settings_of(bundle) == config
    bundle = bundle_in(tmp_path / "older", imported("someone/clip", "b" * 40))
    with pytest.raises(InputError, match=r"bundle .* was imported from someone/clip: .*cannot be fetched"):
        settings_of(bundle)


@pytest.mark.parametrize(
    ("recipe", "name", "revision", "message"),
    [
        ("trained", "clip", None, "is a bundle that was not imported: pass the weights it was made of"),
        ("{}", "clip", None, "is a bundle that was not imported: pass the weights it was made of"),
        (None, "../up", "0", "was imported from the folder 'up': pass that folder"),
        (None, "my-clip", "0", "was imported from the folder 'my-clip': pass that folder"),
    ],
)
def test_a_bundle_that_does_not_lead_to_weights(
    tmp_path: Path, recipe: str | None, name: str, revision: str | None, message: str
) -> None:
    provenance = imported(name, revision)
    if recipe is not None:
        provenance = provenance.model_copy(update={"recipe": recipe})
    bundle = bundle_in(tmp_path / "bundle", provenance)
    with pytest.raises(InputError, match=message):
        settings_of(bundle)


def bundle_in(folder: Path, provenance: Provenance) -> Path:
    """The manifest of the bundle that comes with the program, with another provenance."""
    folder.mkdir()
    manifest = json.loads((default_bundle_path() / "bundle.json").read_text())
    manifest["provenance"] = provenance.model_dump(mode="json")
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def imported(name: str, revision: str | None) -> Provenance:
    """As an import records it."""
    source = SourceRecord(name=name, licence="MIT", source="somewhere", revision=revision)
    recipe = json.dumps({"import": name, "family": "clip"})
    return Provenance(recipe=recipe, data=(), weights=(source,), commit="unknown", metrics={})


def test_a_bundle_imported_from_a_folder_asks_for_the_folder(clip: tuple[Any, Path], tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path / "bundle", find_checkpoint(str(clip[1])).provenance())
    with pytest.raises(InputError, match=rf"from the folder '{clip[1].name}': pass that folder, as"):
        settings_of(bundle)


def without(folder: Path, name: str, replaced: Tensor | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    if replaced is not None:
        tensors[name] = replaced
    save_file(tensors, folder / "model.safetensors")


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for name, value in changes.items():
        part, _, key = name.partition("__")
        (values[part] if key else values)[key or part] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: without(f, "text_projection.weight"), r"lack text_projection\.weight, which"),
        (lambda f: without(f, "logit_scale"), r"have no number logit_scale"),
        (
            lambda f: without(f, "visual_projection.weight", torch.zeros(3, 16)),
            r"are not those that its config\.json describes: size mismatch",
        ),
        (lambda f: changed(f, vision_config__num_hidden_layers=3), r"lack vision_model\.encoder\.layers\.2"),
        (lambda f: changed(f, model_type="siglip"), r"model_type is 'siglip'; training starts from clip and"),
        (
            lambda f: changed(f, architectures=["CLIPVisionModel"]),
            r"architecture is CLIPVisionModel; training",
        ),
        (lambda f: changed(f, text_config__hidden_act="relu"), r"hidden_act is 'relu'; training starts from"),
        (lambda f: changed(f, vision_config__hidden_size="wide"), r"is not a configuration of clip"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 20), r"cannot be read as weights"),
        (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json in .*: write one with transformers"),
    ],
    ids=["missing", "scale", "shape", "lies", "kind", "half", "activation", "size", "damaged", "tokenizer"],
)
def test_what_is_wrong_with_a_folder_is_named(
    clip: tuple[Any, Path], tmp_path: Path, damage: Any, message: str
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip[1], folder)
    damage(folder)
    with pytest.raises(InputError, match=message):
        start_tokenizer(started(folder).config)


def test_blip_must_state_the_heads_of_its_text_encoder(blip: tuple[Any, Path], tmp_path: Path) -> None:
    """The default of transformers is 8, the published weights have 12: nothing else would tell."""
    folder = tmp_path / "blip"
    shutil.copytree(blip[1], folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["text_config"]["num_attention_heads"]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"text_config has no num_attention_heads, .*: add it, 12 for them"):
        settings_of(folder)


def test_a_checkpoint_is_not_taken_for_published_weights(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"a checkpoint of a run is train\.start_from="):
        settings_of(tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"needs a tokenizer: set model\.start_from"):
        LGDNFamily().tokenizer_path(load_config(RECIPES / "clip4clip_msrvtt_1ka.yaml").model)
