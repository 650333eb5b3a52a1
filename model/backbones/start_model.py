"""A published model of images and texts that training starts from: where it is, and what is known of it.

It is named by a folder that transformers saved, by a name on the Hugging Face hub, or by a bundle that was
imported from one of the two.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.backbones.huggingface import find_folder, read_json_object
from model.backbones.model_card import licence_of
from model.runtime.bundle.manifest import MANIFEST_NAME, Provenance, parse_manifest
from model.runtime.errors import BundleError, InputError
from model.runtime.installing import install_command
from model.runtime.messages import first_line

SETTING = "model.start_from"
_CONFIGURATIONS = {"clip": "CLIPConfig", "blip": "BlipConfig"}
#: the class of transformers whose weights are read, by `model_type`
_ARCHITECTURES = {"clip": "CLIPModel", "blip": "BlipForImageTextRetrieval"}
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class StartModel:
    """A published model.

    Attributes:
        source: finds the same model again: the folder, or NAME@REVISION.
        folder: holds `config.json`, the weights and the tokenizer.
        kind: its `model_type`, clip or blip.
        name: what a bundle calls it; of a folder only its own name is told.
        licence: as its model card states it.
        origin: where it comes from.
        revision: the commit on the hub; empty: it is a folder.
    """

    source: str
    folder: Path
    kind: str
    name: str
    licence: str
    origin: str
    revision: str

    def configuration(self) -> Any:
        """Its `config.json` with the defaults of transformers: a `CLIPConfig` or `BlipConfig`.

        Raises:
            InputError: transformers is not installed, or does not accept the file.
        """
        path = self.folder / "config.json"
        values = read_json_object(path)
        try:
            import transformers
        except ImportError as error:
            raise InputError(
                f"{SETTING} needs the package transformers: `{install_command('train')}`"
            ) from error
        try:
            return getattr(transformers, _CONFIGURATIONS[self.kind]).from_dict(values)
        # It raises errors of its own, which are not exported.
        except Exception as error:
            reason = first_line(error)
            raise InputError(f"{path} is not a configuration of {self.kind}: {reason}") from error


def find_start_model(source: str) -> StartModel:
    """Find a model, fetching it where HF_HUB_OFFLINE=0 allows that.

    Args:
        source: a folder, a name on the hub, perhaps with "@" and a revision, or the folder of a bundle.

    Raises:
        InputError: it cannot be found or read, or is of a kind that training does not start from.
    """
    local = Path(source).expanduser()
    if local.is_file():
        raise InputError(
            f"{SETTING}={source} is a file: a checkpoint of a run is train.start_from={source}, and "
            f"{SETTING} is the folder or the name of published weights"
        )
    if (local / MANIFEST_NAME).is_file():
        return _source_of_bundle(local)
    folder = find_folder(source, SETTING)
    kind = _kind(folder)
    name, origin, revision = folder.resolve().name, "a folder", ""
    if not local.is_dir():
        # The local copy of a repository is a folder that has the commit's name.
        name, revision = source.partition("@")[0], folder.name
        source, origin = f"{name}@{revision}", f"https://huggingface.co/{name}"
    return StartModel(source, folder, kind, f"{kind.upper()} {name}", licence_of(folder), origin, revision)


def _source_of_bundle(folder: Path) -> StartModel:
    """The model that a bundle was imported from: a bundle holds graphs, from which nothing is trained."""
    path = folder / MANIFEST_NAME
    try:
        manifest = parse_manifest(path.read_bytes(), path)
    except (OSError, BundleError) as error:
        raise InputError(f"{SETTING}={folder}: {error}") from error
    provenance = manifest.provenance
    if not _is_imported(provenance):
        raise InputError(
            f"{SETTING}={folder} is a bundle that was not imported: pass the weights it was made of, as "
            f"{SETTING}=DIR, or a checkpoint of its run, as train.start_from=FILE"
        )
    weights = provenance.weights[0]
    # A bundle may come from anybody: it must not choose a folder of this machine.
    if weights.revision is None or not _HUB_NAME.fullmatch(weights.name) or Path(weights.name).exists():
        raise InputError(
            f"{SETTING}={folder} was imported from the folder {Path(weights.name).name!r}: pass that folder, "
            f"as {SETTING}=DIR"
        )
    try:
        return find_start_model(f"{weights.name}@{weights.revision}")
    except InputError as error:
        raise InputError(f"the bundle {folder} was imported from {weights.name}: {error}") from error


def _is_imported(provenance: Provenance) -> bool:
    """Whether a bundle was imported from one published model, as its recipe says."""
    try:
        recipe = json.loads(provenance.recipe)
    except ValueError:
        return False
    return isinstance(recipe, dict) and "import" in recipe and len(provenance.weights) == 1


def _kind(folder: Path) -> str:
    """The `model_type` of a folder.

    Raises:
        InputError: training does not start from it.
    """
    path = folder / "config.json"
    config = read_json_object(path)
    kind, architectures = config.get("model_type"), config.get("architectures") or []
    expected = _ARCHITECTURES.get(str(kind))
    if expected is None:
        raise InputError(
            f"{path}: model_type is {kind!r}; training starts from {' and '.join(_ARCHITECTURES)}"
        )
    if architectures and expected not in architectures:
        raise InputError(
            f"{path}: its architecture is {architectures[0]}; training starts from {expected}, which has "
            "both encoders and their projections"
        )
    return str(kind)
