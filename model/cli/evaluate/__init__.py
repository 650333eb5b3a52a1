"""`reelfind-model evaluate`: a subcommand for each kind of material, and one for the paper's figure."""

from __future__ import annotations

import typer

from model.cli.evaluate.dataset import dataset_command
from model.cli.evaluate.features import features_command
from model.cli.evaluate.figure import figure_command
from model.cli.evaluate.films import films_command
from model.cli.evaluate.moments import moments_command
from model.cli.evaluate.photos import photos_command
from model.cli.evaluate.probabilities import probabilities_command
from model.cli.evaluate.questions import questions_command
from model.cli.evaluate.spliced_moments import spliced_moments_command
from model.cli.evaluate.videos import videos_command

app = typer.Typer(
    help="Evaluate retrieval, or answers to questions, with a checkpoint or a bundle; or predicted moments.",
    no_args_is_help=True,
)
app.command("photos")(photos_command)
app.command("films")(films_command)
app.command("dataset")(dataset_command)
app.command("videos")(videos_command)
app.command("probabilities")(probabilities_command)
app.command("questions")(questions_command)
app.command("features")(features_command)
app.command("moments")(moments_command)
app.command("spliced-moments")(spliced_moments_command)
app.command("figure")(figure_command)
