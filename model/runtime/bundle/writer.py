"""Writes a bundle: whole and checked, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from model.runtime.bundle.description import BundleDescription
from model.runtime.bundle.files import aside_path
from model.runtime.bundle.graphs import FORMAT_VERSION
from model.runtime.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    TokenSizes,
    check_file_name,
    parse_manifest,
)
from model.runtime.bundle.reader import Bundle
from model.runtime.errors import BundleError
from model.runtime.files import flush, sha256_of

_TOKENIZER = "tokenizer.json"


def write_bundle(
    folder: str | Path,
    graphs: Mapping[str, bytes | Path],
    description: BundleDescription,
    tokenizer: Path,
    *,
    overwrite: bool = False,
) -> BundleManifest:
    """Write a bundle beside its place, flush it to disk, then rename it into place.

    Args:
        folder: where it will stand; its parent must exist.
        graphs: content or file of each graph, by its name in the format.
        description: everything else that `bundle.json` says.
        tokenizer: a `tokenizer.json`.
        overwrite: replace the bundle that stands there. Killed between the two renames, the old one is left
            at `aside_path(folder)`, and the next write puts it back first.

    Returns:
        the manifest as written.

    Raises:
        BundleError: a field or graph is wrong, `folder` is taken, or it cannot be written.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow a link at the place itself
    contents: dict[str, bytes | Path] = {**graphs, _TOKENIZER: tokenizer}
    try:
        for file in contents:
            check_file_name(file)
        return _write_folder(place, _fields(description), contents, overwrite)
    except ValueError as error:
        raise BundleError(f"{place} is not written: {error}") from error
    except OSError as error:
        raise BundleError(f"{place} cannot be written ({error}): check the place and its disk") from error


def _fields(description: BundleDescription) -> dict[str, Any]:
    """The fields of `bundle.json`, but for its files."""
    d = description
    tokens = {field.name: None for field in fields(TokenSizes)} if d.tokens is None else asdict(d.tokens)
    return {
        "format_version": FORMAT_VERSION,
        "name": d.name,
        "description": d.description,
        "licence": d.licence,
        "provenance": d.provenance.model_dump(),
        "embedding_dim": d.embedding_dim,
        "salience_dim": d.salience_dim,
        **tokens,
        "frames_per_segment": d.frames_per_segment,
        "segment_seconds": d.segment_seconds,
        "num_salient_frames": d.num_salient_frames,
        "num_candidates": d.num_candidates,
        "salience_strategy": d.salience_strategy,
        "image": d.image.model_dump(),
        "text": {"tokenizer": _TOKENIZER, "context_length": d.context_length},
        "ensemble_lambda": d.ensemble_lambda,
        "calibration": None if d.calibration is None else d.calibration.model_dump(),
    }


def _write_folder(
    place: Path, raw: dict[str, Any], contents: Mapping[str, bytes | Path], overwrite: bool
) -> BundleManifest:
    _recover(place)
    _check_place(place, overwrite)
    temporary = place.with_name(f".{place.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        files = {name: _copy(content, temporary / name) for name, content in sorted(contents.items())}
        manifest = parse_manifest(_dump({**raw, "files": files}), place / MANIFEST_NAME)
        _write(temporary / MANIFEST_NAME, manifest.to_json())
        flush(temporary)
        # Only what opens and runs is published.
        Bundle.open(temporary).check()
        _publish(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _check_place(place: Path, overwrite: bool) -> None:
    if not place.parent.is_dir():
        raise BundleError(f"{place.parent} is no folder: make it first")
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise BundleError(f"{place} exists: choose another folder, or ask to overwrite it")
    # Never replace what is not ours: overwriting deletes the whole folder.
    if not place.is_dir() or (any(place.iterdir()) and not (place / MANIFEST_NAME).is_file()):
        raise BundleError(f"{place} is not a bundle and is left alone: choose another folder")


def _recover(place: Path) -> None:
    """Finish or undo a replacement that was killed."""
    aside = aside_path(place)
    if not aside.is_dir():
        return
    if (place / MANIFEST_NAME).is_file():
        shutil.rmtree(aside)
    elif not os.path.lexists(place):
        aside.rename(place)


def _publish(temporary: Path, place: Path) -> None:
    aside = aside_path(place)
    replacing = place.exists()
    if replacing:
        place.rename(aside)
    temporary.rename(place)
    flush(place.parent)
    if replacing:
        shutil.rmtree(aside)


def _copy(content: bytes | Path, target: Path) -> dict[str, Any]:
    """Copy one file into the bundle, to the disk, and return its record."""
    if isinstance(content, bytes):
        _write(target, content)
    else:
        try:
            shutil.copyfile(content, target)
        except OSError as error:
            raise BundleError(f"{content} cannot be copied ({error.strerror}): check the path") from error
        flush(target)
    return {"sha256": sha256_of(target), "bytes": target.stat().st_size}


def _dump(raw: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(raw, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"a field of the bundle has no JSON form ({error}): pass plain values") from error


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    flush(path)
