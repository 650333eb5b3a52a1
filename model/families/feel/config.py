"""Settings of FEEL: its network and its losses, with their rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model.settings import check_choices, check_rules

#: what is trained: the pre-training tasks of the paper, or the search for videos and moments
TASKS = ("pretraining", "finetuning")
#: how far apart two vectors are in the triplet loss δ
DISTANCES = ("mse", "euclidean")
#: what masked frames are contrasted with: o_v of unmasked frames, as eq. 6 is written, or their e_v
NEGATIVES = ("outputs", "inputs")
#: the losses of pre-training that have a weight
PRETRAINING = ("mlm", "mfm", "gmr", "cs", "contrast")
_FINETUNING = ("query_to_video", "video_to_query", "span")


@dataclass(frozen=True)
class FeelModelConfig:
    """The network. A checkpoint holds these settings, so that it can be built again."""

    text: str = "roberta"
    #: Hugging Face name or folder of a RoBERTa or BERT; MiniLM comes as a package
    text_weights: str = ""
    #: sizes of the RoBERTa or BERT, such as "hidden=768,layers=12"; empty: those of its weights' config.json.
    #: "layers=2" takes the lower two layers of MiniLM's six
    text_shape: str = ""
    #: width of a feature vector: by default 2048 of ResNet and 2304 of SlowFast; 0: that of the training data
    feature_dim: int = 4352
    #: d, the width of e_v and e_t and of all Transformers but the language encoder
    hidden: int = 768
    heads: int = 12
    #: width of the feed-forward networks
    intermediate: int = 3072
    cross_layers: int = 6
    #: the cross-modal Transformer starts from layers of the language encoder, where that has published
    #: weights: of 12 layers, 6 start from 1, 3, …, 11, counted from 0
    cross_from_text: bool = True
    mcb_layers: int = 2
    #: convert once and back with the same two blocks; false: each of the two hops has its own blocks
    shared_mcb: bool = True
    #: reconstruct a modality from features that could not attend to it; false: as in eq. 1, where o_t has
    #: already attended to e_v, so that the reconstruction of e_v is partly a copy
    target_masked: bool = False
    #: most feature vectors of a video
    frames: int = 100
    #: most tokens of a video's text, and of a query
    context_length: int = 60
    #: kernel of the convolutions that find the start and the end of a moment
    conv_kernel: int = 5
    #: all queries have one length, √d, when moments are found: a bundle keeps only the direction of a query,
    #: so that its moment head needs this; false: as HERO
    unit_query: bool = False
    dropout: float = 0.1
    #: compute activations again in the backward pass: less memory, a third more time
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_choices("model", self, {"text": ("roberta", "bert", "minilm", "tiny")})
        check_rules(self._rules())

    @property
    def image_size(self) -> int:
        """0: FEEL reads features, not pixels."""
        return 0

    @property
    def text_pooling(self) -> str:
        """FEEL reads all tokens; the pooled vector is not used."""
        return "mean"

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.feature_dim >= 0, f"model.feature_dim={self.feature_dim} must be 0 or more"
        sizes = ("hidden", "heads", "intermediate", "cross_layers", "mcb_layers", "frames")
        for name in (*sizes, "context_length", "conv_kernel"):
            yield getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be positive"
        yield (
            self.hidden % self.heads == 0,
            f"model.hidden={self.hidden} must be a multiple of model.heads={self.heads}",
        )
        yield (
            self.conv_kernel % 2 == 1,
            f"model.conv_kernel={self.conv_kernel} must be odd, so that every frame keeps its place",
        )
        yield 0.0 <= self.dropout < 1.0, f"model.dropout={self.dropout} must be in [0, 1)"


@dataclass(frozen=True)
class FeelLossConfig:
    """The losses and their weights; 0 turns a loss off, and what only it needs is not computed."""

    task: str = "pretraining"
    #: masked language modelling, eq. 4
    mlm: float = 1.0
    #: masked frame modelling, eq. 5 and 6
    mfm: float = 1.0
    #: what a masked frame is contrasted with: `outputs`, its e_v with o_v of unmasked frames (eq. 6), which
    #: soon falls to 0, since outputs tell by the mask alone whether they are masked; `inputs`, its o_v with
    #: e_v of unmasked frames, as in HERO
    mfm_negatives: str = "outputs"
    #: global modality reconstruction, eq. 7 to 9
    gmr: float = 1.0
    #: cross-modal self-contrasting, eq. 10 to 16
    cs: float = 1.0
    #: ours, not of the paper: what is converted once must tell its video among those of the batch; needs
    #: `model.target_masked`
    contrast: float = 0.0
    #: what cosines are divided by in `contrast`
    temperature: float = 0.1
    #: share of tokens and of frames that are masked
    mask_share: float = 0.15
    #: margin of the triplet loss δ
    margin: float = 0.1
    #: the distance in δ: `mse` as in eq. 7 and 8, or `euclidean`
    cs_distance: str = "mse"
    #: e_v and e_t get no gradient as targets (eq. 7, 8) and as anchors (eq. 12, 15); false: as written
    stop_gradient: bool = True
    #: fine-tuning: a query's own video must score higher than all others, by the margin
    query_to_video: float = 8.0
    #: fine-tuning: a video must score higher for its own query than for all others, by the margin
    video_to_query: float = 8.0
    #: fine-tuning: cross-entropy of start and end; 0: videos alone are found
    span: float = 0.01
    #: fine-tuning: the margin, between cosines
    hinge_margin: float = 0.1
    #: fine-tuning: batches after which hard negatives weigh more; 0: from the start, -1: never
    hard_after: int = 2000
    #: fine-tuning: the so many hardest negatives of a row are hard
    hard_count: int = 20
    hard_weight: float = 10.0
    easy_weight: float = 0.1
    #: fine-tuning: the span loss is left out of a batch with this probability
    span_skip: float = 0.8

    def __post_init__(self) -> None:
        check_choices("loss", self, {"task": TASKS, "mfm_negatives": NEGATIVES, "cs_distance": DISTANCES})
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        weights = (*PRETRAINING, *_FINETUNING, "hard_weight", "easy_weight")
        for name in (*weights, "margin", "hinge_margin", "hard_count"):
            yield getattr(self, name) >= 0, f"loss.{name}={getattr(self, name)} must be 0 or more"
        used = PRETRAINING if self.task == "pretraining" else _FINETUNING
        yield (
            any(getattr(self, name) > 0 for name in used),
            f"{', '.join(f'loss.{name}' for name in used)} are all off: nothing to learn",
        )
        yield self.temperature > 0, f"loss.temperature={self.temperature} must be positive"
        yield 0.0 < self.mask_share < 1.0, f"loss.mask_share={self.mask_share} must be in (0, 1)"
        yield 0.0 <= self.span_skip < 1.0, f"loss.span_skip={self.span_skip} must be in [0, 1)"
        yield self.hard_after >= -1, f"loss.hard_after={self.hard_after} must be -1 (never) or more"
