"""Finds a published checkpoint: a folder, or a name on the hub, which is fetched where it is not here yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model import HUB_OFFLINE
from model.backbones.huggingface import read_json_object
from model.backbones.model_card import languages_of, licence_of
from model.importers.base import Checkpoint
from model.importers.files import PICKLED, SAFE, check_weights
from model.runtime.bundle.manifest import SourceRecord
from model.runtime.errors import InputError
from model.runtime.messages import first_line

_HUB = "https://huggingface.co"
_SMALL = ("*.json", "README.md", "merges.txt", "vocab.txt", "*.model", "LICENSE*")
_OPEN_CLIP = "open_clip_config.json"
# Where a repository has both, that of transformers counts.
_CONFIGS = ("config.json", _OPEN_CLIP)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def find_checkpoint(source: str, *, revision: str | None = None, allow_pickle: bool = False) -> Checkpoint:
    """The checkpoint in a folder, or with a name on the hub.

    Files that are here already are not fetched again, and a download that was interrupted is resumed.
    HF_HUB_OFFLINE=1 uses what is here alone.

    Args:
        source: a folder, or a name such as "openai/clip-vit-base-patch32".
        revision: a branch, tag or commit on the hub; None: its main branch.
        allow_pickle: also read weights from pickled files.

    Raises:
        InputError: there is no such folder or repository, it cannot be fetched, it is not whole, or its
            weights are pickled and may not be.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"--revision {revision} is for names on the hub: {source} is a folder")
        return _checkpoint(folder, folder.resolve().name, "a folder", None, allow_pickle)
    if not _REPOSITORY.fullmatch(source):
        raise InputError(
            f"{source} is neither a folder nor a name on the hub: name a folder that `save_pretrained` "
            "wrote, or a repository such as openai/clip-vit-base-patch32"
        )
    local = _fetch(source, revision, allow_pickle)
    return _checkpoint(local, source, f"{_HUB}/{source}", local.name, allow_pickle)


def _fetch(name: str, revision: str | None, allow_pickle: bool) -> Path:
    """The local copy of a repository's snapshot; its folder has the commit's name."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*_SMALL, SAFE]
    try:
        with _online():
            local = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
            if allow_pickle and not any(local.glob(SAFE)):
                patterns = [*_SMALL, PICKLED]
                local = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise InputError(
            f"{name} is gated: accept its terms at {_HUB}/{name}, then run `hf auth login` and this command "
            "again"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{name} has no revision {revision!r}: see {_HUB}/{name}/commits") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{name} is not on the hub, or is private: check the name, or run `hf auth login` first"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if HUB_OFFLINE:
            remedy = "set HF_HUB_OFFLINE=0 to fetch it"
        else:
            remedy = "check the network and run the command again: what has arrived is kept"
        raise InputError(
            f"{name} is not on this machine and cannot be fetched: {remedy}, or copy the folder of the model "
            "to this machine and name it"
        ) from error
    # It raises errors of its HTTP library and of the system besides.
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"{name} cannot be fetched ({reason}): run the command again, it resumes; or name a folder"
        ) from error
    return local


@contextmanager
def _online() -> Iterator[None]:
    """Let the hub be asked, unless the user has set HF_HUB_OFFLINE: naming a model asks for it."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = HUB_OFFLINE
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _checkpoint(
    folder: Path, name: str, address: str, revision: str | None, allow_pickle: bool
) -> Checkpoint:
    config_path = next((path for name in _CONFIGS if (path := folder / name).is_file()), None)
    if config_path is None:
        raise InputError(
            f"no config.json in {folder}: it must hold a model saved by transformers; download the whole "
            "repository, for example with `hf download NAME --local-dir DIR`"
        )
    config = read_json_object(config_path)
    if config_path.name == _OPEN_CLIP:
        config = {"model_type": "open_clip", **config}
    check_weights(folder, pickled=allow_pickle)
    source = SourceRecord(name=name, licence=licence_of(folder), source=address, revision=revision)
    return Checkpoint(config_path, config, source, languages_of(folder), allow_pickle)
