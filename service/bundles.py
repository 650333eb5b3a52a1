"""Finds bundles by their checksums, in the folders that the settings name.

A snapshot names its bundle by checksum alone, so that a folder may be moved, or hold another bundle by now.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from indexer.library.manifest import generation_name
from model.runtime.bundle import default_bundle_path
from model.runtime.bundle.manifest import MANIFEST_NAME
from model.runtime.errors import BundleError
from model.runtime.messages import for_shell
from service.settings import Settings, variable_of


def bundle_folder(settings: Settings, checksum: str, bundle_name: str) -> Path:
    """The folder of the bundle with a checksum; its other files are not looked at.

    Args:
        settings: name the folders to look in: `bundle`, those of `bundles`, and the shipped one.
        checksum: SHA-256 of its `bundle.json`, in hex.
        bundle_name: what to call it in an error message.

    Raises:
        BundleError: it is in none of them.
    """
    for folder in _folders(settings):
        try:
            if hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest() == checksum:
                return folder
        except OSError:
            continue
    raise BundleError(
        f"{settings.library} was made with the bundle {bundle_name!r} ({generation_name(checksum)}), which "
        f"lies in no known folder: name its folder, or the one above it, in {variable_of('bundles')}; or "
        "change to another bundle, such as the one that comes with Reelfind: `reelfind index PATH "
        f"--library {for_shell(settings.library)} --bundle {for_shell(default_bundle_path())} --publish`"
    )


def _folders(settings: Settings) -> Iterator[Path]:
    if settings.bundle is not None:
        yield settings.bundle
    for folder in settings.bundles:
        yield folder
        try:
            yield from sorted(path for path in folder.iterdir() if (path / MANIFEST_NAME).is_file())
        except OSError:
            continue
    yield default_bundle_path()
