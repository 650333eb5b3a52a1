"""Writes a bundle: complete and checked, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from model.runtime.bundle.description import BundleDescription
from model.runtime.bundle.files import aside_path
from model.runtime.bundle.graphs import ANSWERS, FORMAT_VERSION, PACKED_FORMAT_VERSION, REFERENCE_TEXTS
from model.runtime.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    TokenSizes,
    check_file_name,
    parse_manifest,
)
from model.runtime.bundle.packing import packed, packed_name
from model.runtime.bundle.reader import Bundle
from model.runtime.bundle.references import references_file
from model.runtime.bundle.trial import remember_tried
from model.runtime.errors import BundleError
from model.runtime.files import flush, sha256_of

_TOKENIZER = "tokenizer.json"


def write_bundle(
    folder: str | Path,
    graphs: Mapping[str, bytes | Path],
    description: BundleDescription,
    tokenizer: Path,
    *,
    packed_graphs: Collection[str] = (),
    overwrite: bool = False,
) -> BundleManifest:
    """Write a bundle beside its destination, flush it to disk, check it, then rename it into place.

    Args:
        folder: the destination; its parent must exist.
        graphs: content or file of each graph, by its name in the format.
        description: everything else that `bundle.json` says.
        tokenizer: a `tokenizer.json`.
        packed_graphs: graphs whose files are packed: those of coarse codes.
        overwrite: replace the bundle at the destination. If the process is killed between the two renames,
            the old bundle is at `aside_path(folder)`, and the next write restores it first.

    Returns:
        The manifest as written.

    Raises:
        BundleError: a field or graph is invalid, `folder` exists, or the bundle cannot be written.
    """
    destination = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow a link at the end
    contents: dict[str, bytes | Path] = {**graphs, _TOKENIZER: tokenizer}
    if description.answers:
        contents[ANSWERS] = json.dumps(description.answers, ensure_ascii=False, indent=0).encode() + b"\n"
    if description.hubness is not None:
        contents[REFERENCE_TEXTS] = references_file(description.hubness.references)
    if description.reference_images is not None:
        contents |= description.reference_images.files()
    try:
        for file in contents:
            check_file_name(file)
        version = PACKED_FORMAT_VERSION if packed_graphs else FORMAT_VERSION
        raw = {"format_version": version, **_fields(description)}
        return _write_folder(destination, raw, contents, packed_graphs, overwrite)
    except ValueError as error:
        raise BundleError(f"{destination} is not written: {error}") from error
    except OSError as error:
        raise BundleError(
            f"{destination} cannot be written ({error}): check the path and its disk"
        ) from error


def _fields(description: BundleDescription) -> dict[str, Any]:
    """The fields of `bundle.json` without its files."""
    d = description
    tokens = {field.name: None for field in fields(TokenSizes)} if d.tokens is None else asdict(d.tokens)
    return {
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
        "text": {
            "tokenizer": _TOKENIZER,
            "context_length": d.context_length,
            "unicode_form": None if d.unicode_form == "NFKC" else d.unicode_form,
            "languages": list(d.languages) or None,
        },
        "ensemble_lambda": d.ensemble_lambda,
        "calibration": None if d.calibration is None else d.calibration.model_dump(),
        "salience_match": None if d.salience_match is None else d.salience_match.model_dump(),
        "moments": None if d.moments is None else d.moments.model_dump(),
        "embedding_dims": list(d.embedding_dims) or None,
        "hubness": None
        if d.hubness is None
        else {"weight": d.hubness.weight, "neighbours": d.hubness.neighbours},
    }


def _write_folder(
    destination: Path,
    raw: dict[str, Any],
    contents: Mapping[str, bytes | Path],
    packed_graphs: Collection[str],
    overwrite: bool,
) -> BundleManifest:
    _recover(destination)
    _check_destination(destination, overwrite)
    temporary = destination.with_name(f".{destination.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        files = {
            name: _pack(content, temporary / packed_name(name))
            if name in packed_graphs
            else _copy(content, temporary / name)
            for name, content in sorted(contents.items())
        }
        manifest = parse_manifest(_dump({**raw, "files": files}), destination / MANIFEST_NAME)
        _write(temporary / MANIFEST_NAME, manifest.to_json())
        flush(temporary)
        # Publish only a bundle that opens and runs.
        bundle = Bundle.open(temporary, trial=False)
        bundle.check()
        remember_tried(bundle.checksum)
        _publish(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _check_destination(destination: Path, overwrite: bool) -> None:
    if not destination.parent.is_dir():
        raise BundleError(f"{destination.parent} is not a folder: create it first")
    if not os.path.lexists(destination):
        return
    if not overwrite:
        raise BundleError(f"{destination} exists: choose another folder, or ask to overwrite it")
    # Replace nothing but a bundle: overwriting deletes the whole folder.
    if not destination.is_dir() or (
        any(destination.iterdir()) and not (destination / MANIFEST_NAME).is_file()
    ):
        raise BundleError(f"{destination} is not a bundle and is left alone: choose another folder")


def _recover(destination: Path) -> None:
    """Finish or undo a replacement that was interrupted."""
    aside = aside_path(destination)
    if not aside.is_dir():
        return
    if (destination / MANIFEST_NAME).is_file():
        shutil.rmtree(aside)
    elif not os.path.lexists(destination):
        aside.rename(destination)


def _publish(temporary: Path, destination: Path) -> None:
    aside = aside_path(destination)
    exists = destination.exists()
    if exists:
        destination.rename(aside)
    temporary.rename(destination)
    flush(destination.parent)
    if exists:
        shutil.rmtree(aside)


def _copy(content: bytes | Path, target: Path) -> dict[str, Any]:
    """Copy a file into the bundle, flush it to disk, and return its record."""
    if isinstance(content, bytes):
        _write(target, content)
    else:
        try:
            shutil.copyfile(content, target)
        except OSError as error:
            raise BundleError(f"{content} cannot be copied ({error.strerror}): check the path") from error
        flush(target)
    return {"sha256": sha256_of(target), "bytes": target.stat().st_size}


def _pack(content: bytes | Path, target: Path) -> dict[str, Any]:
    """Pack a graph into a file of the bundle, and return its record."""
    unpacked = content if isinstance(content, bytes) else content.read_bytes()
    return {**_copy(packed(unpacked), target), "unpacked_bytes": len(unpacked)}


def _dump(raw: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(raw, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"a field of the bundle has no JSON form ({error}): pass plain values") from error


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    flush(path)
