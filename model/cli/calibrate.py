"""`reelfind-model calibrate`: adds probabilities to a bundle, fitted on validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import show_result, without_nan
from model.cli.terminal import report
from model.data.sources import Source
from model.data.stills import CaptionedStills, read_stills
from model.evaluation.calibrating import (
    LEAST_ITEMS,
    Observed,
    fit_calibration,
    measurement_with_nonsense,
    observe,
)
from model.evaluation.calibration_figures import calibration_table, figures_of_both
from model.evaluation.encoders import bundle_encoder
from model.evaluation.measure import Options
from model.evaluation.spliced import NOISY, SplicedFilms, splice_items
from model.export.calibration import add_calibration
from model.export.reference_images import encode_reference_images
from model.families.encoder import Encoder
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError


def calibrate_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle whose scores are calibrated.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder with captions.csv and images/, of photos or frames of videos; repeatable."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    split: Annotated[
        str, typer.Option(help="Split to fit on: the bundle must not have learned from it.")
    ] = "val",
    together: Annotated[
        int, typer.Option(min=1, help="Also films of so many items of each folder, each in turn; 1: none.")
    ] = 3,
    draws: Annotated[int, typer.Option(min=1, help="Libraries that are drawn of each size.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Decides which items and texts are drawn.")] = 0,
    train_split: Annotated[
        str, typer.Option(help="Split of the images that --reference-images compares queries with.")
    ] = "train",
    reference_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Images of --train-split that the bundle keeps, of 64 bytes each: what a "
            "query finds among them says how well it fits any picture. 0: none.",
        ),
    ] = 12_000,
    threads: options.Threads = 2,
    as_json: options.AsJson = False,
) -> None:
    """Write a copy of a bundle that knows how probable it is that a hit shows the query.

    Searches libraries from which items were removed at random: for captions whose item is there, for captions
    whose item is not, and for nonsense. Fits what the scores of the first stage, and those after re-ranking,
    say of a hit being right, and prints how well that tells these searches apart. Of several folders, each is
    measured with what was fitted on the others too. A library of the bundle without probabilities must be
    indexed again: the new bundle has another checksum.
    """
    names = [folder.resolve().name for folder in data]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two folders are called {name}: rename one, so that results can name them", "data")
    stills = [read_stills(folder, split) for folder in data]
    opened = Bundle.open(bundle, threads=threads)
    lines = [part.use(name, "calibration") for name, part in zip(names, stills, strict=True)]
    images = None
    if reference_images and not opened.manifest.has_video_encoder:
        compared = [read_stills(folder, train_split) for folder in data]
        images = encode_reference_images(opened, compared, reference_images, seed, report)
        lines += [
            part.use(name, "reference images", whole=False)
            for name, part in zip(names, compared, strict=True)
        ]
    encoder = bundle_encoder(opened)
    observed: dict[str, dict[str, Observed]] = {}
    for name, part in zip(names, stills, strict=True):
        report(f"{name}: {len(part):,} {part.unit}, split {split}")
        observed[name] = {
            title: observe(
                *measurement_with_nonsense(encoder, source, Options(), seed, report),
                draws,
                seed,
                report,
                reference_images=images,
            )
            for title, source in _galleries(name, part, together, encoder, seed).items()
        }
    calibration = fit_calibration([each for own in observed.values() for each in own.values()])
    figures = {
        title: figures_of_both(calibration, each) for own in observed.values() for title, each in own.items()
    }
    if len(observed) > 1:
        for name, own in observed.items():
            rest = [each for other, parts in observed.items() if other != name for each in parts.values()]
            others = fit_calibration(rest)
            figures |= {
                f"{title}, fitted without {name}": figures_of_both(others, each)
                for title, each in own.items()
            }
    result = {"figures": without_nan(figures), "calibration": calibration.model_dump()}
    kept = 0 if images is None else len(images)
    recipe = {
        "split": split,
        "together": together,
        "draws": draws,
        "seed": seed,
        "reference_images": kept,
        "train_split": train_split if kept else "",
    }
    add_calibration(opened, calibration, output, recipe, lines, result["figures"], images)
    report(f"bundle with a calibration written to {output}")
    show_result(result, calibration_table({**result, "figures": figures}), None, as_json)


def _galleries(
    name: str, stills: CaptionedStills, together: int, encoder: Encoder, seed: int
) -> dict[str, Source | SplicedFilms]:
    """What is searched, by its title: the items, and films of several of them."""
    if together == 1:
        return {name: stills}
    if len(stills) < LEAST_ITEMS * together:
        raise InputError(
            f"{name} has {len(stills)} {stills.unit} of split {stills.name}, too few for {LEAST_ITEMS} films "
            f"of {together}: name another folder, or set --together 1"
        )
    slots = encoder.profile.frames_per_segment
    films = splice_items(stills, together, NOISY.views, slots, seed)
    return {name: stills, f"{name} by {together}": films}
