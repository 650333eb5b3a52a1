"""The published backbones against references, with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from model.backbones.bert import TextEncoder, TextShape
from model.backbones.efficientnet import EfficientNetLite, InvertedResidual


def blocks_of(net: EfficientNetLite) -> list[InvertedResidual]:
    return [block for block in net.blocks if isinstance(block, InvertedResidual)]


def random_package(net: EfficientNetLite) -> dict[str, torch.Tensor]:
    """A state in the published files' names, with batch normalisation that does something."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    state: dict[str, torch.Tensor] = {}

    def add(conv: str, bn: str, module: nn.Conv2d) -> None:
        fan = module.weight[0].numel()
        state[f"{conv}.weight"] = (rand(*module.weight.shape) - 0.5) * (3 / fan) ** 0.5 * 2
        channels = len(module.weight)
        state[f"{bn}.weight"], state[f"{bn}.bias"] = rand(channels) + 0.5, rand(channels) - 0.3
        state[f"{bn}.running_mean"], state[f"{bn}.running_var"] = rand(channels) - 0.5, rand(channels) + 0.1

    add("_conv_stem", "_bn0", net.conv_stem)
    add("_conv_head", "_bn1", net.conv_head)
    for i, block in enumerate(blocks_of(net)):
        if block.expand is not None:
            add(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", block.expand)
        add(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", block.depthwise)
        add(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", block.project)
    state["_fc.weight"], state["_fc.bias"] = rand(10, net.width), rand(10)
    return state


def same_pad_conv(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    """TensorFlow's SAME, by its definition."""
    kernel = weight.shape[-1]
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        out = -(-size // stride)
        pad = max((out - 1) * stride + kernel - size, 0)
        pads += [pad // 2, pad - pad // 2]
    return F.conv2d(F.pad(x, pads), weight, None, stride, 0, 1, groups)


def reference_efficientnet(
    net: EfficientNetLite, state: dict[str, torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """The unfolded network, with batch normalisation as published."""

    def bn(y: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(y, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], False, 0.0, 1e-3)

    x = F.relu6(bn(same_pad_conv(x, state["_conv_stem.weight"], 2, 1), "_bn0"))
    for i, block in enumerate(blocks_of(net)):
        p, y = f"_blocks.{i}", x
        if f"{p}._expand_conv.weight" in state:
            y = F.relu6(bn(same_pad_conv(y, state[f"{p}._expand_conv.weight"], 1, 1), f"{p}._bn0"))
        stride = block.depthwise.stride[0]
        y = same_pad_conv(y, state[f"{p}._depthwise_conv.weight"], stride, y.shape[1])
        y = bn(
            same_pad_conv(F.relu6(bn(y, f"{p}._bn1")), state[f"{p}._project_conv.weight"], 1, 1), f"{p}._bn2"
        )
        x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
    return F.relu6(bn(same_pad_conv(x, state["_conv_head.weight"], 1, 1), "_bn1"))


@pytest.mark.parametrize("side", [64, 75])
def test_folded_efficientnet_equals_the_published_form(tmp_path: Path, side: int) -> None:
    net = EfficientNetLite("tiny")
    state = random_package(net)
    torch.save(state, tmp_path / "net.pth")
    rows, biases = net.load_package(tmp_path / "net.pth")
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = reference_efficientnet(net, state, pixels)
        final = net.trunk(net.stem(pixels, 0), 0)
        torch.testing.assert_close(final, expected, rtol=1e-4, atol=1e-4)
        cut = net.stage_starts[4]
        assert torch.equal(net.trunk(net.stem(pixels, cut), cut), final)
    assert float(expected.std()) > 0.01
    assert torch.equal(rows, state["_fc.weight"])
    assert torch.equal(biases, state["_fc.bias"])


@pytest.mark.parametrize(("variant", "parameters"), [("lite0", 4_652_008), ("lite2", 6_092_072)])
def test_sizes_of_the_published_networks(variant: str, parameters: int) -> None:
    net = EfficientNetLite(variant)
    # Folding keeps one bias a channel of batch normalisation's two parameters; the classifier is left out.
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    published = sum(m.weight.numel() + 2 * m.out_channels for m in convolutions) + 1280 * 1000 + 1000
    assert published == parameters


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="choose the matching one"):
        EfficientNetLite("tiny").load_package(tmp_path / "net.pth")
    with pytest.raises(ValueError, match="unknown backbone 'lite9'"):
        EfficientNetLite("lite9")
    save_file({"x": torch.zeros(1)}, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="choose the matching one"):
        TextEncoder(SHAPE).load(tmp_path / "text.safetensors")


SHAPE = TextShape(vocabulary=50, hidden=16, layers=2, heads=4, intermediate=24, positions=20)


def random_bert() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    h, inner = SHAPE.hidden, SHAPE.intermediate
    state = {
        "embeddings.word_embeddings.weight": rand(SHAPE.vocabulary, h),
        "embeddings.position_embeddings.weight": rand(SHAPE.positions, h),
        "embeddings.token_type_embeddings.weight": rand(2, h),
        "embeddings.LayerNorm.weight": rand(h) + 1,
        "embeddings.LayerNorm.bias": rand(h),
    }
    for i in range(SHAPE.layers):
        p = f"encoder.layer.{i}"
        sizes = {
            "attention.self.query": (h, h),
            "attention.self.key": (h, h),
            "attention.self.value": (h, h),
            "attention.output.dense": (h, h),
            "intermediate.dense": (inner, h),
            "output.dense": (h, inner),
        }
        for name, size in sizes.items():
            state[f"{p}.{name}.weight"], state[f"{p}.{name}.bias"] = rand(*size), rand(size[0])
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            state[f"{p}.{name}.weight"], state[f"{p}.{name}.bias"] = rand(h) + 1, rand(h)
    return state


def reference_bert(state: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """BERT on one unpadded sentence, written from its definition. → [L, H]."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    e = "embeddings"
    x = state[f"{e}.word_embeddings.weight"][ids] + state[f"{e}.position_embeddings.weight"][: len(ids)]
    x = norm(x + state[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    size = SHAPE.hidden // SHAPE.heads
    for i in range(SHAPE.layers):
        p = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{p}.attention.self.{n}") for n in ("query", "key", "value"))
        heads = []
        for a in range(SHAPE.heads):
            part = slice(a * size, (a + 1) * size)
            weights = torch.softmax(q[:, part] @ k[:, part].T / size**0.5, -1)
            heads.append(weights @ v[:, part])
        attended = linear(torch.cat(heads, -1), f"{p}.attention.output.dense")
        x = norm(x + attended, f"{p}.attention.output.LayerNorm")
        inner = linear(x, f"{p}.intermediate.dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm(x + linear(inner, f"{p}.output.dense"), f"{p}.output.LayerNorm")
    return x


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_text_encoder_equals_bert_and_padding_changes_nothing(tmp_path: Path, prefix: str) -> None:
    state = random_bert()
    save_file({prefix + k: v for k, v in state.items()}, tmp_path / "text.safetensors")
    encoder = TextEncoder(SHAPE).eval()
    encoder.load(tmp_path / "text.safetensors")
    sentences = [[3, 7, 9, 11, 2], [5, 6]]
    ids, mask = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6, dtype=torch.int64)
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)], mask[row, : len(sentence)] = torch.tensor(sentence), 1
    with torch.no_grad():
        tokens, pooled = encoder(ids, mask)
    for row, sentence in enumerate(sentences):
        expected = reference_bert(state, sentence)
        torch.testing.assert_close(tokens[row, : len(sentence)], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pooled[row], expected.mean(0), rtol=1e-4, atol=1e-4)


def test_text_encoder_equals_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.hidden,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        intermediate_size=SHAPE.intermediate,
        max_position_embeddings=SHAPE.positions,
    )
    bert = transformers.BertModel(config).eval()
    save_file({k: v.contiguous() for k, v in bert.state_dict().items()}, tmp_path / "text.safetensors")
    encoder = TextEncoder(SHAPE).eval()
    encoder.load(tmp_path / "text.safetensors")
    ids = torch.randint(1, SHAPE.vocabulary, (3, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = bert(ids, torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(encoder(ids, torch.ones_like(ids))[0], expected, rtol=1e-4, atol=1e-4)


def test_text_longer_than_the_positions_is_named() -> None:
    ids = torch.ones(1, 21, dtype=torch.int64)
    with pytest.raises(ValueError, match="21 tokens exceed 20 positions"):
        TextEncoder(SHAPE)(ids, ids)


@pytest.mark.parametrize("frozen", [0, 4])
def test_prepared_frames_give_the_final_map_and_only_late_stages_train(frozen: int) -> None:
    net = EfficientNetLite("tiny", frozen)
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    pixels = (frames.permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        pooled, cells = net(net.prepare(frames))
        final = net.trunk(net.stem(pixels, 0), 0)
    torch.testing.assert_close(pooled, final.mean((2, 3)))
    torch.testing.assert_close(cells, final.permute(0, 2, 3, 1).reshape(2, 4, net.width))
    net.freeze()
    trained = {
        name.split(".")[1] for name, p in net.named_parameters() if p.requires_grad and "blocks" in name
    }
    assert min(map(int, trained)) == net.stage_starts[frozen]
    assert not any(p.requires_grad for n, p in net.named_parameters() if "depthwise" in n or "stem" in n)


def test_a_text_encoder_trains_all_but_what_a_text_begins_with() -> None:
    net = TextEncoder(SHAPE)
    net.freeze()
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == {
        "words.weight",
        "positions.weight",
    }
