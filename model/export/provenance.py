"""The provenance of a bundle: its recipe, and the data that its run really trained on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.config import Config, essentials
from model.data.record import TrainingData, checkpoint_name
from model.runtime.bundle.manifest import Provenance, SourceRecord
from model.runtime.errors import InputError
from model.settings import to_mapping

#: stands for a licence or a source that the author of a bundle does not tell
NOT_STATED = "not stated"


def make_provenance(
    config: Config,
    data: Sequence[TrainingData],
    weights: Iterable[Mapping[str, str]],
    *,
    match_similarity: float | None = None,
    metrics: Mapping[str, Any] | None = None,
    data_licences: Sequence[str] = (),
    data_sources: Sequence[str] = (),
) -> Provenance:
    """The provenance of a bundle that is exported from checkpoints.

    Args:
        config: the settings of the checkpoints.
        data: what each of the averaged checkpoints trained on.
        weights: {"name", "licence", "source"} of the published weights.
        match_similarity: the weight that was set for export; None: it is as trained.
        metrics: the results of an evaluation.
        data_licences: the licence of each data set, in the order of `dataset_names`; empty: not stated.
        data_sources: where each data set comes from, in the same order; empty: not stated.

    Raises:
        InputError: a licence or source is blank, or their number is not that of the data sets.
    """
    names = dataset_names(data)
    licences = _stated("data_licence", data_licences, names)
    sources = _stated("data_source", data_sources, names)
    recipe: dict[str, Any] = {"name": config.name, "averaged": len(data)}
    if match_similarity is not None:
        recipe["match_similarity"] = match_similarity
    if config.train.start_from:
        recipe["start_from"] = checkpoint_name(config.train.start_from)
    return Provenance(
        recipe=json.dumps(recipe | essentials(to_mapping(config))),
        data=tuple(
            SourceRecord(name=name, licence=licence, source=source)
            for name, licence, source in zip(names, licences, sources, strict=True)
        ),
        weights=tuple(SourceRecord(**source) for source in weights),
        commit=current_commit(),
        metrics=dict(metrics or {}),
    )


def extended(
    before: Provenance,
    part: str,
    recipe: Mapping[str, Any],
    data: Sequence[str],
    metrics: Mapping[str, Any] | None = None,
) -> Provenance:
    """A bundle's own provenance, and what a part that is added to it was made of.

    Args:
        before: of the bundle.
        part: what is added, such as "moment_head"; what the recipe says of an earlier one is replaced.
        recipe: the settings that it was made with.
        data: a line for each data set.
        metrics: its measured figures, under its name.
    """
    try:
        settings = json.loads(before.recipe)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        settings = {"bundle": before.recipe}
    known = {record.name for record in before.data}
    added = tuple(
        SourceRecord(name=line, licence=NOT_STATED, source=NOT_STATED) for line in data if line not in known
    )
    settings[part] = {**recipe, "commit": current_commit()}
    return Provenance(
        recipe=json.dumps(settings),
        data=before.data + added,
        weights=before.weights,
        commit=before.commit,
        metrics=before.metrics if metrics is None else {**before.metrics, part: dict(metrics)},
    )


def dataset_names(data: Iterable[TrainingData]) -> tuple[str, ...]:
    """The distinct data sets of the runs and of the checkpoints that they started from."""
    return tuple(dict.fromkeys(line for record in data for line in record.lines()))


def _stated(field: str, values: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The values that the author states, one for each data set, or "not stated" for all.

    Raises:
        InputError: a value is blank, or there are more or fewer values than data sets.
    """
    if not values:
        return (NOT_STATED,) * len(names)
    if len(values) != len(names):
        raise InputError(
            f"{field}: {len(values)} given, {len(names)} needed, one for each data set in this order: "
            f"{'; '.join(names)}",
            field,
        )
    if not all(value.strip() for value in values):
        raise InputError(f"{field} is blank: leave it out, or write {NOT_STATED!r}", field)
    return tuple(values)


def current_commit() -> str:
    """The commit of the running code; `unknown` outside a repository."""
    try:
        out = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
