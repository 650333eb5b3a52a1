"""`reelfind-model`: what needs PyTorch. `train`, `evaluate`, `export`, `frames`, `ablation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.ablation import ablation_command
from model.cli.evaluate import app as evaluate_app
from model.cli.export import export_command
from model.cli.frames import frames_command
from model.cli.terminal import ReportingGroup, report
from model.config import load_config
from model.training.launch import launch

app = typer.Typer(
    cls=ReportingGroup,
    help="Train, measure and export Reelfind's models.",
    epilog="Exit codes: 0 done, 2 bad input, 3 failed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("train")
def train_command(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as model/recipes/mini.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="key=value words, such as data=DIR train.epochs=2.")
    ] = None,
) -> None:
    """Train by a recipe; the same command continues an interrupted run.

    Ctrl-C ends after the step and saves it; a second one ends at once.
    """
    launch(load_config(recipe, settings or ()), report)


app.add_typer(evaluate_app, name="evaluate")
app.command("export")(export_command)
app.command("frames")(frames_command)
app.command("ablation")(ablation_command)


def main() -> None:
    """Entry point of `reelfind-model`."""
    app()
