"""Writes a bundle: whole and checked, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.runtime.bundle.files import aside_path
from model.runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    BundleManifest,
    SalienceStrategy,
    check_file_name,
    parse_manifest,
)
from model.runtime.bundle.reader import Bundle
from model.runtime.errors import BundleError
from model.runtime.files import flush, sha256_of
from model.runtime.preprocessing import ResizeRule

_TOKENIZER = "tokenizer.json"


def write_bundle(
    folder: str | Path,
    *,
    name: str,
    licence: str,
    provenance: Mapping[str, Any],
    embedding_dim: int,
    salience_dim: int,
    tokens_per_frame: int,
    hidden_dim: int,
    text_hidden_dim: int,
    image_size: int,
    context_length: int,
    graphs: Mapping[str, bytes | Path],
    tokenizer: Path,
    description: str = "",
    resize: ResizeRule = "squash",
    frames_per_segment: int = 16,
    segment_seconds: float = 32.0,
    stored_tokens_per_frame: int | None = None,
    num_salient_frames: int = 2,
    num_candidates: int = 100,
    salience_strategy: SalienceStrategy = "collaborative",
    ensemble_lambda: float = 1.0,
    calibration: Mapping[str, Any] | None = None,
    extra_files: Sequence[Path] = (),
    overwrite: bool = False,
) -> BundleManifest:
    """Write a bundle beside its place, flush it to disk, then rename it into place.

    Args:
        folder: where it will stand; its parent must exist.
        name: a short name of the bundle.
        licence: an SPDX expression.
        provenance: {recipe, data [{name, licence, source}], weights [the same], commit, metrics {}}.
        embedding_dim: D.
        salience_dim: S.
        tokens_per_frame: P.
        hidden_dim: H, width of frame tokens.
        text_hidden_dim: T, width of text tokens.
        image_size: side of the frame encoder's input in pixels.
        context_length: longest text in tokens.
        graphs: content or file of each graph, by its name in the format.
        tokenizer: a `tokenizer.json`.
        description: what it is good for.
        resize: how frames become squares.
        frames_per_segment: N.
        segment_seconds: the longest segment.
        stored_tokens_per_frame: what an index stores by default, merged from P; None: all P.
        num_salient_frames: frames kept for a query.
        num_candidates: segments re-ranked for a query.
        salience_strategy: what is baked into the salience vectors.
        ensemble_lambda: weight of the similarity beside the match score.
        calibration: None, or {kind: "logistic", scale, bias}.
        extra_files: more files to carry, e.g. a licence's text or a graph's external data.
        overwrite: replace the bundle that stands there. Killed between the two renames, the old one is left
            at `aside_path(folder)`, and the next write puts it back first.

    Returns:
        the manifest as written.

    Raises:
        BundleError: a field or graph is wrong, `folder` is taken, or it cannot be written.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow a link at the place itself
    contents: dict[str, bytes | Path] = {**graphs, _TOKENIZER: Path(tokenizer)}
    for path in extra_files:
        if path.name in contents:
            raise BundleError(f"{path} has the name of another file of the bundle: rename it")
        contents[path.name] = path
    raw = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "description": description,
        "licence": licence,
        "provenance": dict(provenance),
        "embedding_dim": embedding_dim,
        "salience_dim": salience_dim,
        "tokens_per_frame": tokens_per_frame,
        "stored_tokens_per_frame": (
            tokens_per_frame if stored_tokens_per_frame is None else stored_tokens_per_frame
        ),
        "hidden_dim": hidden_dim,
        "text_hidden_dim": text_hidden_dim,
        "frames_per_segment": frames_per_segment,
        "segment_seconds": segment_seconds,
        "num_salient_frames": num_salient_frames,
        "num_candidates": num_candidates,
        "salience_strategy": salience_strategy,
        "image": {"size": image_size, "resize": resize},
        "text": {"tokenizer": _TOKENIZER, "context_length": context_length},
        "ensemble_lambda": ensemble_lambda,
        "calibration": None if calibration is None else dict(calibration),
    }
    try:
        for file in contents:
            check_file_name(file)
        return _write_folder(place, raw, contents, overwrite)
    except ValueError as error:
        raise BundleError(f"{place} is not written: {error}") from error
    except OSError as error:
        raise BundleError(f"{place} cannot be written ({error}): check the place and its disk") from error


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
