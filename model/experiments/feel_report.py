"""Writes the figures of FEEL's ablation from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from model.experiments.feel_figures import (
    draw_sensitivity,
    draw_similarity,
    film_pictures,
    read_shown,
    save_image,
    write_cases,
)

#: the rows whose cases Figure 3 compares: without and with GMR
COMPARED = ("MLM + MFM", "MLM + MFM + GMR")


def write_figures(
    results: Sequence[Mapping[str, Any]], data: Path, output: Path, photos: Sequence[Path] = ()
) -> None:
    """Write sensitivity.png (Figure 4), similarity.png (Figure 5) and cases.html (Figure 3).

    Sensitivity is the mean over the seeds. The matrix is that of the last row and the lowest seed; so are the
    cases, which need both rows that are compared.

    Args:
        results: of `run_feel_ablation`.
        data: the folder of the films.
        output: where the figures go.
        photos: the folders that the films were made of; empty: figures without pictures.

    Raises:
        InputError: a picture is missing.
    """
    seed = min(result["seed"] for result in results)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["row"], []).append(result)
    curves = {name: _mean_curve([r["sensitivity"] for r in group]) for name, group in groups.items()}
    save_image(draw_sensitivity(curves), output / "sensitivity.png")
    shown, folders = read_shown(data / "films.jsonl"), [folder / "images" for folder in photos]
    of_seed = {result["row"]: result for result in results if result["seed"] == seed}
    last = of_seed[results[-1]["row"]]
    films = [film_pictures(shown[name], folders) for name in last["films"]] if folders else []
    matrix = np.array(last["similarity"], np.float32)
    save_image(draw_similarity(matrix, last["queries"], films), output / "similarity.png")
    if all(name in of_seed for name in COMPARED):
        before, after = (of_seed[name] for name in COMPARED)
        write_cases(output / "cases.html", before, after, shown, folders)


def _mean_curve(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    return [
        {"words": points[0]["words"], "change": fmean(point["change"] for point in points)}
        for points in zip(*curves, strict=True)
    ]
