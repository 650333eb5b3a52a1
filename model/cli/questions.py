"""`reelfind-model questions`: makes questions from the captions of photos or frames of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.terminal import report
from model.data.question_files import write_questions


def questions_command(
    data: Annotated[
        list[Path],
        typer.Argument(help="Folders with captions.csv and images/, and frames.csv for frames of videos."),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder to write {train,val,test}_qa.json and youtube_mapping.txt to.")
    ],
) -> None:
    """Make questions from captions by rule, in the form of MSVD-QA.

    Train on them with data.kind=questions, data=DIR (the first folder), data.second=DIR (the second one) and
    data.annotations=OUTPUT.
    """
    write_questions(data, output, report)
    report(f"questions written to {output}")
