"""Export: from checkpoints to the ONNX graphs of a bundle."""
