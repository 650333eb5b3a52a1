"""Writes a copy of a bundle with some changes: everything else stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from model.runtime.bundle import Bundle, BundleDescription, BundleManifest, write_bundle
from model.runtime.bundle.graphs import GRAPHS


def copy_bundle(
    bundle: Bundle,
    output: Path,
    graphs: Mapping[str, bytes] | None = None,
    packed_graphs: Collection[str] | None = None,
    **changes: Any,
) -> BundleManifest:
    """Write a copy of a bundle.

    Args:
        bundle: the bundle.
        output: becomes the copy; a bundle that is there is replaced.
        graphs: graphs that are added or replaced, by their names.
        packed_graphs: graphs whose files are packed; None: those of the bundle.
        changes: other values of fields of `BundleDescription`.

    Raises:
        BundleError: the copy cannot be written.
    """
    manifest = bundle.manifest
    contents: dict[str, bytes | Path] = {
        name: bundle.read_graph(name) if name in manifest.packed_graphs else bundle.folder / name
        for name in manifest.files
        if name in GRAPHS
    }
    shared = {field.name for field in fields(BundleDescription)} & set(type(manifest).model_fields)
    values = {name: getattr(manifest, name) for name in shared}
    values["hubness"] = bundle.hubness_correction
    values["embedding_dims"] = manifest.embedding_dims or ()
    description = BundleDescription(
        **values,
        tokens=manifest.tokens,
        context_length=manifest.text.context_length,
        answers=bundle.vocabulary,
        reference_images=bundle.reference_images,
        unicode_form=manifest.text.unicode_form or "NFKC",
        languages=manifest.text.languages or (),
    )
    tokenizer = bundle.folder / manifest.text.tokenizer
    return write_bundle(
        output,
        {**contents, **(graphs or {})},
        replace(description, **changes),
        tokenizer,
        packed_graphs=manifest.packed_graphs if packed_graphs is None else packed_graphs,
        overwrite=True,
    )
