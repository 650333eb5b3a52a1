"""ONNX Runtime, imported here alone: `model/__init__.py` has turned off its telemetry before."""

import onnxruntime as ort

__all__ = ["ort"]
