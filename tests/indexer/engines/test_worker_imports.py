"""A decoding worker is one of many processes: it starts fast and small only without the heavy libraries."""

import subprocess
import sys

FORBIDDEN = ("lance", "pyarrow", "faiss", "onnxruntime", "fastapi", "torch")


def test_a_worker_loads_neither_lance_nor_faiss_nor_onnx_runtime() -> None:
    code = "import sys, indexer.engines.worker; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert {"av", "numpy", "indexer"} <= set(loaded)
    assert not set(FORBIDDEN) & set(loaded)
