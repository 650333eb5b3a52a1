"""LGDN's ablation (Table 1, Table 2 and Figure 3 of the paper) on noisy video, in direction and rough size.

Films are spliced from photos that were never trained on: each shows one captioned photo in a few views among
unrelated frames, cross-fades and blanks. Every row of the table is a training run of its own, for several
seeds. One pass of the matcher over all texts and distinct frames gives every number of salient frames, every
strategy and every ensemble.

Shapes: Q texts, G films (one of each text), F distinct frames, N frame slots, S salience.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import DataConfig, load_config
from model.corpus import passes
from model.data import CaptionedPhotos, read_captions
from model.fusion import JointFusion
from model.lgdn import LGDN, TextFeatures
from model.progress import Report
from model.rerank import Reranking, global_ranks, sweep, tune_lambda
from model.runtime.preprocess import TextTokenizer
from model.salience import STRATEGIES, frame_salience, text_salience
from model.spliced import splice
from model.train import Run, start, train

Array = NDArray[np.float32]

SALIENT_FRAMES = (1, 2, 3, 4, 8, 16)
# Frames a call of the fusion: their tokens stay in a CPU's caches.
_FRAMES_A_CALL = 256
_FRAMES_A_PASS = 32


@dataclass(frozen=True)
class Row:
    """A row of Table 2: what is minimised, and whether SFP is used, in training and in inference."""

    name: str
    settings: tuple[str, ...]
    sfp: bool = False


ROWS = (
    Row("LSFM (w/o SFP)", ("loss.mvcl=0", "loss.mfcl=0", "loss.sfp=false")),
    Row("LSFM (w/o SFP) + MFCL (w/o MSL)", ("loss.mvcl=0", "loss.msl=false", "loss.sfp=false")),
    Row("LSFM (w/o SFP) + MFCL", ("loss.mvcl=0", "loss.sfp=false")),
    Row("LSFM (w/o SFP) + MFCL + MVCL", ("loss.sfp=false",)),
    Row("LSFM + MFCL + MVCL", (), sfp=True),
)


@dataclass(frozen=True)
class Films:
    """Films of one split: what they show, as the backbone's frozen stages see it, and a caption of each.

    Shapes: prepared [F, C, h', w'], slots int64 [G, N] (real frames first), counts int64 [G].
    """

    prepared: Tensor
    slots: NDArray[np.int64]
    counts: NDArray[np.int64]
    captions: tuple[str, ...]


def make_films(
    photos: CaptionedPhotos, count: int, noise: int, data: DataConfig, model: LGDN, seed: int
) -> Films:
    """Splice `count` films of the first photos, with unrelated frames from the `noise` last ones.

    Raises:
        ValueError: when the split has fewer photos.
    """
    config = model.config
    spliced = splice(photos, count, noise, data, config.frames, seed)
    frames = (frame[None] for frame in spliced.frames(config.image_size))
    with torch.inference_mode():
        prepared = [model.online.image.prepare(torch.from_numpy(part)) for part in passes(frames)]
    return Films(torch.cat(prepared).half(), spliced.slots, spliced.counts, spliced.captions)


@dataclass(frozen=True)
class Scores:
    """A model's view of films. Shapes similarity [Q, G], logits [Q, F], relevance by strategy [Q, F]."""

    similarity: Array
    logits: Array
    relevance: Mapping[str, Array]


@torch.inference_mode()
def score_films(model: LGDN, films: Films, tokenizer: TextTokenizer) -> Scores:
    """Every text with every film and every distinct frame, by the online weights.

    Raises:
        ValueError: for another fusion than the joint one.
    """
    if not isinstance(model.fusion, JointFusion):
        raise ValueError(
            f"model.fusion={model.config.fusion}: the ablation scores all pairs by a joint fusion"
        )
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        parts = [
            (model.online.encode_frames(x.float()), model.momentum.encode_frames(x.float()).embedding)
            for x in torch.split(films.prepared, _FRAMES_A_PASS)
        ]
        ids = tokenizer(films.captions)
        words = torch.from_numpy(ids.input_ids), torch.from_numpy(ids.attention_mask)
        text, text_hat = model.online.encode_text(*words), model.momentum.encode_text(*words).embedding
    frames = torch.cat([x.embedding for x, _ in parts]).float()
    frames_hat = torch.cat([x for _, x in parts]).float()
    tokens = torch.cat([x.tokens for x, _ in parts])
    places = torch.arange(films.slots.shape[1])
    mask = (places[None, :] < torch.from_numpy(films.counts)[:, None]).float()
    segments = model.online.encode_segment(frames[torch.from_numpy(films.slots)], mask)
    relevance = {
        s: (
            text_salience(s, text.embedding.float(), text_hat.float())
            @ frame_salience(s, frames, frames_hat).T
        )
        for s in STRATEGIES
    }
    return Scores(
        (text.embedding.float() @ segments.T).numpy(),
        _match_all(model.fusion, text, tokens),
        {name: value.numpy() for name, value in relevance.items()},
    )


def _match_all(fusion: JointFusion, text: TextFeatures, tokens: Tensor) -> Array:
    """Match logits of every text and every frame. → [Q, F]."""
    out = np.empty((len(text.embedding), len(tokens)), np.float32)
    for begin in range(0, len(tokens), _FRAMES_A_CALL):
        part = tokens[begin : begin + _FRAMES_A_CALL]
        with torch.autocast("cpu", torch.bfloat16):
            frames = fusion.read(part)
            for q, (words, mask) in enumerate(zip(text.tokens, text.attention_mask, strict=True)):
                length, count = int(mask.sum()), len(part)
                logits = fusion.judge(
                    words[None, :length].expand(count, -1, -1), mask[None, :length].expand(count, -1), frames
                )
                out[q, begin : begin + count] = (logits[:, 1] - logits[:, 0]).float().numpy()
    return out


def measure(row: Row, validation: tuple[Scores, Films], test: tuple[Scores, Films]) -> dict[str, Any]:
    """A trained model's rows of the table: local by N_salient and strategy, global, ensemble.

    λ is tuned on the validation films for each number of salient frames.
    """

    def local(scores: Scores, films: Films, strategy: str) -> dict[int, Array]:
        relevance = scores.relevance[strategy]
        return sweep(scores.logits, relevance, films.slots, films.counts, SALIENT_FRAMES)

    scores, films = test
    target = np.arange(len(films.captions))
    result: dict[str, Any] = {"row": row.name, "sfp": row.sfp}
    result["global"] = global_ranks(scores.similarity, target).metrics()
    chosen = STRATEGIES if row.sfp else ("collaborative",)
    for strategy in chosen:
        matches, tuned = local(scores, films, strategy), local(*validation, strategy)
        for n in SALIENT_FRAMES:
            lam, _ = tune_lambda(validation[0].similarity, tuned[n], np.arange(len(validation[1].captions)))
            ranking = Reranking(scores.similarity, matches[n], target)
            result.setdefault(strategy, {})[str(n)] = {
                "local": ranking.ranks(0.0).metrics(),
                "ensemble": ranking.ranks(lam).metrics(),
                "lambda": lam,
            }
    return result


def run_ablation(
    recipe: Path,
    overrides: Sequence[str],
    output: Path,
    seeds: Sequence[int],
    films: int,
    noise: int,
    report: Report,
    tokenizer_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Train and measure every row for every seed; what `output` holds already is not done again.

    Checkpoints go once a run is measured: hundreds of megabytes each.

    Raises:
        ValueError: from the recipe or the data.
    """
    results: list[dict[str, Any]] = []
    made: dict[str, Films] = {}
    for seed in seeds:
        for number, row in enumerate(ROWS):
            folder = output / f"row{number + 1}-seed{seed}"
            done = folder / "result.json"
            if not done.exists():
                words = (*overrides, *row.settings, f"train.seed={seed}", f"output={folder}")
                run = start(load_config(recipe, words), report, tokenizer_file)
                _run(run, row, done, films, noise, made)
            results.append(json.loads(done.read_text(encoding="utf-8")) | {"seed": seed})
            report(f"{row.name}, seed {seed}: {_headline(results[-1])}")
    return results


def _run(run: Run, row: Row, done: Path, films: int, noise: int, made: dict[str, Films]) -> None:
    train(run)
    config = run.config
    splits = []
    for split, count in (("val", films // 4), ("test", films)):
        if split not in made:
            # The same films for every row and seed: the frozen stages, which prepare them, never change.
            photos = read_captions(Path(config.data.path), split)
            made[split] = make_films(photos, count, noise, config.data, run.model, seed=0)
        shown = made[split]
        run.report(f"{row.name}: scoring {count} films of {split}, {len(shown.prepared)} distinct frames")
        splits.append((score_films(run.model, shown, run.tokenizer), shown))
    result = measure(row, splits[0], splits[1]) | {"films": films, "frames": len(splits[1][1].prepared)}
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
    partial.replace(done)
    for checkpoint in done.parent.glob("*.pt"):
        checkpoint.unlink()


def _headline(result: Mapping[str, Any]) -> str:
    n = "2" if result["sfp"] else "16"
    cell = result["collaborative"][n]
    return " · ".join(
        f"{name} R@1 {metrics['text_to_video']['R@1']:.1f}"
        for name, metrics in (
            ("global", result["global"]), ("local", cell["local"]), ("ensemble", cell["ensemble"])
        )
    )  # fmt: skip


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown: mean ± standard deviation over the seeds of the metrics of both directions."""
    seeds = sorted({r["seed"] for r in results})
    by_row = {row.name: [r for r in results if r["row"] == row.name] for row in ROWS}
    full = by_row[ROWS[-1].name]
    last = ROWS[-1].name
    lines = [
        f"{results[0]['films']} films, {results[0]['frames']} frames, seeds {seeds}: R@1 / R@5 / R@10.",
        "",
        "| Table 2: trained with | inference | text → video | video → text | R@SUM |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        n = "2" if row.sfp else "16"
        lines.append(_line(row.name, "local", [r["collaborative"][n]["local"] for r in by_row[row.name]]))
    lines.append(_line(last, "global", [r["global"] for r in full]))
    lines.append(_line(last, "ensemble", [r["collaborative"]["2"]["ensemble"] for r in full]))
    lines += [
        "",
        "| Figure 3: N_salient | inference | text → video | video → text | R@SUM |",
        "|---|---|---|---|---|",
    ]
    for kind in ("local", "ensemble"):
        for count in SALIENT_FRAMES:
            lines.append(_line(str(count), kind, [r["collaborative"][str(count)][kind] for r in full]))
    lines += [
        "",
        "| Table 1: strategy | inference | text → video | video → text | R@SUM |",
        "|---|---|---|---|---|",
    ]
    for strategy in STRATEGIES:
        lines.append(_line(strategy, "local", [r[strategy]["2"]["local"] for r in full]))
    return "\n".join(lines)


def _line(name: str, inference: str, metrics: Sequence[Mapping[str, Any]]) -> str:
    def spread(values: Sequence[float]) -> str:
        return f"{fmean(values):.1f} ± {stdev(values) if len(values) > 1 else 0.0:.1f}"

    cells = [
        " / ".join(spread([m[way][k] for m in metrics]) for k in ("R@1", "R@5", "R@10"))
        for way in ("text_to_video", "video_to_text")
    ]
    return f"| {name} | {inference} | {cells[0]} | {cells[1]} | {spread([m['R@SUM'] for m in metrics])} |"
