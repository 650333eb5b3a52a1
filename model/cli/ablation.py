"""`reelfind-model ablation`: the paper's ablation on spliced films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.cli.terminal import report
from model.experiments.ablation import ablation_tables, run_ablation
from model.runtime.errors import InputError
from model.runtime.files import replace_text

_RECIPE = Path(__file__).parents[1] / "recipes" / "ablation.yaml"


def ablation_command(
    settings: Annotated[list[str], typer.Argument(help="key=value words, such as data=DIR train.threads=2.")],
    recipe: Annotated[Path, typer.Option(help="A YAML recipe that freezes the whole backbone.")] = _RECIPE,
    output: Annotated[Path, typer.Option(help="Where runs and results go; finished ones are kept.")] = Path(
        "runs/ablation"
    ),
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    films: Annotated[int, typer.Option(min=2, help="Test films, one query each.")] = 500,
    val_films: Annotated[int, typer.Option(min=2, help="Validation films, which tune λ.")] = 300,
    noise: Annotated[int, typer.Option(min=2, help="Photos that are only unrelated frames.")] = 150,
) -> None:
    """Train every row of the paper's Table 2 for every seed, measure all on noisy films, print the tables.

    The same command goes on where it was interrupted. Results are also in OUTPUT/results.json.
    """
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise InputError(f"seeds={seeds!r}: whole numbers separated by commas, such as 0,1,2") from error
    counts = {"val": val_films, "test": films}
    results = run_ablation(recipe, settings, output, numbers, counts, noise, report)
    replace_text(output / "results.json", json.dumps(results, indent=1))
    typer.echo(ablation_tables(results))
