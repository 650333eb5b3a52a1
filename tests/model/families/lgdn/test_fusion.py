"""Fusions: what may reach their logits and what must not, and the layers they are made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.bert import TextLayer, TextShape
from model.families.lgdn.config import LossConfig, ModelConfig
from model.families.lgdn.fusion import CrossAttentionFusion, CrossLayer, Fusion, JointFusion, build_fusion
from model.families.lgdn.objective import Objective
from tests.support.tiny_lgdn import VOCABULARY, tiny_batch, tiny_model, tiny_model_config

SHAPE = TextShape(vocabulary=VOCABULARY, hidden=32, layers=2, heads=4, intermediate=64, positions=64)
PAIRS, LENGTH, TOKENS = 5, 7, 6
WORDS = [7, 2, 4, 1, 6]


class BlipLikeFusion(Fusion):
    """As BLIP does: its own words, all layers with cross-attention, run from ids."""

    reads = "ids"

    def __init__(self, frame_width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(SHAPE.vocabulary, SHAPE.hidden)
        self.positions = nn.Parameter(0.1 * torch.randn(SHAPE.positions, SHAPE.hidden))
        self.layers = nn.ModuleList(CrossLayer(SHAPE, frame_width) for _ in range(2))
        self.head = nn.Linear(SHAPE.hidden, 2)

    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        x = self.words(text) + self.positions[: text.shape[1]]
        for layer in self.layers:
            assert isinstance(layer, CrossLayer)
            x = layer.fuse(x, bias, frame_tokens, 0.0)
        fused: Tensor = x[:, 0]
        return fused


def make(kind: str) -> tuple[Fusion, Tensor, Tensor, Tensor]:
    """A fusion none of whose weights is zero, its text input, mask and frame tokens."""
    torch.manual_seed(0)
    mask = (torch.arange(LENGTH) < torch.tensor(WORDS)[:, None]).long()
    if kind == "joint":
        fusion: Fusion = JointFusion(tiny_model_config())
        text, frame = torch.randn(PAIRS, LENGTH, 16), torch.randn(PAIRS, TOKENS, 16)
    elif kind == "cross_attention":
        fusion = CrossAttentionFusion(tiny_model_config(fusion=kind), SHAPE, 24)
        text, frame = torch.randn(PAIRS, LENGTH, SHAPE.hidden), torch.randn(PAIRS, TOKENS, 24)
    else:
        fusion = BlipLikeFusion(24)
        text, frame = torch.randint(1, VOCABULARY, (PAIRS, LENGTH)), torch.randn(PAIRS, TOKENS, 24)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return fusion.eval(), text, mask, frame


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


every_fusion = pytest.mark.parametrize("kind", ["joint", "cross_attention", "blip-like"])


@every_fusion
def test_padding_and_masked_text_have_no_influence(kind: str) -> None:
    fusion, text, mask, frame = make(kind)
    logits = fusion(text, mask, frame)
    assert logits.shape == (PAIRS, 2)
    assert logits.dtype == torch.float32

    hidden = mask == 0
    other = text.clone()
    other[hidden] = text[hidden].flip(0) if text.dtype == torch.int64 else 100.0
    assert not torch.equal(other, text)
    assert torch.equal(fusion(other, mask, frame), logits)
    longer = torch.cat([text, text[:, :3]], 1)
    close(fusion(longer, F.pad(mask, (0, 3)), frame), logits)


@every_fusion
def test_every_word_and_every_token_of_the_frame_is_read(kind: str) -> None:
    fusion, text, mask, frame = make(kind)
    logits = fusion(text, mask, frame)
    for place in range(LENGTH):
        other = text.clone()
        other[:, place] = text[:, place].flip(0) if text.dtype == torch.int64 else -text[:, place]
        changed = (fusion(other, mask, frame) - logits).abs().amax(1) > 1e-5
        differs = (other[:, place] != text[:, place]).reshape(PAIRS, -1).any(1)
        assert torch.equal(changed, (mask[:, place] == 1) & differs)
    for place in range(TOKENS):
        other = frame.clone()
        other[:, place] *= -1
        assert ((fusion(text, mask, other) - logits).abs().amax(1) > 1e-5).all()


@every_fusion
def test_a_batch_gives_what_single_pairs_give(kind: str) -> None:
    fusion, text, mask, frame = make(kind)
    logits = fusion(text, mask, frame)
    for i, words in enumerate(WORDS):
        alone = fusion(text[i : i + 1, :words], mask[i : i + 1, :words], frame[i : i + 1])
        close(alone, logits[i : i + 1])


@every_fusion
def test_the_order_of_the_cells_does_not_matter(kind: str) -> None:
    """Cells follow the frame's own token; merging tokens may leave them in any order."""
    fusion, text, mask, frame = make(kind)
    order = torch.tensor([0, 4, 2, 5, 1, 3])
    close(fusion(text, mask, frame[:, order]), fusion(text, mask, frame))


@every_fusion
def test_gradients_reach_every_weight_and_both_inputs(kind: str) -> None:
    fusion, text, mask, frame = make(kind)
    fusion.train()
    inputs = [frame.requires_grad_()]
    if fusion.reads == "tokens":
        inputs.append(text.requires_grad_())
    fusion(text, mask, frame).square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in inputs)
    if fusion.reads == "tokens":
        assert text.grad is not None
        assert torch.equal(text.grad.abs().amax(2) > 0, mask == 1)


@every_fusion
def test_half_precision_stays_near(kind: str) -> None:
    fusion, text, mask, frame = make(kind)
    with torch.autocast("cpu", torch.bfloat16):
        logits = fusion(text, mask, frame)
    assert logits.dtype == torch.float32
    close(logits, fusion(text, mask, frame), 0.1)


# The joint fusion


def test_joint_fusion_starts_as_late_interaction() -> None:
    """Before training, the match logit is: words' agreement with what they find, and the two embeddings'."""
    torch.manual_seed(1)
    fusion = JointFusion(tiny_model_config()).eval()
    with torch.no_grad():
        fusion.gate.weight += torch.randn_like(fusion.gate.weight)
    _, text, mask, frame = make("joint")
    logits = fusion(text, mask, frame)
    for i in range(PAIRS):
        words = [F.normalize(text[i, j], dim=0) for j in range(WORDS[i])]
        cells = [F.normalize(frame[i, p], dim=0) for p in range(TOKENS)]
        weights = [torch.exp(fusion.gate(word)[0]) for word in words]
        agreement = torch.zeros(())
        for word, weight in zip(words, weights, strict=True):
            near = [torch.exp(fusion.sharpness * (word @ cell)) for cell in cells]
            found = (torch.stack(near)[:, None] / sum(near) * torch.stack(cells)).sum(0)
            agreement = agreement + weight / sum(weights) * (word @ F.normalize(found, dim=0))
        expected = fusion.word_weight * agreement + fusion.whole_weight * words[0] @ cells[0] + fusion.bias
        close(logits[i, 1] - logits[i, 0], expected, 1e-4)


def test_joint_fusion_leaves_its_start() -> None:
    """Its corrections begin at zero, but their first gradient does not."""
    torch.manual_seed(0)
    fusion = JointFusion(tiny_model_config())
    _, text, mask, frame = make("joint")
    loss = F.cross_entropy(fusion(text, mask, frame), torch.tensor([1, 0, 1, 0, 0]))
    torch.autograd.backward(loss)
    assert fusion.head.weight.grad is not None
    assert fusion.head.weight.grad.abs().max() > 0


def test_joint_fusion_reads_directions_only() -> None:
    fusion, text, mask, frame = make("joint")
    close(fusion(text * 3, mask, frame * 0.2), fusion(text, mask, frame))


# The cross-attention fusion


def bert_layers(count: int, norms: bool) -> nn.ModuleList:
    """Layers with random weights; `norms`: their layer normalisations scale and shift, too."""
    torch.manual_seed(2)
    layers = nn.ModuleList(TextLayer(SHAPE) for _ in range(count))
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            if norms or "attention_norm" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return layers.eval()


def started(config: ModelConfig, layers: nn.ModuleList) -> CrossAttentionFusion:
    torch.manual_seed(3)
    fusion = CrossAttentionFusion(config, SHAPE, 24).eval()
    fusion.start_from(layers)
    return fusion


def test_start_from_copies_the_layers_and_leaves_cross_attention() -> None:
    config, layers = tiny_model_config(fusion="cross_attention", fusion_from_text=3), bert_layers(3, True)
    torch.manual_seed(3)
    before = CrossAttentionFusion(config, SHAPE, 24).state_dict()
    fusion = started(config, layers)
    expected_state = layers.state_dict()
    for name, value in fusion.layers.state_dict().items():
        expected = expected_state[name] if name in expected_state else before[f"layers.{name}"]
        assert torch.equal(value, expected), name
    assert set(expected_state) < set(fusion.layers.state_dict())
    with torch.no_grad():
        layers.get_parameter("0.qkv.weight").add_(1)
    changed = layers.get_parameter("0.qkv.weight")
    assert not torch.equal(fusion.layers.get_parameter("0.qkv.weight"), changed)


def test_start_from_names_another_number_of_layers() -> None:
    config = tiny_model_config(fusion="cross_attention", fusion_from_text=3)
    with pytest.raises(ValueError, match="2 text layers for 3 fusion layers"):
        started(config, bert_layers(2, True))


def run_bert(layers: nn.ModuleList, text: Tensor, mask: Tensor) -> Tensor:
    bias = (1.0 - mask[:, None, None, :].float()) * -10000.0
    for layer in layers:
        text = layer(text, bias)
    return text


def silence(fusion: CrossAttentionFusion) -> None:
    with torch.no_grad():
        for layer in fusion.layers:
            assert isinstance(layer, CrossLayer)
            layer.cross_out.weight.zero_()
            layer.cross_out.bias.zero_()


def test_with_silent_cross_attention_it_is_the_text_encoders_top() -> None:
    """Where the norm before cross-attention does not scale: the one after it does the same again."""
    _, text, mask, frame = make("cross_attention")
    layers = bert_layers(2, False)
    fusion = started(tiny_model_config(fusion="cross_attention"), layers)
    silence(fusion)
    expected = fusion.head(run_bert(layers, text, mask)[:, 0])
    close(fusion(text, mask, frame), expected, 1e-4)
    assert torch.equal(fusion(text, mask, -frame), fusion(text, mask, frame))


def test_cross_attention_is_that_of_a_loop() -> None:
    """One layer: softmax over the frame's tokens for each head, added and normalised after self-attention."""
    _, text, _, frame = make("cross_attention")
    text, frame, width = text[:1, :3], frame[:1], SHAPE.hidden // SHAPE.heads
    torch.manual_seed(3)
    layer = CrossLayer(SHAPE, 24).eval()
    bias = torch.zeros(1, 1, 1, 3)

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows = []
        for query in queries:
            heads = []
            for h in range(SHAPE.heads):
                part = slice(h * width, (h + 1) * width)
                near = [torch.exp(query[part] @ key[part] / math.sqrt(width)) for key in keys]
                pairs = zip(near, values, strict=True)
                heads.append(sum(n / sum(near) * value[part] for n, value in pairs))
            rows.append(torch.cat(heads))
        return torch.stack(rows)

    x = text[0]
    q, k, v = layer.qkv(x).chunk(3, -1)
    x = layer.attention_norm(x + layer.attention_out(attend(q, k, v)))
    k, v = layer.cross_kv(frame[0]).chunk(2, -1)
    x = layer.cross_norm(x + layer.cross_out(attend(layer.cross_query(x), k, v)))
    x = layer.output_norm(x + layer.down(F.gelu(layer.up(x))))
    close(layer.fuse(text, bias, frame, 0.0)[0], x, 1e-4)


def gradients(fusion: Fusion, text: Tensor, mask: Tensor, frame: Tensor) -> list[Tensor | None]:
    """The logits of a training step, and the gradients of the frame tokens and of every weight."""
    torch.manual_seed(4)
    tokens = frame.clone().requires_grad_()
    logits = fusion(text, mask, tokens)
    logits.square().sum().backward()
    return [logits, tokens.grad, *(p.grad for p in fusion.parameters())]


@pytest.mark.parametrize(("pairs", "dropout"), [(2, 0.0), (1000, 0.3)])
def test_gradient_checkpointing_of_the_joint_fusion_changes_nothing(
    pairs: int, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.families.lgdn.fusion._CHECKPOINTED_PAIRS", pairs)
    _, text, mask, frame = make("joint")
    assert len(text) % 2 == 1, "the last part is a smaller one"
    results = []
    for again in (False, True):
        torch.manual_seed(3)
        fusion = JointFusion(tiny_model_config(dropout=dropout, gradient_checkpointing=again)).train()
        torch.nn.init.normal_(fusion.head.weight)
        results.append(gradients(fusion, text, mask, frame))
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-4)  # sums in another order


def test_gradient_checkpointing_changes_nothing() -> None:
    """Not even what is dropped out."""
    _, text, mask, frame = make("cross_attention")
    results = []
    for again in (False, True):
        config = tiny_model_config(fusion="cross_attention", dropout=0.3, gradient_checkpointing=again)
        fusion = started(config, bert_layers(2, True)).train()
        results.append(gradients(fusion, text, mask, frame))
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-6)
    fusion.eval()
    close(fusion(text, mask, frame), started(config, bert_layers(2, True))(text, mask, frame))


# The interface


def test_the_settings_name_the_fusion() -> None:
    config = tiny_model_config()
    assert isinstance(build_fusion(config, SHAPE, 16), JointFusion)
    cross = build_fusion(tiny_model_config(fusion="cross_attention", fusion_layers=3), SHAPE, 24)
    assert isinstance(cross, CrossAttentionFusion)
    assert len(cross.layers) == 3
    with pytest.raises(ValueError, match=r"model\.fusion='sum' is not known: use one of joint, cross_at"):
        tiny_model_config(fusion="sum")


def trained(build: Callable[[int], Fusion] | None) -> dict[str, Tensor]:
    """One step of the objective with another fusion in the model; the gradients."""
    model = tiny_model(fusion="cross_attention")
    if build is not None:
        torch.manual_seed(0)
        model.fusion = build(model.online.token_width)
        model.fusion_average = copy.deepcopy(model.fusion).requires_grad_(False)
    batch = tiny_batch([1, 2, 3, 1])
    losses = Objective(model, LossConfig(mvcl=0.0, mfcl=0.0, retention_weight=0.0))(batch, 0, epoch=1)
    losses["total"].backward()
    assert losses["lsfm"].isfinite()
    model.update_momentum()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_a_fusion_that_reads_ids_trains_within_the_model() -> None:
    grads = trained(BlipLikeFusion)
    assert {"fusion.words.weight", "fusion.layers.1.cross_kv.weight", "fusion.head.bias"} <= set(grads)
    assert any(name.startswith("online.image.") for name in grads)
    # The text encoder is no part of its way; another fusion trains it.
    assert not any(name.startswith("online.text.") for name in grads)
    assert any(name.startswith("online.text.") for name in trained(None))


def test_the_similarity_within_the_match_can_be_weighed_anew() -> None:
    """Only that term moves: by the change of weight times the cosine of both first tokens."""
    torch.manual_seed(0)
    fusion = JointFusion(ModelConfig(dim=16, fusion_dim=16, fusion_layers=1)).eval()
    words, frame = torch.randn(5, 4, 16), torch.randn(5, 6, 16)
    mask = torch.ones(5, 4, dtype=torch.int64)
    before = fusion(words, mask, frame).diff()[:, 0]
    fusion.weigh_similarity(30.0)
    moved = fusion(words, mask, frame).diff()[:, 0] - before
    cosine = torch.cosine_similarity(words[:, 0], frame[:, 0])
    torch.testing.assert_close(moved, 20.0 * cosine, atol=1e-4, rtol=1e-4)


def test_a_match_apart_from_the_similarity_does_not_read_it() -> None:
    """At the start, when the layers say nothing, the first word changes nothing; and it cannot be weighed."""
    torch.manual_seed(0)
    apart = ModelConfig(dim=16, fusion_dim=16, fusion_layers=1, fusion_similarity=False)
    fusion = JointFusion(apart).eval()
    words, frame = torch.randn(5, 4, 16), torch.randn(5, 6, 16)
    mask = torch.ones(5, 4, dtype=torch.int64)
    other = torch.cat([torch.randn(5, 1, 16), words[:, 1:]], 1)
    torch.testing.assert_close(fusion(other, mask, frame), fusion(words, mask, frame))
    with pytest.raises(ValueError, match="fusion_similarity=false"):
        fusion.weigh_similarity(30.0)
