"""From a published checkpoint to a bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model.export.bundle import TOLERANCE
from model.export.precision import Precision, in_precision
from model.export.tracing import check_graph, to_onnx_file
from model.families.base import Graph
from model.importers import load
from model.importers.base import Checkpoint
from model.importers.match_loss import MatchLoss, match_loss_of
from model.importers.probe import Loss, Probe, loss_of, picture_graph
from model.progress import Report, silent
from model.runtime.bundle import BundleDescription, BundleManifest, write_bundle
from model.runtime.bundle.graphs import MATCHER, TEXT_ENCODER
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.runtime.tokens import check_count

#: An ONNX file with its weights inside cannot be larger.
MOST_BYTES = 2 << 30
# How many times smaller weights are than in fp32, at most.
_SHRINKS: Mapping[Precision, int] = {"fp32": 1, "fp16": 2, "int8": 4}


@dataclass(frozen=True)
class ImportOptions:
    """How a checkpoint becomes a bundle.

    Attributes:
        precision: what the graphs compute in.
        probe: a folder of photos to measure losses with; None: the loss of a lower precision is measured with
            drawn pictures.
        name: the bundle's name; None: that of the checkpoint.
        tokens_per_frame: tokens of a frame that a library stores, merged from all; None: as the importer
            chooses.
        embedding_dims: the smaller sizes to which a library may cut embeddings, rising; empty: none.
    """

    precision: Precision = "fp32"
    probe: Path | None = None
    name: str | None = None
    tokens_per_frame: int | None = None
    embedding_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """What was written, and what it costs.

    Attributes:
        manifest: as written.
        loss: what the precision costs; None in fp32, or where it is not measured.
        match_loss: what precision and stored tokens cost the matcher; None where there is none, or without a
            probe in fp32.
        warnings: what people should know, a line each.
    """

    manifest: BundleManifest
    loss: Loss | None
    match_loss: MatchLoss | None
    warnings: tuple[str, ...]


def import_checkpoint(
    checkpoint: Checkpoint, output: Path, options: ImportOptions | None = None, *, report: Report = silent
) -> ImportResult:
    """Write a bundle from a checkpoint, or fail and write nothing.

    Every graph is compared with transformers first.

    Args:
        checkpoint: what `find_checkpoint` found.
        output: becomes the bundle; a bundle that is there is replaced.
        options: how; None: as the defaults say.
        report: told each graph's size and its difference, warnings and losses.

    Raises:
        InputError: the checkpoint's family is not supported, its files do not fit, the photos cannot be
            read, or an option does not fit.
        ExportError: a graph differs from transformers.
        BundleError: the bundle cannot be written.
    """
    options = options or ImportOptions()
    graphs, description, tokenizer, warnings = load(checkpoint)
    for warning in warnings:
        report(f"warning: {warning}")
    description = _with_options(description, options)
    probe = _probe(description, options)
    with tempfile.TemporaryDirectory() as folder:
        exact, contents = _files(graphs, options.precision, Path(folder), report)
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(tokenizer)
        loss, match_loss = None, None
        if probe is not None:
            tokenize = TextTokenizer.from_file(path, description.context_length, description.unicode_form)
            if options.precision != "fp32" and {picture_graph(contents), TEXT_ENCODER} <= contents.keys():
                loss = loss_of(exact, contents, tokenize, probe)
                report(f"{options.precision}: {loss}")
            if MATCHER in contents and description.tokens is not None:
                match_loss = match_loss_of(exact, contents, tokenize, probe, description.tokens)
                for line in match_loss.lines():
                    report(line)
        metrics = {
            "precision": options.precision,
            **({} if loss is None else {"loss": loss.as_object()}),
            **({} if match_loss is None else {"match_loss": match_loss.as_object()}),
        }
        provenance = description.provenance.model_copy(update={"metrics": metrics})
        described = replace(description, provenance=provenance)
        manifest = write_bundle(output, contents, described, path, overwrite=True)
    return ImportResult(manifest, loss, match_loss, warnings)


def _with_options(description: BundleDescription, options: ImportOptions) -> BundleDescription:
    """The description with what the options change.

    Raises:
        InputError: the model has no tokens that could be stored, or they cannot be merged to so many.
    """
    named = replace(description, name=options.name or description.name, embedding_dims=options.embedding_dims)
    count = options.tokens_per_frame
    if count is None:
        return named
    if named.tokens is None:
        raise InputError(
            f"tokens_per_frame is {count}, but the model has no matching head to read tokens: leave it out",
            "tokens_per_frame",
        )
    try:
        check_count(count, named.tokens.tokens_per_frame)
    except InputError as error:
        raise InputError(f"tokens_per_frame: {error}", "tokens_per_frame") from error
    return replace(named, tokens=replace(named.tokens, stored_tokens_per_frame=count))


def _probe(description: BundleDescription, options: ImportOptions) -> Probe | None:
    """What losses are measured with; None: there is nothing to measure.

    Raises:
        InputError: the photos cannot be read.
    """
    resizing = description.image.resizing
    if options.probe is not None:
        return Probe.of_photos(options.probe, resizing)
    return None if options.precision == "fp32" else Probe.drawn(resizing)


def _files(
    graphs: Mapping[str, Graph], precision: Precision, folder: Path, report: Report
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Each graph's file by its name, in fp32 and in this precision: in memory, a large model would be many.

    Raises:
        InputError: a graph is too large for one file.
        ExportError: a graph differs from transformers.
    """
    exact, contents = {}, {}
    for name, graph in graphs.items():
        exact[name], contents[name] = folder / f"exact_{name}", folder / name
        size = to_onnx_file(graph, exact[name])
        _check_size(name, size, precision)
        difference = check_graph(name, graph, exact[name], TOLERANCE["float32"])
        in_precision(exact[name], contents[name], precision)
        if precision == "fp32":
            exact[name] = contents[name]
        stored = contents[name].stat().st_size / 1e6
        report(f"{name}: {stored:.1f} MB; in fp32 {difference:.1g} from transformers")
    return exact, contents


def _check_size(name: str, size: int, precision: Precision) -> None:
    """Refuse a graph of so many bytes in fp32 that does not fit into one file in this precision.

    Raises:
        InputError: it does not.
    """
    stored = size // _SHRINKS[precision]
    if stored < MOST_BYTES:
        return
    lower = [other for other, times in _SHRINKS.items() if size // times < MOST_BYTES]
    remedy = f"import it with --precision {lower[0]}" if lower else "import a smaller model of the family"
    raise InputError(
        f"{name} has {stored / 1e9:.1f} GB in {precision}, and a file of a bundle holds 2 GB at most: "
        f"{remedy}"
    )
