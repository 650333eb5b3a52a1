"""Settings of LGDN: its network and its losses, with their rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model.settings import check_choices, check_rules

#: how frames are scored against a text, Table 1
STRATEGIES = ("simdot", "momentum", "crossmom", "collaborative")
#: the towers that are measured and exported
INFERENCE_WEIGHTS = ("online", "momentum")
#: what a match is of the two logits of eq. 9
MATCH_SCORES = ("difference", "matched")
_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": ("lite0", "lite1", "lite2", "tiny", "vit", "clip", "clip_b16"),
    "text": ("minilm", "bert", "clip", "tiny"),
    "text_pooling": ("mean", "cls"),
    "salience_strategy": STRATEGIES,
    "fusion": ("joint", "cross_attention", "blip"),
    "inference_weights": INFERENCE_WEIGHTS,
    "match_score": MATCH_SCORES,
}


@dataclass(frozen=True)
class ModelConfig:
    """The network. A checkpoint holds these settings, so that it can be built again."""

    backbone: str = "lite2"
    #: Hugging Face name or folder of a ViT; the other backbones come as packages
    backbone_weights: str = ""
    #: sizes of the ViT or of CLIP's, such as "hidden=768,layers=12"; empty: those of its weights' config.json
    backbone_shape: str = ""
    text: str = "minilm"
    #: Hugging Face name or folder of a BERT; MiniLM comes as a package
    text_weights: str = ""
    #: sizes of the BERT or of CLIP's text encoder, in the same form; empty: those of its weights' config.json
    text_shape: str = ""
    #: what represents a text: the mean of its tokens, or the token [CLS]; in CLIP it is the text's end
    text_pooling: str = "mean"
    #: published CLIP or BLIP to start from: Hugging Face name, folder, or bundle that was imported from it;
    #: it decides both encoders and `dim`
    start_from: str = ""
    #: name, licence, origin and revision of that model, for a bundle; filled in
    start_weights: tuple[str, ...] = ()
    dim: int = 256
    frames: int = 16
    image_size: int = 224
    context_length: int = 64
    #: stages of the backbone (0 to 7) that stay as published; their outputs are computed once and cached
    frozen_stages: int = 4
    #: classes of the backbone's published classifier, whose names become part of a frame's embedding; 0: none
    classes: int = 1000
    #: within the layers of the text encoder and of the fusion
    dropout: float = 0.1
    #: on what the backbone gives of a frame, before its projection
    projection_dropout: float = 0.0
    #: share of the segments of which training leaves the temporal layer out
    temporal_drop: float = 0.0
    #: compute activations again in the backward pass: less memory, a third more time
    gradient_checkpointing: bool = False
    bank_size: int = 4096
    momentum: float = 0.99
    #: towers that are measured and exported: `online` with the fusion, or `momentum` with its moving average
    inference_weights: str = "online"
    temperature: float = 0.07
    learn_temperature: bool = False
    #: the temporal layer reads frame embeddings of length 1, as in CLIP4Clip; false: as they are projected
    normalise_frames: bool = True
    #: how frames are scored against a text, Table 1
    salience_strategy: str = "collaborative"
    num_salient_frames: int = 2
    #: the match of a frame: how much the logit of a match exceeds the other one, or that logit alone (BLIP)
    match_score: str = "difference"
    #: joint: compares tokens in the joint space; cross_attention: ALBEF's BERT layers that read the frame;
    #: blip: a whole BERT of its own that reads token ids, and the frame in every layer
    fusion: str = "joint"
    fusion_layers: int = 2
    #: joint: width of its layers
    fusion_dim: int = 256
    #: joint: add the similarity of the whole text and the whole frame to the match; false: keep the match and
    #: the similarity apart, as in the paper
    fusion_similarity: bool = True
    #: blip: id that it reads in place of a text's first, [CLS]; -1: the vocabulary's last, BLIP's [ENC]
    fusion_start: int = -1
    #: cross_attention: width of the frame tokens it reads; 0: the backbone's own
    token_dim: int = 0
    #: another image encoder, which training learns from, and the width of its embeddings; filled in from
    #: `data.teacher`
    teacher: str = ""
    teacher_dim: int = 0
    #: top layers that move from the text encoder to the fusion; 0: the fusion starts from random weights
    fusion_from_text: int = 0
    #: layers of the Transformer that reads frames and words for `loss.gmr` and `loss.cs`, and of each of the
    #: two blocks that convert one into the other; only training uses them; 0: there are none
    converter_layers: int = 0
    #: convert features that could not attend to what they are converted to; false: as FEEL writes it
    converter_target_masked: bool = False

    def __post_init__(self) -> None:
        check_choices("model", self, _CHOICES)
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield 0.0 <= self.momentum < 1.0, f"model.momentum={self.momentum} must be in [0, 1)"
        yield self.temperature > 0, f"model.temperature={self.temperature} must be positive"
        yield 0 <= self.frozen_stages <= 7, f"model.frozen_stages={self.frozen_stages} must be 0 to 7"
        for name in ("dropout", "projection_dropout", "temporal_drop"):
            yield 0.0 <= getattr(self, name) < 1.0, f"model.{name}={getattr(self, name)} must be in [0, 1)"
        for name in ("dim", "frames", "image_size", "context_length", "fusion_layers", "fusion_dim"):
            yield getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be positive"
        for name in ("token_dim", "classes", "teacher_dim", "fusion_from_text", "converter_layers"):
            yield getattr(self, name) >= 0, f"model.{name}={getattr(self, name)} must be 0 or more"
        yield (
            self.fusion != "blip" or (self.text != "clip" and not self.fusion_from_text),
            "model.fusion=blip is a BERT of its own: set model.text=bert and model.fusion_from_text=0",
        )
        yield self.fusion_start >= -1, f"model.fusion_start={self.fusion_start} must be an id, or -1"
        yield (
            len(self.start_weights) in (0, 4),
            f"model.start_weights={list(self.start_weights)} is filled in by model.start_from: leave it out",
        )
        yield (
            1 <= self.num_salient_frames <= self.frames,
            f"model.num_salient_frames={self.num_salient_frames} must be 1 to model.frames={self.frames}",
        )


@dataclass(frozen=True)
class LossConfig:
    """The losses of equation 10 and their weights; 0 turns a loss off."""

    mvcl: float = 1.0
    mfcl: float = 1.0
    lsfm: float = 1.0
    #: equations 6 and 7 over the set of positive frames; false: every frame is a positive by itself
    msl: bool = True
    #: train on the salient frames that SFP proposes; false: on all frames
    sfp: bool = True
    #: first epochs, which train without SFP
    warmup_epochs: int = 1
    #: draw the unmatched pairs of LSFM by similarity; false: all with the same probability
    hard_negatives: bool = True
    #: use the momentum embeddings of the current batch as negatives too, as ALBEF does but not the paper
    batch_negatives: bool = False
    #: weight of the loss that keeps the classes that the backbone was published with
    retention_weight: float = 0.5
    #: weight of MFCL between the texts and the embeddings of `data.teacher`
    teacher_mfcl: float = 0.0
    #: weight of the distance of a frame's embedding to that of `data.teacher`
    distillation: float = 0.0
    #: weight of FEEL's global modality reconstruction, over frames and words; needs `model.converter_layers`
    gmr: float = 0.0
    #: weight of FEEL's cross-modal self-contrasting; needs `model.converter_layers`
    cs: float = 0.0
    #: margin of CS, between squared distances of embeddings of about unit length
    cs_margin: float = 0.1

    def __post_init__(self) -> None:
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        for name in ("mvcl", "mfcl", "lsfm", "retention_weight", "teacher_mfcl", "distillation", "gmr", "cs"):
            yield getattr(self, name) >= 0, f"loss.{name}={getattr(self, name)} must be 0 (off) or more"
        yield self.cs_margin >= 0, f"loss.cs_margin={self.cs_margin} must be 0 or more"
        yield (
            self.mvcl + self.mfcl + self.lsfm > 0,
            "loss.mvcl, loss.mfcl and loss.lsfm are all off: nothing to learn",
        )
        yield self.warmup_epochs >= 0, f"loss.warmup_epochs={self.warmup_epochs} must be 0 or more"
