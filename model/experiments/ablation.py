"""LGDN's ablation (Table 1, Table 2 and Figure 3 of the paper) on noisy films, to see the same directions.

Films are spliced from photos, or frames of videos, that were never trained on: each shows one captioned item
in a few views among unrelated frames, cross-fades and blank frames. Every row of Table 2 is a training run of
its own, for each of several seeds, and so are the rows that add FEEL's objectives to the last one. One pass
of the matcher over all texts and distinct frames serves every number of salient frames, every strategy and
every ensemble.

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
from torch import Tensor

from model.arrays import Array, Rows
from model.config import load_config
from model.data.sources import open_stills
from model.data.stills import CaptionedStills
from model.evaluation.corpus import passes
from model.evaluation.rerank import Reranking, global_ranks, sweep, tune_lambda
from model.evaluation.spliced import splice_films
from model.families.lgdn.config import STRATEGIES
from model.families.lgdn.fusion import JointFusion, match_of
from model.families.lgdn.network import LGDN, TextFeatures
from model.families.lgdn.salience import frame_salience, text_salience
from model.progress import Report
from model.runtime.errors import InputError
from model.runtime.files import replace_text
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, to_mapping
from model.training.run import Run
from model.training.setup import start
from model.training.train import train

#: numbers of salient frames that are measured
SALIENT_COUNTS = (1, 2, 3, 4, 8, 16)
# Frames in one call of the fusion: their tokens stay in a CPU's caches.
_FRAMES_A_CALL = 256
_FRAMES_A_PASS = 32


@dataclass(frozen=True)
class AblationRow:
    """A row of Table 2, or of FEEL's: settings, and whether SFP is used in training and inference."""

    name: str
    settings: tuple[str, ...]
    sfp: bool = False


ROWS = (
    AblationRow("LSFM (w/o SFP)", ("loss.mvcl=0", "loss.mfcl=0", "loss.sfp=false")),
    AblationRow("LSFM (w/o SFP) + MFCL (w/o MSL)", ("loss.mvcl=0", "loss.msl=false", "loss.sfp=false")),
    AblationRow("LSFM (w/o SFP) + MFCL", ("loss.mvcl=0", "loss.sfp=false")),
    AblationRow("LSFM (w/o SFP) + MFCL + MVCL", ("loss.sfp=false",)),
    AblationRow("LSFM + MFCL + MVCL", (), sfp=True),
)
_CONVERTER = "model.converter_layers=2"
#: the last row of Table 2 with FEEL's objectives
FEEL_ROWS = (
    AblationRow("LSFM + MFCL + MVCL + GMR", (_CONVERTER, "loss.gmr=1"), sfp=True),
    AblationRow("LSFM + MFCL + MVCL + GMR + CS", (_CONVERTER, "loss.gmr=1", "loss.cs=1"), sfp=True),
    AblationRow(
        "LSFM + MFCL + MVCL + GMR from one modality",
        (_CONVERTER, "model.converter_target_masked=true", "loss.gmr=1"),
        sfp=True,
    ),
)
ALL_ROWS = ROWS + FEEL_ROWS
#: the numbers of Table 2's rows, from 1
TABLE_2 = tuple(range(1, len(ROWS) + 1))


@dataclass(frozen=True)
class Films:
    """Films of one split: their distinct frames after the frozen stages, and a caption of each film.

    Shapes: prepared [F, C, h', w'], slots int64 [G, N] (real frames first), counts int64 [G].
    """

    prepared: Tensor
    slots: Rows
    counts: Rows
    captions: tuple[str, ...]


def make_films(
    stills: CaptionedStills, count: int, noise: int, data: DataConfig, model: LGDN, seed: int
) -> Films:
    """Splice `count` films, each of another item, with unrelated frames from `noise` further items.

    Raises:
        InputError: the split has too few items.
    """
    config = model.config
    device = next(model.parameters()).device
    spliced = splice_films(stills, count, noise, data, config.frames, seed)
    frames = (frame[None] for frame in spliced.frames(config.image_size))
    with torch.inference_mode():
        prepared = [
            model.online.image.prepare(torch.from_numpy(part).to(device)).cpu() for part in passes(frames)
        ]
    captions = tuple(caption for (caption,) in spliced.captions)
    return Films(torch.cat(prepared).half(), spliced.slots, spliced.counts, captions)


@dataclass(frozen=True)
class Scores:
    """A model's scores of films. Shapes similarity [Q, G], logits [Q, F], relevance by strategy [Q, F]."""

    similarity: Array
    logits: Array
    relevance: Mapping[str, Array]


@torch.inference_mode()
def score_films(model: LGDN, films: Films, tokenizer: TextTokenizer) -> Scores:
    """Score every text with every film and every distinct frame, by the online weights.

    Raises:
        InputError: the model has another fusion than the joint one.
    """
    if not isinstance(model.fusion, JointFusion):
        raise InputError(
            f"model.fusion={model.config.fusion}: the ablation scores all pairs by a joint fusion"
        )
    model.eval()
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        prepared = (x.to(device).float() for x in torch.split(films.prepared, _FRAMES_A_PASS))
        parts = [(model.online.encode_frames(x), model.momentum.encode_frames(x).embedding) for x in prepared]
        ids = tokenizer(films.captions)
        inputs = [torch.from_numpy(x).to(device) for x in (ids.input_ids, ids.attention_mask)]
        text, text_hat = model.online.encode_text(*inputs), model.momentum.encode_text(*inputs).embedding
    frames = torch.cat([x.embedding for x, _ in parts]).float()
    temporal_input = torch.cat([x.temporal_input for x, _ in parts]).float()
    frames_hat = torch.cat([x for _, x in parts]).float()
    tokens = torch.cat([x.tokens for x, _ in parts])
    places = torch.arange(films.slots.shape[1])
    mask = (places[None, :] < torch.from_numpy(films.counts)[:, None]).float().to(device)
    segments = model.online.encode_segment(temporal_input[torch.from_numpy(films.slots).to(device)], mask)
    relevance = {
        s: (
            text_salience(s, text.embedding.float(), text_hat.float())
            @ frame_salience(s, frames, frames_hat).T
        )
        for s in STRATEGIES
    }
    return Scores(
        (text.embedding.float() @ segments.T).cpu().numpy(),
        _match_all(model.fusion, text, tokens, model.config.match_score),
        {name: value.cpu().numpy() for name, value in relevance.items()},
    )


def _match_all(fusion: JointFusion, text: TextFeatures, tokens: Tensor, score: str) -> Array:
    """Match logits of every text with every frame. → [Q, F]."""
    out = np.empty((len(text.embedding), len(tokens)), np.float32)
    for begin in range(0, len(tokens), _FRAMES_A_CALL):
        part = tokens[begin : begin + _FRAMES_A_CALL]
        with torch.autocast(part.device.type, torch.bfloat16):
            frames = fusion.read(part)
            for q, (tokens_of_text, mask) in enumerate(zip(text.tokens, text.attention_mask, strict=True)):
                length, count = int(mask.sum()), len(part)
                logits = fusion.judge(
                    tokens_of_text[None, :length].expand(count, -1, -1),
                    mask[None, :length].expand(count, -1),
                    frames,
                )
                out[q, begin : begin + count] = match_of(logits, score).float().cpu().numpy()
    return out


def measure_row(
    row: AblationRow, test: tuple[Scores, Films], validation: tuple[Scores, Films] | None = None
) -> dict[str, Any]:
    """Measure a trained model: locally by N_salient and strategy, and globally.

    With validation films, also the ensemble, its λ tuned on them for each number of salient frames.
    """

    def local(scores: Scores, films: Films, strategy: str) -> dict[int, Array]:
        relevance = scores.relevance[strategy]
        return sweep(scores.logits, relevance, films.slots, films.counts, SALIENT_COUNTS)

    scores, films = test
    target = np.arange(len(films.captions))
    result: dict[str, Any] = {"row": row.name, "sfp": row.sfp}
    result["global"] = global_ranks(scores.similarity, target).metrics()
    for strategy in STRATEGIES if row.sfp else ("collaborative",):
        matches = local(scores, films, strategy)
        lambdas: dict[int, float] = {}
        if validation is not None:
            validation_target = np.arange(len(validation[1].captions))
            for n, match in local(*validation, strategy).items():
                lambdas[n], _ = tune_lambda(validation[0].similarity, match, validation_target)
        for n in SALIENT_COUNTS:
            ranking = Reranking(scores.similarity, matches[n], target)
            cell: dict[str, Any] = {"local": ranking.ranks(0.0).metrics()}
            if n in lambdas:
                cell |= {"ensemble": ranking.ranks(lambdas[n]).metrics(), "lambda": lambdas[n]}
            result.setdefault(strategy, {})[str(n)] = cell
    return result


def run_ablation(
    recipe: Path,
    overrides: Sequence[str],
    output: Path,
    seeds: Sequence[int],
    films: Mapping[str, int],
    noise: int,
    report: Report,
    tokenizer_file: Path | None = None,
    rows: Sequence[int] = TABLE_2,
) -> list[dict[str, Any]]:
    """Train and measure rows for every seed, except those whose results `output` holds already.

    Checkpoints, of hundreds of megabytes, are deleted once a run is measured.

    Args:
        recipe: the settings that all runs share.
        overrides: `key=value` settings for all runs.
        output: a folder for each run goes there.
        seeds: the seeds to train with.
        films: the numbers of films of the splits `val`, which only tune λ, and `test`.
        noise: the number of items that serve only as unrelated frames.
        report: told about progress.
        tokenizer_file: a `tokenizer.json` instead of the published one.
        rows: numbers of rows in `ALL_ROWS`, from 1.

    Returns:
        one result for each row and seed.

    Raises:
        InputError: there is no such row, the recipe or the data are invalid, or `output` holds results of
            other settings.
    """
    unknown = [number for number in rows if not 1 <= number <= len(ALL_ROWS)]
    if unknown or not rows:
        numbers = ",".join(map(str, rows))
        raise InputError(f"rows is {numbers!r}: the rows are 1 to {len(ALL_ROWS)}", "rows")
    results: list[dict[str, Any]] = []
    made: dict[str, Films] = {}
    for seed in seeds:
        for number in rows:
            row = ALL_ROWS[number - 1]
            folder = output / f"row{number}-seed{seed}"
            done = folder / "result.json"
            settings = (*overrides, *row.settings, f"train.seed={seed}", f"output={folder}")
            config = load_config(recipe, settings)
            settings_now = json.loads(json.dumps(to_mapping(config)))  # tuples become lists, as in the file
            conditions = {"settings": settings_now, "films": dict(films), "noise": noise}
            if not done.exists():
                result = _run(start(config, report, tokenizer_file), row, films, noise, made) | conditions
                replace_text(done, json.dumps(result, indent=1))
                for checkpoint in folder.glob("*.pt"):
                    checkpoint.unlink()
            result = json.loads(done.read_text(encoding="utf-8"))
            if any(result.get(name) != value for name, value in conditions.items()):
                raise InputError(f"{done} was measured with other settings: choose another `output`")
            results.append(result | {"seed": seed})
            report(f"{row.name}, seed {seed}: {_headline(results[-1])}")
    return results


def _run(
    run: Run, row: AblationRow, films: Mapping[str, int], noise: int, made: dict[str, Films]
) -> dict[str, Any]:
    config, model = run.config, run.model
    if not isinstance(model, LGDN):
        raise InputError(f"family={config.family}: the ablation is for lgdn")
    train(run)
    scored: dict[str, tuple[Scores, Films]] = {}
    # Only rows with SFP have an ensemble.
    for split in ("test", "val") if row.sfp else ("test",):
        if split not in made:
            # Films are the same for every row and seed, since the frozen stages never change.
            stills = open_stills(config.data, split)
            made[split] = make_films(stills, films[split], noise, config.data, model, seed=0)
        shown = made[split]
        run.report(f"{row.name}: scoring {films[split]} films of {split}, {len(shown.prepared)} frames")
        scored[split] = score_films(model, shown, run.tokenizer), shown
    frames = {"frames": len(scored["test"][1].prepared)}
    return measure_row(row, scored["test"], scored.get("val")) | frames


def _headline(result: Mapping[str, Any]) -> str:
    measured = {"global": result["global"], **result["collaborative"]["2" if result["sfp"] else "16"]}
    return " · ".join(
        f"{name} R@1 {measured[name]['text_to_video']['R@1']:.1f}"
        for name in ("global", "local", "ensemble")
        if name in measured
    )


def ablation_tables(results: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown: metrics of both directions, mean ± standard deviation over the seeds."""
    seeds = sorted({r["seed"] for r in results})
    measured = {r["row"] for r in results}
    by_row = {
        row.name: sorted((r for r in results if r["row"] == row.name), key=_seed)
        for row in ALL_ROWS
        if row.name in measured
    }
    last = ROWS[-1].name
    films = results[0]["films"]
    heading = (
        f"{films['test']} films, {results[0]['frames']} frames, seeds {seeds}: R@1 / R@5 / R@10; "
        f"λ tuned on {films['val']} other films."
    )
    lines = [heading, "", *_head("Table 2: trained with")]
    for count in (16, 2):
        lines += [_line(name, f"local, {count} frames", _local(by_row[name], count)) for name in by_row]
    lines += [_line(name, "global", [r["global"] for r in by_row[name]]) for name in by_row]
    with_sfp = [row.name for row in ALL_ROWS if row.sfp and row.name in measured]
    lines += [_line(name, "ensemble, 2 frames", _cells(by_row[name], 2, "ensemble")) for name in with_sfp]
    if last in measured:
        lines += ["", *_head("Figure 3: N_salient")]
        for kind in ("local", "ensemble"):
            lines += [_line(str(n), kind, _cells(by_row[last], n, kind)) for n in SALIENT_COUNTS]
        lines += ["", *_head("Table 1: strategy")]
        for strategy in STRATEGIES:
            lines.append(_line(strategy, "local", [r[strategy]["2"]["local"] for r in by_row[last]]))
        lines += ["", *_claims(by_row)]
    return "\n".join(lines)


def _claims(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The claims of the papers, as differences within each seed, of the rows that were measured."""
    full = by_row[ROWS[-1].name]
    ranked = [r["global"] for r in full]
    claims = {}
    if ROWS[-2].name in by_row:
        without = by_row[ROWS[-2].name]
        claims["local: SFP, 2 frames − no SFP, all frames"] = _local(full, 2), _local(without, 16)
    for n in (2, 3, 4):
        claims[f"local: {n} salient frames − 16"] = _local(full, n), _local(full, 16)
    for n in (2, 3, 4):
        best = _cells(full, n, "ensemble")
        claims[f"{n} frames: ensemble − local"] = best, _local(full, n)
        claims[f"{n} frames: ensemble − global"] = best, ranked
    for row in FEEL_ROWS:
        if row.name in by_row:
            more, added = by_row[row.name], row.name.removeprefix(f"{ROWS[-1].name} ")
            claims[f"global: {added} − without"] = [r["global"] for r in more], ranked
            for kind in ("local", "ensemble"):
                claims[f"{kind}, 2 frames: {added} − without"] = _cells(more, 2, kind), _cells(full, 2, kind)
    lines = ["| more − less | R@1, text → video, of each seed | R@SUM of each seed |", "|---|---|---|"]
    for name, (more, less) in claims.items():
        cells = []
        for value in (_recall_at_1, _recall_sum):
            differences = [value(a) - value(b) for a, b in zip(more, less, strict=True)]
            cells.append(", ".join(f"{x:+.1f}" for x in differences) + f": {_spread(differences)}")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return lines


def _recall_at_1(metrics: Mapping[str, Any]) -> float:
    return float(metrics["text_to_video"]["R@1"])


def _recall_sum(metrics: Mapping[str, Any]) -> float:
    return float(metrics["R@SUM"])


def _seed(result: Mapping[str, Any]) -> int:
    return int(result["seed"])


def _cells(results: Sequence[Mapping[str, Any]], count: int, kind: str) -> list[Mapping[str, Any]]:
    return [r["collaborative"][str(count)][kind] for r in results]


def _local(results: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    return _cells(results, count, "local")


def _head(what: str) -> list[str]:
    return [f"| {what} | inference | text → video | video → text | R@SUM |", "|---|---|---|---|---|"]


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _line(name: str, inference: str, metrics: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        " / ".join(_spread([m[way][k] for m in metrics]) for k in ("R@1", "R@5", "R@10"))
        for way in ("text_to_video", "video_to_text")
    ]
    return f"| {name} | {inference} | {cells[0]} | {cells[1]} | {_spread([m['R@SUM'] for m in metrics])} |"
