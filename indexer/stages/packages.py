"""Says how to install the packages that stages need."""

from importlib import metadata

#: What to install beside onnxruntime-gpu: the package would bring onnxruntime, which is the same module.
_BESIDE_GPU = {
    "speech": "pip install --no-deps faster-whisper==1.2.1 && "
    "pip install 'ctranslate2>=4,<5' huggingface-hub tqdm"
}


def missing_package(extra: str) -> str:
    """The command that installs what an extra needs, in backticks."""
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return f"`pip install 'reelfind[{extra}]'`"
    command = _BESIDE_GPU.get(extra, f"pip install 'reelfind[{extra}]'")
    return f"`{command}`"
