"""`reelfind-model import`: a public checkpoint as a bundle."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from model.cli.terminal import report
from model.export.precision import check_precision
from model.importers import FAMILIES
from model.importers.importing import ImportOptions, import_checkpoint
from model.importers.sources import find_checkpoint
from model.runtime.bundle.manifest import MANIFEST_NAME


def import_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A name on the hub, such as google/siglip-base-patch16-224, or a folder that transformers "
            f"saved. Families (model_type): {', '.join(sorted(FAMILIES))}."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; a bundle that is there is replaced.")],
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit on the hub. Default: the main branch.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="fp32, as published; fp16, for GPUs; or int8, for CPUs. The loss is measured."),
    ] = "fp32",
    probe: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of photos to measure with what a lower precision costs, and fewer tokens a frame. "
            "Default: drawn pictures where the precision is lower.",
        ),
    ] = None,
    tokens_per_frame: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of a frame that a library stores for the matching head, merged from all. Default: a "
            "quarter. `--tokens-per-frame` of `reelfind index` overrides it.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle. Default: that of the source.")] = None,
    embedding_dim: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="A smaller size to which `--embedding-dim` of `reelfind index` may cut embeddings, for "
            "models that were trained so (Matryoshka); may be repeated.",
        ),
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Also read pickled weights; only tensors are read, no code is run."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Make a bundle of a public checkpoint.

    The family is recognised from the checkpoint's config.json; pictures and texts are prepared as its own
    files say. Every ONNX graph is compared with transformers first; if one differs, nothing is written. A
    model is fetched from the hub once; set HF_HUB_OFFLINE=1 to use what is on this machine alone.
    """
    dims = tuple(sorted(set(embedding_dim or ())))
    options = ImportOptions(check_precision(precision), probe, name, tokens_per_frame, dims)
    torch.set_num_threads(threads)
    started = time.monotonic()
    checkpoint = find_checkpoint(source, revision=revision, allow_pickle=allow_pickle)
    result = import_checkpoint(checkpoint, output, options, report=report)
    manifest = result.manifest
    total = sum(record.bytes for record in manifest.files.values())
    if as_json:
        found = {
            "bundle": str(output),
            "name": manifest.name,
            "family": checkpoint.config["model_type"],
            "licence": manifest.licence,
            "revision": checkpoint.source.revision,
            "checksum": hashlib.sha256((output / MANIFEST_NAME).read_bytes()).hexdigest(),
            "capabilities": sorted(manifest.capabilities),
            "languages": list(manifest.text.languages or ()),
            "embedding_dim": manifest.embedding_dim,
            "bytes": total,
            "precision": options.precision,
            "loss": None if result.loss is None else result.loss.as_object(),
            "stored_tokens_per_frame": manifest.stored_tokens_per_frame,
            "match_loss": None if result.match_loss is None else result.match_loss.as_object(),
            "warnings": list(result.warnings),
            "seconds": round(time.monotonic() - started, 1),
        }
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        report(f"{output}: {total / 1e6:.1f} MB, licence: {manifest.licence}")
