"""The command `reelfind-model`, for everything that needs PyTorch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from model.cli.ablation import ablation_command
from model.cli.calibrate import calibrate_command
from model.cli.compress import compress_command
from model.cli.evaluate import app as evaluate_app
from model.cli.export import export_command
from model.cli.export_shots import export_shots_command
from model.cli.features import features_command
from model.cli.feel_ablation import feel_ablation_command
from model.cli.feel_films import feel_films_command
from model.cli.frames import frames_command
from model.cli.importing import import_command
from model.cli.moment_head import moment_head_command
from model.cli.questions import questions_command
from model.cli.teacher import teacher_command
from model.cli.terminal import ModelCommands, report
from model.cli.tune import tune_command
from model.config import load_config
from model.training.launch import launch

app = typer.Typer(
    cls=ModelCommands,
    help="Import, train, evaluate and export the models of Reelfind.",
    epilog="Exit codes: 0 success, 2 bad input, 3 failure, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("train")
def train_command(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as model/recipes/mini.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, as key=value, such as data=DIR train.epochs=2."),
    ] = None,
) -> None:
    """Train a model by a recipe.

    Repeat the command to resume an interrupted run. Ctrl-C finishes the current step and saves it; a second
    Ctrl-C stops at once. Several processes train as one with train.processes=N, or, on several hosts, where
    torchrun starts the command.
    """
    launch(partial(load_config, recipe, settings or ()), report)


app.add_typer(evaluate_app, name="evaluate")
app.command("tune")(tune_command)
app.command("import")(import_command)
app.command("export")(export_command)
app.command("export-shots")(export_shots_command)
app.command("frames")(frames_command)
app.command("features")(features_command)
app.command("compress")(compress_command)
app.command("moment-head")(moment_head_command)
app.command("calibrate")(calibrate_command)
app.command("questions")(questions_command)
app.command("teacher")(teacher_command)
app.command("ablation")(ablation_command)
app.command("feel-films")(feel_films_command)
app.command("feel-ablation")(feel_ablation_command)


def main() -> None:
    """Entry point of `reelfind-model`."""
    app()
