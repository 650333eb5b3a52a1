"""FEEL's objectives in LGDN: what they read, what they train, and that search does not need the converter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from model.families.feel.objective import ConversionLosses
from model.families.lgdn.config import LossConfig
from model.families.lgdn.conversion import build_converter, conversion_losses
from model.families.lgdn.family import LGDNFamily
from model.families.lgdn.objective import Objective
from model.families.lgdn.weights import load_start_weights
from model.settings import to_mapping
from model.training.checkpoints import load_checkpoint, load_checkpoints
from tests.support.tiny_lgdn import tiny_batch, tiny_model, tiny_model_config
from tests.support.tiny_photos import tiny_config


@pytest.mark.parametrize(("dim", "heads"), [(16, 1), (64, 2), (100, 2), (256, 8)])
def test_a_converter_fits_the_joint_space(dim: int, heads: int) -> None:
    config = tiny_model_config(dim=dim, converter_layers=3, frames=4, context_length=12, dropout=0.2)
    converter = build_converter(config)
    assert converter is not None
    shape = converter.shape
    assert (shape.hidden, shape.heads, shape.positions, shape.dropout) == (dim, heads, 12, 0.2)
    assert [len(part.layers) for part in (converter.cross.stack, converter.video_to_text)] == [3, 3]
    assert build_converter(tiny_model_config()) is None


@pytest.mark.parametrize("fusion", ["joint", "cross_attention"])
def test_words_are_the_texts_embedding_and_its_tokens_in_the_joint_space(fusion: str) -> None:
    model, batch = tiny_model(fusion=fusion).eval(), tiny_batch([1, 2, 3])
    text = model.online.encode_text(batch.input_ids, batch.attention_mask)
    words = model.online.words(text)
    tokens, _ = model.online.text(batch.input_ids, batch.attention_mask)
    for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
        torch.testing.assert_close(words[row, 0], text.embedding[row])
        for place in range(1, length):
            spoken = model.online.text_projection(tokens[row, place])
            torch.testing.assert_close(words[row, place], spoken / spoken.norm(), rtol=1e-4, atol=1e-5)


def test_losses_are_squared_distances_of_unit_vectors() -> None:
    """Of a converter that gives back what it reads, the reconstruction is the distance of the two means."""
    config = tiny_model_config(converter_layers=1)
    converter = build_converter(config)
    assert converter is not None
    for stack in (converter.cross.stack, converter.video_to_text, converter.text_to_video):
        stack.layers = torch.nn.ModuleList()
    converter.cross.norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        converter.cross.positions.zero_()
        converter.cross.modalities.zero_()
    frames = torch.nn.functional.normalize(torch.randn(3, 4, config.dim), dim=-1)
    words = torch.nn.functional.normalize(torch.randn(3, 9, config.dim), dim=-1)
    losses = conversion_losses(
        ConversionLosses(1.0, 0.0), converter, frames, words, torch.ones(3, 4), torch.ones(3, 9)
    )
    expected = (frames.mean(1) - words.mean(1)).square().sum(1).mean()
    torch.testing.assert_close(losses["gmr_t2v"], expected)
    torch.testing.assert_close(losses["gmr_v2t"], expected)


@pytest.mark.parametrize("loss", [LossConfig(gmr=1.0), LossConfig(cs=1.0, cs_margin=5.0)])
def test_they_train_the_converter_and_the_towers_and_no_average(loss: LossConfig) -> None:
    model = tiny_model(converter_layers=1)
    losses = Objective(model, loss)(tiny_batch([1, 2, 3]), 0, epoch=1)
    losses["gmr" if loss.gmr else "cs"].backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    converter = {f"converter.{name}" for name, _ in model.converter.named_parameters()}  # type: ignore[union-attr]
    assert converter <= moved
    assert {"online.text_projection.weight", "online.frame_projection.weight"} <= moved
    assert not any(name.startswith(("momentum.", "fusion", "online.temporal.")) for name in moved)


def test_losses_that_are_off_are_not_computed() -> None:
    names = {"gmr_t2v", "gmr_v2t", "gmr", "cs_t2v", "cs_v2t", "cs"}
    model = tiny_model(converter_layers=1)
    for loss, on in (
        (LossConfig(gmr=1.0), {"gmr_t2v", "gmr_v2t", "gmr"}),
        (LossConfig(gmr=1.0, cs=1.0), names),
    ):
        losses = Objective(model, loss)(tiny_batch([1, 2, 3]), 0, epoch=1)
        assert names & losses.keys() == on
    assert not names & Objective(tiny_model(), LossConfig())(tiny_batch([1, 2]), 0, epoch=1).keys()


def test_search_has_no_part_in_the_converter() -> None:
    """The graphs of a model with a converter are those of the same model without it."""
    model, plain = tiny_model(converter_layers=1), tiny_model(momentum=0.5)
    load_start_weights(plain, model.state_dict())
    family = LGDNFamily()
    graphs, others = (family.graphs(each.eval()) for each in (model, plain))
    assert graphs.keys() == others.keys()
    for name, graph in graphs.items():
        assert not any("converter" in weight for weight in graph.module.state_dict()), name
        with torch.no_grad():
            torch.testing.assert_close(graph.module(*graph.example), others[name].module(*graph.example))


def test_runs_start_from_checkpoints_with_and_without_a_converter() -> None:
    with_one, without = tiny_model(converter_layers=1), tiny_model()
    load_start_weights(tiny_model(), with_one.state_dict())
    new = tiny_model(converter_layers=1)
    before = new.converter.cross.positions.clone()  # type: ignore[union-attr]
    load_start_weights(new, without.state_dict())
    assert torch.equal(new.converter.cross.positions, before)  # type: ignore[union-attr]
    with torch.no_grad():
        with_one.converter.cross.positions.add_(1.0)  # type: ignore[union-attr]
    load_start_weights(new, with_one.state_dict())
    assert torch.equal(new.converter.cross.positions, before + 1.0)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"weights such as converter\..* differ"):
        load_start_weights(tiny_model(converter_layers=2), with_one.state_dict())


def test_checkpoints_are_averaged_whichever_of_them_has_a_converter(tmp_path: Path) -> None:
    config, models = tiny_config(Path(), Path()), []
    for name, layers in (("with", 1), ("without", 0)):
        network = replace(config.model, converter_layers=layers)
        settings = to_mapping(replace(config, model=network, loss=replace(config.loss, gmr=float(layers))))
        torch.manual_seed(layers)
        models.append(LGDNFamily().build(network))
        torch.save({"config": settings, "model": models[-1].state_dict()}, tmp_path / f"{name}.pt")
    paths = [tmp_path / "with.pt", tmp_path / "without.pt"]
    for order in (paths, paths[::-1]):
        _, mean = load_checkpoints(order)
        a, b = (each.online.text_projection.weight for each in models)
        torch.testing.assert_close(mean.get_parameter("online.text_projection.weight"), (a + b) / 2)


def test_a_checkpoint_from_before_loads(tmp_path: Path) -> None:
    """It names none of the settings of the converter."""
    config = tiny_config(Path(), Path())
    older = to_mapping(config)
    for group, names in (
        ("model", ("converter_layers", "converter_target_masked")),
        ("loss", ("gmr", "cs", "cs_margin")),
    ):
        for name in names:
            del older[group][name]
    model = LGDNFamily().build(config.model)
    torch.save({"config": older, "model": model.state_dict()}, tmp_path / "old.pt")
    found, loaded = load_checkpoint(tmp_path / "old.pt")
    assert found == config
    assert loaded.state_dict().keys() == model.state_dict().keys()
