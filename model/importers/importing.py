"""From a published checkpoint to a bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from model.export.bundle import TOLERANCE
from model.export.precision import Precision, in_precision
from model.export.tracing import check_graph, to_onnx
from model.importers import load
from model.importers.base import Checkpoint
from model.importers.probe import Loss, Probe, loss_of, picture_graph
from model.progress import Report, silent
from model.runtime.bundle import BundleManifest, write_bundle
from model.runtime.bundle.graphs import TEXT_ENCODER
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer

#: An ONNX file cannot be larger.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class ImportOptions:
    """How a checkpoint becomes a bundle.

    Attributes:
        precision: what the graphs compute in.
        probe: a folder of photos to measure the loss of a lower precision with; None: drawn pictures.
        name: the bundle's name; None: that of the checkpoint.
        embedding_dims: the smaller sizes to which a library may cut embeddings, rising; empty: none.
    """

    precision: Precision = "fp32"
    probe: Path | None = None
    name: str | None = None
    embedding_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """The manifest as written, and what the precision cost; None in fp32, or where it is not measured."""

    manifest: BundleManifest
    loss: Loss | None


def import_checkpoint(
    checkpoint: Checkpoint, output: Path, options: ImportOptions | None = None, *, report: Report = silent
) -> ImportResult:
    """Write a bundle from a checkpoint, or fail and write nothing.

    Every graph is compared with transformers first.

    Args:
        checkpoint: what `find_checkpoint` found.
        output: becomes the bundle; a bundle that is there is replaced.
        options: how; None: as the defaults say.
        report: told each graph's size and its difference.

    Raises:
        InputError: the checkpoint's family is not supported, its files do not fit, or the photos cannot be
            read.
        ExportError: a graph differs from transformers.
        BundleError: the bundle cannot be written.
    """
    options = options or ImportOptions()
    graphs, description, tokenizer = load(checkpoint)
    exact: dict[str, bytes] = {}
    contents: dict[str, bytes] = {}
    for name, graph in graphs.items():
        traced = to_onnx(graph)
        _check_size(name, traced, options.precision)
        exact[name] = traced.SerializeToString()
        difference = check_graph(name, graph, exact[name], TOLERANCE["float32"])
        contents[name] = in_precision(traced, options.precision)
        report(f"{name}: {len(contents[name]) / 1e6:.1f} MB; in fp32 {difference:.1g} from transformers")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(tokenizer)
        loss = None
        if options.precision != "fp32" and {picture_graph(contents), TEXT_ENCODER} <= contents.keys():
            resizing = description.image.resizing
            probe = (
                Probe.drawn(resizing) if options.probe is None else Probe.of_photos(options.probe, resizing)
            )
            tokenize = TextTokenizer.from_file(path, description.context_length, description.unicode_form)
            loss = loss_of(exact, contents, tokenize, probe)
            report(f"{options.precision}: {loss}")
        measured = {} if loss is None else {"loss": loss.as_object()}
        provenance = description.provenance.model_copy(
            update={"metrics": {"precision": options.precision, **measured}}
        )
        manifest = write_bundle(
            output,
            contents,
            replace(
                description,
                name=options.name or description.name,
                provenance=provenance,
                embedding_dims=options.embedding_dims,
            ),
            path,
            overwrite=True,
        )
    return ImportResult(manifest, loss)


def _check_size(name: str, model: onnx.ModelProto, precision: Precision) -> None:
    size = model.ByteSize()
    if size >= _MOST_BYTES:
        raise InputError(
            f"{name} has {size / 1e9:.1f} GB in fp32, and an ONNX file holds 2 GB at most: import a smaller "
            f"model of the family (--precision {precision} is applied afterwards)"
        )
