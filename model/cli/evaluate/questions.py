"""`reelfind-model evaluate questions`: accuracy of answers to questions about videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import open_model, show_result
from model.cli.terminal import report
from model.config import load_config
from model.data.datasets import SplitName, annotations_of
from model.data.datasets.questions import answer_prior
from model.data.sources import Source, open_source
from model.data.stills import CaptionedStills
from model.evaluation.corpus import TokenOptions
from model.evaluation.questions import (
    QuestionOptions,
    evaluate_questions,
    question_settings,
    questions_table,
)
from model.evaluation.spliced import NOISY, SplicedFilms, splice_films
from model.families.encoder import FRAME_CHOICES, FrameChoice
from model.runtime.errors import InputError


def questions_command(
    models: options.Models,
    dataset: Annotated[Path, typer.Option(help="Recipe, or config.yaml of a run, that names the questions.")],
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Setting to change, as key=value, such as data.videos=DIR; repeatable."),
    ] = None,
    split: options.SplitOption = "test",
    films: Annotated[
        int, typer.Option(min=0, help="Ask about so many noisy films spliced from stills; 0: about videos.")
    ] = 0,
    film_noise: Annotated[
        int, typer.Option(min=2, help="Number of further stills, which serve only as unrelated frames.")
    ] = 150,
    frames: Annotated[
        str, typer.Option(help="Choices of frames to compare: salient, random, all, none.")
    ] = ",".join(FRAME_CHOICES),
    question_alone: Annotated[
        Path | None,
        typer.Option(help="Checkpoint that was trained with model.frames_read=none, to compare with."),
    ] = None,
    num_salient_frames: options.NumSalientFrames = None,
    tokens: options.Tokens = "int8",
    tokens_per_frame: options.TokensPerFrame = None,
    salience: options.Salience = None,
    seed: Annotated[int, typer.Option(help="Random seed: decides random frames and films.")] = 0,
    threads: options.Threads = 2,
    device: options.Device = "cpu",
    output: options.Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate answers to questions about videos: salient frames against others, and against no video."""
    config = load_config(dataset, setting or ())
    if not config.data.asks:
        raise InputError(
            f"{dataset} has data.kind={config.data.kind}, which has no questions: use questions, msrvtt_qa "
            "or msvd_qa"
        )
    measured = QuestionOptions(
        frames=tuple(cast(FrameChoice, name) for name in frames.split(",")),
        num_salient_frames=num_salient_frames,
        tokens=TokenOptions(cast(Literal["int8", "float32"], tokens), tokens_per_frame),
        seed=seed,
    )
    encoder = open_model(models, None, salience, threads, device)
    alone = None
    if question_alone is not None:
        alone = open_model([question_alone], None, None, threads, device)
    source: Source | SplicedFilms = open_source(config, cast(SplitName, split), report)
    title = source.name
    if films:
        if not isinstance(source, CaptionedStills):
            raise InputError("films are spliced from stills, not from videos: leave --films out")
        source = splice_films(source, films, film_noise, NOISY, encoder.profile.frames_per_segment, seed)
        title = f"noisy films, {title}"
    prior = answer_prior(annotations_of(config.data, "train"))
    result = {
        "settings": question_settings(encoder, measured),
        "questions": {title: evaluate_questions(encoder, source, prior, measured, alone, report)},
    }
    show_result(result, questions_table(result), output, as_json)
