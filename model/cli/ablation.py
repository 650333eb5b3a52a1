"""`reelfind-model ablation`: the paper's ablation, on spliced films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.cli.arguments import whole_numbers
from model.cli.terminal import report
from model.experiments.ablation import TABLE_2, ablation_tables, run_ablation
from model.runtime.files import replace_text

_RECIPE = Path(__file__).parents[1] / "recipes" / "ablation.yaml"


def ablation_command(
    settings: Annotated[
        list[str], typer.Argument(help="Settings to change, as key=value, such as data=DIR train.threads=2.")
    ],
    recipe: Annotated[Path, typer.Option(help="YAML recipe; it must freeze the whole backbone.")] = _RECIPE,
    output: Annotated[
        Path, typer.Option(help="Folder for runs and results; finished runs are not repeated.")
    ] = Path("runs/ablation"),
    seeds: Annotated[
        str, typer.Option(help="Random seeds, separated by commas: each row is trained once for each.")
    ] = "0,1,2",
    rows: Annotated[
        str,
        typer.Option(
            help="Rows to train, separated by commas: 1 to 5 are those of Table 2; 6, 7 and 8 add to row 5 "
            "FEEL's GMR, GMR and CS, and GMR from one modality."
        ),
    ] = ",".join(map(str, TABLE_2)),
    films: Annotated[int, typer.Option(min=2, help="Number of test films, with one query each.")] = 500,
    val_films: Annotated[
        int, typer.Option(min=2, help="Number of validation films, on which λ is tuned.")
    ] = 300,
    noise: Annotated[
        int, typer.Option(min=2, help="Number of items that serve only as unrelated frames.")
    ] = 150,
) -> None:
    """Repeat the ablation of the LGDN paper on noisy films.

    Trains every row of Table 2 for every seed, measures it, and prints the tables as Markdown. Writes the
    results to OUTPUT/results.json too. Resumes after an interruption.
    """
    counts = {"val": val_films, "test": films}
    chosen = whole_numbers("rows", rows)
    results = run_ablation(
        recipe, settings, output, whole_numbers("seeds", seeds), counts, noise, report, rows=chosen
    )
    replace_text(output / "results.json", json.dumps(results, indent=1))
    typer.echo(ablation_tables(results))
