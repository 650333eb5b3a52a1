"""Makes a bundle small: the weights of its frame and text encoders become coarse codes of a few bits each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from model.arrays import Array, Frames, unit_rows
from model.export.codes import Codes, nearest, steps_for
from model.export.copying import copy_bundle
from model.export.gptq import round_graph
from model.export.partial_runs import cpu_session
from model.export.provenance import extended
from model.export.storage import halve_rest, restore, store
from model.export.tracing import ExportError
from model.progress import Report, silent
from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.bundle.graphs import FRAME_ENCODER, SEGMENT_ENCODER, TEXT_ENCODER, VIDEO_ENCODER
from model.runtime.bundle.low_bits import holds_low_bits
from model.runtime.bundle.packing import packed
from model.runtime.errors import InputError

Example = Mapping[str, NDArray[np.generic]]
#: What a code may have of entropy: fewer are no model any more, and more would be cut off.
FEWEST_BITS, MOST_BITS = 1, 6
# Every eighth example is kept apart, to measure on.
_APART = 8
# Tables with fewer rows are not worth it.
_FEWEST_ROWS = 1024
# Larger graphs store their weights beside themselves.
_MOST_BYTES = 2_000_000_000
_LEAST_COSINE = 0.5
_STORED = 8e-2


@dataclass(frozen=True)
class Bits:
    """Bits of entropy of a weight of each encoder, and of a number of a word embedding.

    Raises:
        InputError: a number is not 1 to 6.
    """

    frames: float = 3.1
    texts: float = 4.0
    words: float = 3.3

    def __post_init__(self) -> None:
        for name, bits in asdict(self).items():
            if not FEWEST_BITS <= bits <= MOST_BITS:
                raise InputError(f"{bits:g} bits for {name}: choose {FEWEST_BITS} to {MOST_BITS}")


def compress_bundle(
    bundle: Bundle,
    output: Path,
    images: Sequence[Frames],
    texts: Sequence[str],
    bits: Bits,
    data: Sequence[str] = (),
    report: Report = silent,
) -> BundleManifest:
    """Write a copy of a bundle whose frame and text encoders take less space, without its calibration.

    Args:
        bundle: the bundle.
        output: becomes the copy; a bundle that is there is replaced.
        images: examples of frames, each uint8 [size, size, 3].
        texts: examples of texts.
        bits: of entropy of a weight.
        data: where the examples come from, a line for each data set.
        report: told how far it is, and each graph's size and likeness to what it was.

    Raises:
        InputError: there are fewer than 16 examples of a kind, the bundle reads whole segments at once, or a
            graph is larger than 2 GB.
        ExportError: a graph gives nothing like what it gave; nothing is written.
        BundleError: the copy cannot be written.
    """
    if bundle.manifest.has_video_encoder:
        raise InputError(
            f"{bundle.folder} has a {VIDEO_ENCODER}, which reads whole segments at once: choose a bundle "
            f"with a {FRAME_ENCODER}",
            "bundle",
        )
    frames = [{"frames": image[None]} for image in images]
    encoded = [bundle.tokenizer([text]) for text in texts]
    asked = [{"input_ids": one.input_ids, "attention_mask": one.attention_mask} for one in encoded]
    graphs = {}
    for name, examples, kept in ((FRAME_ENCODER, frames, bits.frames), (TEXT_ENCODER, asked, bits.texts)):
        if len(examples) < 2 * _APART:
            raise InputError(f"{len(examples)} examples for {name}: give at least {2 * _APART}")
        graphs[name] = _compress(bundle, name, examples, kept, bits.words, report)
    segments = restore(onnx.load_from_string(bundle.read_graph(SEGMENT_ENCODER)))
    graphs[SEGMENT_ENCODER] = store(segments, "float16").SerializeToString()
    if bundle.manifest.calibration is not None:
        report("no calibration: scores changed; fit one with `reelfind-model calibrate`")
    recipe = {"bits": asdict(bits), "images": len(images), "texts": len(texts)}
    return copy_bundle(
        bundle,
        output,
        graphs,
        (FRAME_ENCODER, TEXT_ENCODER),
        calibration=None,
        reference_images=None,
        provenance=extended(bundle.manifest.provenance, "compression", recipe, data),
    )


def _compress(
    bundle: Bundle, name: str, examples: Sequence[Example], bits: float, word_bits: float, report: Report
) -> bytes:
    """A graph that takes less space when it is packed."""
    path, threads = bundle.folder / bundle.manifest.file_name(name), bundle.threads
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} is larger than 2 GB: choose a smaller bundle")
    if name in bundle.manifest.packed_graphs or holds_low_bits(path):
        raise InputError(
            f"{path} has weights of a few bits already: compress the bundle that this one was made of"
        )
    before = bundle.read_graph(name)
    model = restore(onnx.load_from_string(before))
    if _computes_in_half(model):
        raise InputError(f"{path} computes in half precision: import the model with `--precision fp32`")
    fed = {item.name for item in model.graph.input}
    examples = [{name: value for name, value in example.items() if name in fed} for example in examples]
    learned = [example for place, example in enumerate(examples) if place % _APART]
    apart = examples[::_APART]
    rounded = round_graph(model, learned, bits, threads, lambda line: report(f"{path.name}: {line}"))
    rounded |= _round_tables(model, word_bits)
    exact = model.SerializeToString()
    content: bytes = halve_rest(store(model, "int8", "int8", rounded)).SerializeToString()
    outputs = _outputs(content, apart, threads)
    difference = float(np.abs(outputs - _outputs(exact, apart, threads)).max())
    if not difference <= _STORED:
        raise ExportError(f"{path.name}: the rounded weights are not stored as rounded ({difference:.2g})")
    cosine = float((unit_rows(outputs) * unit_rows(_outputs(before, apart, threads))).sum(-1).mean())
    if not cosine >= _LEAST_COSINE:
        raise ExportError(
            f"{path.name}: with {bits:g} bits, the mean cosine of embeddings to what they were is "
            f"{cosine:.2f}: use more bits, or more examples"
        )
    sizes = f"{len(before) / 1e6:.1f} MB → {len(packed(content)) / 1e6:.1f} MB"
    report(
        f"{path.name}: {sizes}; mean cosine of embeddings to what they were: {cosine:.4f}, "
        f"for {len(apart)} examples that were kept apart"
    )
    return content


def _computes_in_half(model: onnx.ModelProto) -> bool:
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return any(node.op_type == "MatMul" and node.input[1] in halves for node in model.graph.node)


def _round_tables(model: onnx.ModelProto, bits: float) -> dict[str, Codes]:
    """The tables of word embeddings, rounded; the graph's become the rounded ones."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded: dict[str, Codes] = {}
    for node in model.graph.node:
        table = tensors.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.name in rounded:
            continue
        if table.dims[0] >= _FEWEST_ROWS:
            values = numpy_helper.to_array(table)
            rounded[table.name] = nearest(values, steps_for(values, bits))
            table.CopyFrom(numpy_helper.from_array(rounded[table.name].expanded(), table.name))
    return rounded


def _outputs(content: bytes, examples: Sequence[Example], threads: int | None) -> Array:
    """The graph's first output, the embedding, of all examples. → [R, D]"""
    session = cpu_session(content, threads)
    first = session.get_outputs()[0].name
    return np.concatenate([session.run([first], dict(example))[0] for example in examples])
