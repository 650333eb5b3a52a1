"""FEEL's ablation (Table 5 of the paper) on films of which the text tells a part: pre-train, then fine-tune.

Every row is pre-trained with other losses and fine-tuned alike, for each of several seeds; rows of one seed
start from the same weights and see the same batches. Both tasks of the paper are measured on the test films.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from model.config import Config, essentials, load_config
from model.data.feature_sets import open_feature_source
from model.experiments.feel_diagnosis import diagnose, shares_of_constant
from model.experiments.feel_measures import asked, measure_model
from model.families.base import FeatureFamily
from model.families.feel.config import FeelLossConfig
from model.families.feel.network import Feel
from model.progress import Report
from model.runtime.errors import InputError
from model.runtime.files import replace_text
from model.settings import to_mapping
from model.training.run import Run
from model.training.setup import start
from model.training.train import train


@dataclass(frozen=True)
class FeelRow:
    """A row: the settings of its pre-training; None: there is no pre-training."""

    name: str
    settings: tuple[str, ...] | None


#: the rows of Table 5, after what fine-tuning alone reaches
ROWS = (
    FeelRow("no pre-training", None),
    FeelRow("MLM + MFM", ("loss.gmr=0", "loss.cs=0")),
    FeelRow("MLM + MFM + GMR", ("loss.cs=0",)),
    FeelRow("MLM + MFM + GMR + CS", ()),
)
#: what a table shows: its name, and the task and the key of `evaluate_tvr`
COLUMNS = {
    "videos R@1": ("VR", "r1"),
    "R@5": ("VR", "r5"),
    "R@10": ("VR", "r10"),
    "moments IoU 0.5 R@1": ("VCMR", "0.5-r1"),
    "0.5 R@10": ("VCMR", "0.5-r10"),
    "0.5 R@100": ("VCMR", "0.5-r100"),
    "0.7 R@1": ("VCMR", "0.7-r1"),
    "0.7 R@10": ("VCMR", "0.7-r10"),
    "0.7 R@100": ("VCMR", "0.7-r100"),
}
_LOSSES = ("mlm", "mfm", "gmr_t2v", "gmr_v2t", "cs_t2v", "cs_v2t")
_KINDS = {"v": "not told", "vt": "told"}


@dataclass(frozen=True)
class Recipes:
    """Settings of both stages: recipes, and `key=value` that change them."""

    pretraining: Path
    finetuning: Path
    both: tuple[str, ...] = ()
    only_pretraining: tuple[str, ...] = ()
    only_finetuning: tuple[str, ...] = ()

    def load(self, row: FeelRow, data: Path, folder: Path, seed: int) -> tuple[Config | None, Config]:
        """The settings of both stages of a row; None: it has no pre-training.

        Raises:
            InputError: a recipe or a setting is invalid.
        """
        common = (*self.both, f"train.seed={seed}")
        first: Config | None = None
        started: tuple[str, ...] = ()
        if row.settings is not None:
            texts = data / "pretraining"
            first = load_config(
                self.pretraining,
                (
                    f"data.features={texts / 'features'}",
                    f"data.subtitles={texts / 'transcripts.json'}",
                    *common,
                    *self.only_pretraining,
                    *row.settings,
                    f"output={folder / 'pretraining'}",
                ),
            )
            started = (f"train.start_from={folder / 'pretraining' / 'last.pt'}",)
        texts = data / "finetuning"
        second = load_config(
            self.finetuning,
            (
                f"data.annotations={texts / 'annotations'}",
                f"data.features={texts / 'features'}",
                f"data.subtitles={texts / 'subtitles.jsonl'}",
                *common,
                *self.only_finetuning,
                *started,
                f"output={folder / 'finetuning'}",
            ),
        )
        return first, second


def run_feel_ablation(
    data: Path,
    recipes: Recipes,
    output: Path,
    seeds: Sequence[int],
    report: Report,
    rows: Sequence[FeelRow] = ROWS,
    tokenizer_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Train and measure rows for each seed, except those whose results `output` holds already.

    Checkpoints are deleted once a run is measured.

    Args:
        data: the folder that `reelfind-model feel-films` wrote.
        recipes: the settings of both stages.
        output: a folder for each run goes there.
        seeds: the seeds to train with.
        report: told about progress.
        rows: what to compare.
        tokenizer_file: a `tokenizer.json` instead of the published one.

    Returns:
        one result for each row and seed, see `measure_model`; with `row`, `seed` and `settings`; with GMR or
        CS also `diagnosis` of the pre-trained model on the test films, see `diagnose`.

    Raises:
        InputError: settings or data are invalid, or `output` holds results of other settings or films.
    """
    runs = [(seed, row, output / f"{_folder(row)}-seed{seed}") for seed in seeds for row in rows]
    settings = [recipes.load(row, data, folder, seed) for seed, row, folder in runs]
    films = _films(data)
    results: list[dict[str, Any]] = []
    for (seed, row, folder), (first, second) in zip(runs, settings, strict=True):
        done = folder / "result.json"
        stages = [essentials(to_mapping(config)) for config in (first, second) if config is not None]
        # Tuples become lists, as in the file.
        conditions = json.loads(json.dumps({"settings": stages, "films_made": films}))
        if not done.exists():
            result = _run(row, first, second, report, tokenizer_file)
            replace_text(done, json.dumps(conditions | result, indent=1))
            for checkpoint in folder.glob("*/*.pt"):
                checkpoint.unlink()
        result = json.loads(done.read_text(encoding="utf-8"))
        if any(result.get(name) != value for name, value in conditions.items()):
            raise InputError(f"{done} was measured with other settings or films: choose another `output`")
        results.append(result | {"row": row.name, "seed": seed})
        report(f"{row.name}, seed {seed}: videos R@1 {result['metrics']['VR']['r1']:.1f}")
    return results


def _folder(row: FeelRow) -> str:
    return f"row{ROWS.index(row)}" if row in ROWS else row.name


def _films(data: Path) -> Any:
    """How the films were made.

    Raises:
        InputError: `data` does not hold films, or not all of them.
    """
    path = data / "films.json"
    if not path.is_file():
        raise InputError(f"no films.json in {data}: make the films with `reelfind-model feel-films` first")
    return json.loads(path.read_text(encoding="utf-8"))


def _run(
    row: FeelRow, first: Config | None, second: Config, report: Report, tokenizer_file: Path | None
) -> dict[str, Any]:
    diagnosis: dict[str, dict[str, float]] = {}
    if first is not None:
        report(f"{row.name}: pre-training")
        before = _train(first, report, tokenizer_file)
        losses = first.loss
        if (
            isinstance(before.model, Feel)
            and isinstance(losses, FeelLossConfig)
            and (losses.gmr or losses.cs)
        ):
            films = open_feature_source(second.data, "test", report)
            diagnosis = diagnose(before.model, before.tokenizer, films, losses)
    report(f"{row.name}: fine-tuning")
    run = _train(second, report, tokenizer_file)
    family = run.family
    if not isinstance(family, FeatureFamily):
        raise InputError(f"family={second.family}: this ablation is for feel")
    test = open_feature_source(second.data, "test", report)
    encoder = family.encoder(run.model, run.tokenizer)
    measured = measure_model(encoder, test, report) | {"asked": asked(test), "count": len(test)}
    if first is not None:
        measured["pretraining"] = _last_losses(Path(first.output))
    if diagnosis:
        measured["diagnosis"] = diagnosis
    return measured


def _last_losses(folder: Path) -> dict[str, float]:
    """The losses of the last steps of pre-training, the mean of a tenth of the logged steps."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[-max(1, len(lines) // 10) :]]
    names = [name for name in rows[0] if name not in ("step", "epoch")]
    return {name: fmean(row[name] for row in rows) for name in names}


def _train(config: Config, report: Report, tokenizer_file: Path | None) -> Run:
    run = start(config, report, tokenizer_file)
    train(run)
    return run


def feel_tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Table 5 as Markdown: mean ± standard deviation over the seeds, and differences within each seed."""
    by_row: dict[str, list[Mapping[str, Any]]] = {}
    for result in sorted(results, key=lambda r: int(r["seed"])):
        by_row.setdefault(result["row"], []).append(result)
    seeds = sorted({result["seed"] for result in results})
    any_result = results[0]
    lines = [
        f"{any_result['count']} test films, {len(any_result['asked'])} queries, seeds {seeds}; percent.",
        "",
        f"| pre-trained with | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    for name, group in by_row.items():
        cells = [_spread([_figure(r, *column) for r in group]) for column in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    kinds = [kind for kind in _KINDS if f"{kind}-r1" in any_result["metrics"].get("VR_by_type", {})]
    if kinds:
        lines += ["", f"| videos R@1, shots that are | {' | '.join(_KINDS[k] for k in kinds)} |"]
        lines.append(f"|---|{'---:|' * len(kinds)}")
        for name, group in by_row.items():
            cells = [_spread([_figure(r, "VR_by_type", f"{kind}-r1") for r in group]) for kind in kinds]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    losses = {name: group for name, group in by_row.items() if "pretraining" in group[0]}
    if losses:
        lines += ["", f"| loss at the end of pre-training | {' | '.join(_LOSSES)} |"]
        lines.append(f"|---|{'---:|' * len(_LOSSES)}")
        for name, group in losses.items():
            shown = [[r["pretraining"].get(loss) for r in group] for loss in _LOSSES]
            cells = ["" if None in values else f"{fmean(values):.3f}" for values in shown]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += _diagnosis_lines(by_row)
    names = list(by_row)
    if len(names) < 2:
        return "\n".join(lines)
    compared = ("videos R@1", "R@10", "moments IoU 0.5 R@1", "0.5 R@10")
    lines += ["", f"| more − less, of each seed | {' | '.join(compared)} |"]
    lines.append(f"|---|{'---|' * len(compared)}")
    for less, more in pairwise(names):
        cells = []
        for column in compared:
            key = COLUMNS[column]
            pairs = _same_seeds(by_row[more], by_row[less])
            values = [_figure(a, *key) - _figure(b, *key) for a, b in pairs]
            cells.append(", ".join(f"{x:+.1f}" for x in values) + (f": {_spread(values)}" if values else ""))
        lines.append(f"| {more} − {less} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _diagnosis_lines(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What is reconstructed of the test films after pre-training, of rows with GMR or CS."""
    known = {
        name: [result["diagnosis"] for result in group]
        for name, group in by_row.items()
        if all("diagnosis" in result for result in group)
    }
    if not known:
        return []
    columns = list(shares_of_constant(next(iter(known.values()))[0]))
    told = "| v told, % | t told, % | hinges of CS above 0, % |"
    lines = ["", f"| error ÷ that of a constant | {' | '.join(columns)} {told}"]
    lines.append(f"|---|{'---:|' * (len(columns) + 3)}")
    for name, group in known.items():
        shares = [shares_of_constant(each) for each in group]
        cells = [f"{fmean(share[column] for share in shares):.2f}" for column in columns]
        cells += [f"{100 * fmean(each[m]['told'] for each in group):.0f}" for m in ("v", "t")]
        cells.append(f"{100 * fmean(each[m]['active'] for each in group for m in ('v', 't')):.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _same_seeds(
    more: Sequence[Mapping[str, Any]], less: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    by_seed = {result["seed"]: result for result in less}
    return [(result, by_seed[result["seed"]]) for result in more if result["seed"] in by_seed]


def _figure(result: Mapping[str, Any], task: str, key: str) -> float:
    return float(result["metrics"][task][key])


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
