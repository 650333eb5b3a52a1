"""LGDN with a head that answers questions about a video from its salient frames.

The paper says that LGDN answers questions (section 4.3, Table 7) and leaves open how. Decided here, after
ALBEF for the fusion and ViLT for the classifier: the question is the text; SFP picks frames by it as for a
search (section 3.3); a fusion of the head's own, which starts as a copy of the matching head's (section 3.5),
gives the fused [CLS] of the question with each salient frame; the mean of these over the frames goes to a
classifier of two layers over the commonest answers.

Shapes: B questions, n salient frames, L text tokens, T their width, P tokens a frame, H their width, W the
fusion's width, A answers.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from model.families.lgdn.fusion import Fusion, build_fusion
from model.families.lgdn.inference import InferenceModel
from model.families.lgdn.network import LGDN
from model.families.lgdn_qa.config import AnswerModelConfig
from model.runtime.errors import InputError


class AnswerHead(nn.Module):
    """A fusion, and a classifier of the mean fused [CLS] over a question's frames."""

    def __init__(self, fusion: Fusion, answers: int, dropout: float) -> None:
        super().__init__()
        self.fusion = fusion
        for weight in fusion.match_weights():
            weight.requires_grad_(False)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(fusion.width, 2 * fusion.width),
            nn.LayerNorm(2 * fusion.width),
            nn.GELU(),
            nn.Linear(2 * fusion.width, answers),
        )

    @property
    def reads(self) -> Literal["tokens", "ids"]:
        """Whether the first input are text tokens or token ids, as of `Fusion`."""
        return self.fusion.reads

    def forward(
        self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor, frame_mask: Tensor
    ) -> Tensor:
        """The logit of each answer.

        Shapes text tokens [B, L, T] or ids int64 [B, L], int64 [B, L], [B, n, P, H], and [B, n] with 1 for
        real frames, at least one in each row → [B, A].
        """
        count, frames = frame_tokens.shape[:2]
        words, word_mask = (_for_each_frame(x, frames) for x in (text, attention_mask))
        fused = self.fusion.fuse(words, word_mask, frame_tokens.flatten(0, 1))
        weight = frame_mask.to(fused.dtype)
        weight = weight / weight.sum(1, keepdim=True)
        mean = (fused.reshape(count, frames, -1) * weight[..., None]).sum(1)
        logits: Tensor = self.classifier(mean).float()
        return logits


def _for_each_frame(x: Tensor, frames: int) -> Tensor:
    """Repeat each row. ONNX gets `repeat_interleave` wrong. Shape [B, …] → [B · n, …]."""
    return x[:, None].expand(-1, frames, *x.shape[1:]).flatten(0, 1)


class AnsweringLGDN(LGDN):
    """LGDN, and an answer head that reads the tokens of the towers that are measured and exported.

    Raises:
        InputError: the settings name no answer.
    """

    config: AnswerModelConfig

    def __init__(self, config: AnswerModelConfig) -> None:
        super().__init__(config)
        if not config.answers:
            raise InputError("model.answers is empty: train first, which takes the answers from the data")
        fusion = build_fusion(config, self.online.text.shape, self.online.token_width)
        self.answer_head = AnswerHead(fusion, len(config.answers), config.dropout)
        trained = ("answer_head.", "online.") if config.tune_towers else ("answer_head.",)
        for name, parameter in self.named_parameters():
            if not name.startswith(trained):
                parameter.requires_grad_(False)

    @property
    def inference(self) -> InferenceModel:
        """The towers that the head reads, and the strategy of SFP."""
        return InferenceModel(self, self.config.inference_weights, self.config.salience_strategy)

    def start_head(self) -> None:
        """Let the head's fusion start as the matching head that goes with the towers."""
        self.answer_head.fusion.load_state_dict(self.inference.fusion.state_dict())

    def train(self, mode: bool = True) -> AnsweringLGDN:
        """Set the mode of what trains; towers that stay as they are stay in evaluation mode."""
        super().train(mode)
        if not self.config.tune_towers:
            self.online.eval()
            self.fusion.eval()
        return self
