"""Commands that install what is missing, for errors and reports: they work when they are pasted.

They name the packages themselves, not `reelfind[EXTRA]`, for which pip would look on an index that need not
have Reelfind; and the Python that runs now, whatever virtual environment a terminal has active.
"""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator

_PROJECT = "reelfind"
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([\w-]+)["']""")
_OWN_EXTRAS = re.compile(rf"{_PROJECT}\[([\w,-]+)\]")
#: Packages that install the same module as one of the extra.
_IN_THE_WAY = {"cpu": ("faiss-gpu", "onnxruntime-gpu"), "gpu": ("faiss-cpu", "onnxruntime")}
#: What to install beside onnxruntime-gpu: faster-whisper would bring onnxruntime, which is the same module.
_SPEECH_BESIDE_GPU = (
    ("--no-deps", "faster-whisper==1.2.1"),
    ("ctranslate2>=4,<5", "huggingface-hub", "tqdm"),
)


def install_command(extra: str) -> str:
    """The command that installs what an extra of Reelfind needs.

    Raises:
        ValueError: there is no such extra.
    """
    if extra == "speech" and _is_installed("onnxruntime-gpu"):
        return " && ".join(install_packages(*words) for words in _SPEECH_BESIDE_GPU)
    command = install_packages(*_packages(extra))
    if in_the_way := [name for name in _IN_THE_WAY.get(extra, ()) if _is_installed(name)]:
        # Both kinds of a package share files: what is to stay is installed again after the other is gone.
        same = [name.removesuffix("-gpu").removesuffix("-cpu") for name in in_the_way]
        removed = sorted({name for stem in same for name in _kinds(stem) if _is_installed(name)})
        command = f"{_pip('uninstall', *_yes(), *removed)} && {command}"
    return command


def install_packages(*words: str) -> str:
    """The command that installs packages: requirements, and options of `pip install`."""
    return _pip("install", *words)


def _pip(command: str, *words: str) -> str:
    if importlib.util.find_spec("pip") is None:  # an environment that uv made
        return shlex.join(["uv", "pip", command, "--python", sys.executable, *words])
    return shlex.join([sys.executable, "-m", "pip", command, *words])


def _yes() -> list[str]:
    return [] if importlib.util.find_spec("pip") is None else ["--yes"]


def _kinds(stem: str) -> tuple[str, ...]:
    return (stem, f"{stem}-cpu", f"{stem}-gpu")


def _packages(extra: str) -> list[str]:
    found = list(dict.fromkeys(_requirements(extra)))
    if not found:
        raise ValueError(f"{_PROJECT} has no extra {extra!r}")
    return found


def _requirements(extra: str) -> Iterator[str]:
    # Takes time to import, which decoding processes have no use for.
    from importlib import metadata

    for line in metadata.requires(_PROJECT) or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        named = _EXTRA.search(marker)
        if named is None or named[1] != extra:
            continue
        own = _OWN_EXTRAS.match(requirement)
        if own is None:
            yield requirement
            continue
        for part in own[1].split(","):
            yield from _requirements(part)


def _is_installed(package: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
