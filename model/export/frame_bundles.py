"""Joins the frame encoder of a bundle with the graphs of a model that was trained on its embeddings.

Shapes: B frames, F width of a frame embedding of that bundle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import compose, version_converter

from model.data.features.files import MANIFEST
from model.progress import Report
from model.runtime.bundle import Bundle, BundleDescription
from model.runtime.bundle.graphs import FRAME_ENCODER, MOMENT_HEAD
from model.runtime.bundle.manifest import Moments, Provenance, SourceRecord
from model.runtime.errors import InputError

#: the longest segment that a library has, and the most frames of one
_SEGMENT_SECONDS, _FRAMES = 32.0, 16
_SOURCE, _AFTER = "source_", "after_"


@dataclass(frozen=True)
class FrameBundle:
    """The bundle whose frame encoder made the features, and what the model learned from them.

    Attributes:
        bundle: that bundle.
        every_seconds: the seconds of one feature vector.
        moments: whether the model has learned to find moments; its moment head is left out otherwise.

    Raises:
        InputError: a vector stands for more than a segment, or the bundle encodes no single frames.
    """

    bundle: Bundle
    every_seconds: float
    moments: bool = True

    def __post_init__(self) -> None:
        if self.bundle.manifest.has_video_encoder:
            raise InputError(
                f"{self.bundle.folder} has no {FRAME_ENCODER}, as it reads whole segments at once: name the "
                "bundle that made the features",
                "frame_bundle",
            )
        if self.every_seconds > _SEGMENT_SECONDS:
            raise InputError(
                f"data.every_seconds={self.every_seconds:g} is longer than a segment of a library, "
                f"{_SEGMENT_SECONDS:g} s: train on features that are closer together"
            )

    @property
    def frame_encoder(self) -> bytes:
        """The content of its frame encoder."""
        return self.bundle.read_graph(FRAME_ENCODER)

    @property
    def packed_graphs(self) -> frozenset[str]:
        """The frame encoder, if it is packed."""
        return self.bundle.manifest.packed_graphs & {FRAME_ENCODER}

    def check_width(self, width: int) -> None:
        """Check that the model reads this bundle's embeddings.

        Raises:
            InputError: they have another width.
        """
        own = self.bundle.manifest.embedding_dim
        if own != width:
            raise InputError(
                f"{self.bundle.folder} makes embeddings of {own} numbers, and the model reads features of "
                f"{width}: name the bundle that made its features",
                "frame_bundle",
            )

    def describe(self, description: BundleDescription, graphs: Sequence[str]) -> BundleDescription:
        """The description of the joined bundle: images as here, and frames as far apart as the features.

        A segment has at most 16 frames and 32 s.
        """
        frames = min(description.frames_per_segment, _FRAMES, int(_SEGMENT_SECONDS / self.every_seconds))
        return replace(
            description,
            image=self.bundle.manifest.image,
            frames_per_segment=frames,
            segment_seconds=frames * self.every_seconds,
            moments=Moments(every_seconds=self.every_seconds) if MOMENT_HEAD in graphs else None,
            provenance=self._provenance(description.provenance),
        )

    def _provenance(self, own: Provenance) -> Provenance:
        """The model's provenance, with what went into this bundle."""
        manifest = self.bundle.manifest
        encoder = SourceRecord(
            name=f"the frame encoder of the bundle {manifest.name}",
            licence=manifest.licence,
            source=f"a bundle.json with the SHA-256 {self.bundle.checksum}",
        )
        return own.model_copy(
            update={
                "data": tuple(dict.fromkeys((*own.data, *manifest.provenance.data))),
                "weights": tuple(dict.fromkeys((*own.weights, encoder, *manifest.provenance.weights))),
            }
        )


def check_features(features: Sequence[str], bundle: Bundle, report: Report) -> None:
    """Check that a bundle made the features that a model was trained on.

    Args:
        features: `data.features` of the model's settings.
        bundle: the bundle.
        report: told if the features are not there any more, so that this cannot be known.

    Raises:
        InputError: another bundle made them, or several sets of features are joined.
    """
    if len(features) != 1:
        raise InputError(
            f"the model reads {len(features)} joined sets of features, and a bundle has one frame encoder: "
            "train on the features of one bundle"
        )
    path = Path(features[0]) / MANIFEST
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        checksum, name = made["bundle_sha256"], made["bundle"]
    except (OSError, ValueError, KeyError, TypeError):
        report(f"{path} cannot be read: whether {bundle.folder} made the features is not checked")
        return
    if checksum != bundle.checksum:
        raise InputError(
            f"the bundle {name!r} with the SHA-256 {checksum} made the features of {features[0]}, not "
            f"{bundle.folder}: name that bundle",
            "frame_bundle",
        )


def join(first: bytes, second: bytes, output: str, into: str) -> bytes:
    """Make one graph of two: an output of the first becomes the one input of the second.

    Args:
        first: a serialised graph, whose inputs stay; of its outputs none.
        second: a serialised graph, whose outputs stay.
        output: the name of the first one's output.
        into: the name of the second one's input.
    """
    last = onnx.load_from_string(second)
    before = _of_opset(onnx.load_from_string(first), _opset(last))
    before.ir_version = last.ir_version = max(before.ir_version, last.ir_version)
    # Names in both graphs would clash. The inputs of the first and the outputs of the second keep theirs, and
    # so do functions: by their names a CPU knows the weights of a few bits that earlier bundles have.
    before = compose.add_prefix(before, _SOURCE, rename_inputs=False, rename_functions=False)
    last = compose.add_prefix(last, _AFTER, rename_outputs=False)
    joined = compose.merge_models(
        before,
        last,
        io_map=[(f"{_SOURCE}{output}", f"{_AFTER}{into}")],
        outputs=[value.name for value in last.graph.output],
    )
    onnx.checker.check_model(joined)
    content: bytes = joined.SerializeToString()
    return content


def _opset(model: onnx.ModelProto) -> int:
    return max(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def _of_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model in another version of ONNX's operators, if it is of an older one."""
    return model if _opset(model) == opset else version_converter.convert_version(model, opset)
