"""ONNX Runtime, imported here alone: `model/__init__.py` has turned off its telemetry before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

__all__ = ["float16_model", "ort", "quantised_file"]


def float16_model(model: Any) -> Any:
    """A float32 model of the package `onnx` that computes in half floats; its inputs and outputs stay."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Models above 2 GB cannot be serialised, which inferring shapes would do.
    return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)


def quantised_file(source: Path, target: Path) -> None:
    """Write a float32 ONNX file with weights of 8 bits, whose activations are rounded while it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
