"""FEEL in the paper's own sizes with random weights: parameters of each module, and one step of pre-training.

`python -m model.experiments.feel_sizes` prints them; the learning rate and the optimiser are those of HERO.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import torch
from torch import nn

from model.families.feel.batch import FeelBatch
from model.families.feel.config import FeelLossConfig, FeelModelConfig
from model.families.feel.network import Feel
from model.families.feel.objective import Pretraining

_MASK_SHARE, _RATE = 0.15, 3e-5


@dataclass(frozen=True)
class StepReport:
    """One step: parameters by module, the losses, seconds, and the peak memory of the process in bytes."""

    parameters: dict[str, int]
    losses: dict[str, float]
    seconds: float
    peak_bytes: int


def count_parameters(model: Feel) -> dict[str, int]:
    """The parameters of each module, and `total`."""
    modules: dict[str, nn.Module] = {
        "language encoder": model.text,
        "cross-modal Transformer": model.converter.cross,
        "MCB video to text": model.converter.video_to_text,
        "MCB text to video": model.converter.text_to_video,
        "word head": model.word_head,
        "query encoder": model.query_encoder,
        "moment head": model.moment_head,
    }
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    total = sum(p.numel() for p in model.parameters())
    return {**counts, "video encoder, norms and other": total - sum(counts.values()), "total": total}


def random_batch(config: FeelModelConfig, vocabulary: int, videos: int, seed: int = 0) -> FeelBatch:
    """Random features and tokens of full length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocabulary - 1, (videos, config.context_length), generator=generator)
    ones = torch.ones_like(ids)
    return FeelBatch(
        features=torch.randn(videos, config.frames, config.feature_dim, generator=generator),
        feature_mask=torch.ones(videos, config.frames),
        input_ids=ids,
        attention_mask=ones,
        maskable=ones > 0,
        mask_id=vocabulary - 1,
    )


def pretraining_step(config: FeelModelConfig, videos: int, seed: int = 0) -> StepReport:
    """Build the model with random weights and take one step of pre-training with all losses."""
    torch.manual_seed(seed)
    model = Feel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    objective = Pretraining(model, FeelLossConfig(mask_share=_MASK_SHARE), seed)
    batch = random_batch(config, model.text.vocabulary, videos, seed)
    began = time.perf_counter()
    losses = objective(batch, 0, 0)
    torch.autograd.backward(losses["total"])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return StepReport(
        count_parameters(model),
        {name: float(value.detach()) for name, value in losses.items()},
        time.perf_counter() - began,
        # Linux counts in KiB.
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def table(report: StepReport) -> str:
    """A Markdown table of the parameters, and a line each of losses and costs."""
    rows = [f"| {name} | {count:,} |" for name, count in report.parameters.items()]
    losses = ", ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
    peak = report.peak_bytes / 2**30
    return "\n".join(
        [
            "| Module | Parameters |",
            "|---|---:|",
            *rows,
            "",
            f"Losses: {losses}",
            f"One step: {report.seconds:.1f} s, peak memory of the process {peak:.2f} GiB",
        ]
    )


def main() -> None:
    """Print what one step takes."""
    parser = argparse.ArgumentParser(description="One pre-training step of FEEL in the paper's own sizes")
    parser.add_argument("--videos", type=int, default=4, help="videos in the batch")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = pretraining_step(FeelModelConfig(), arguments.videos)

    print(table(report))  # noqa: T201


if __name__ == "__main__":
    main()
