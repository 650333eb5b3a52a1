"""`reelfind-model feel-ablation`: FEEL's ablation, on films whose subtitles tell a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.cli.arguments import whole_numbers
from model.cli.terminal import report
from model.experiments.feel_ablation import ROWS, Recipes, feel_tables, run_feel_ablation
from model.experiments.feel_report import write_figures
from model.runtime.errors import InputError
from model.runtime.files import replace_text

_RECIPES = Path(__file__).parents[1] / "recipes"


def feel_ablation_command(
    data: Annotated[Path, typer.Argument(help="Folder that `reelfind-model feel-films` wrote.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of both stages to change, as key=value, such as train.threads=1."),
    ] = None,
    pretrain: Annotated[
        list[str] | None,
        typer.Option(help="A setting of pre-training alone, such as train.epochs=4; repeatable."),
    ] = None,
    finetune: Annotated[
        list[str] | None, typer.Option(help="A setting of fine-tuning alone; repeatable.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for runs and results; finished runs are not repeated.")
    ] = Path("runs/feel_ablation"),
    seeds: Annotated[
        str, typer.Option(help="Random seeds, separated by commas: each row is trained once for each.")
    ] = "0,1,2",
    rows: Annotated[
        str, typer.Option(help="Rows to train, by number: 0 is no pre-training, 1 to 3 are those of Table 5.")
    ] = "0,1,2,3",
    photos: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of photos that the films were made of, for pictures; repeatable."),
    ] = None,
) -> None:
    """Repeat the ablation of the FEEL paper (Table 5) on films whose subtitles tell a part of them.

    Pre-trains and fine-tunes every row for every seed, measures it on the test films, and prints the tables
    as Markdown. OUTPUT gets results.json, the paper's Figures 4 and 5 as sensitivity.png and similarity.png,
    and Figure 3 as cases.html. Resumes after an interruption.
    """
    numbers, chosen = whole_numbers("seeds", seeds), whole_numbers("rows", rows)
    if not all(0 <= row < len(ROWS) for row in chosen):
        raise InputError(f"rows is {rows!r}: there are rows 0 to {len(ROWS) - 1}", "rows")
    recipes = Recipes(
        _RECIPES / "feel_ablation.yaml",
        _RECIPES / "feel_ablation_finetuning.yaml",
        tuple(settings or ()),
        tuple(pretrain or ()),
        tuple(finetune or ()),
    )
    results = run_feel_ablation(data, recipes, output, numbers, report, [ROWS[row] for row in chosen])
    replace_text(output / "results.json", json.dumps(results, indent=1))
    write_figures(results, data, output, photos or [])
    typer.echo(feel_tables(results))
