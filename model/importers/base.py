"""What an importer reads and what it returns.

An importer is a module with `load(checkpoint) -> Imported`, listed in `model.importers.FAMILIES`. It reads
one family of published checkpoints, and knows nothing of bundles on disk, of hubs or of precision.

Shapes: B batch, N frames, L text tokens, D joint space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model.export.provenance import current_commit
from model.families.base import Graph
from model.runtime.bundle import BundleDescription
from model.runtime.bundle.manifest import ImageSpec, Provenance, SourceRecord
from model.runtime.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A published model on this disk: a folder as `save_pretrained` writes it.

    Attributes:
        config_path: `config.json`; beside it lie the weights, and the files of tokenizer and image processor.
        config: its content.
        source: where it comes from: name, licence, address and revision.
        languages: that its text encoder reads, as codes of ISO 639; empty: the model card does not say.
        pickled: whether its weights may be read from pickled files.
    """

    config_path: Path
    config: Mapping[str, Any]
    source: SourceRecord
    languages: tuple[str, ...] = ()
    pickled: bool = False

    @property
    def folder(self) -> Path:
        """The folder that holds all its files."""
        return self.config_path.parent

    def part(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration, such as `text_config`.

        Raises:
            InputError: there is none.
        """
        section = self.config.get(name)
        if not isinstance(section, Mapping):
            raise InputError(
                f"{self.config_path}: {name} is {section!r}: a {self.config.get('model_type')} has a section "
                "there; download the checkpoint again, or save it anew with save_pretrained"
            )
        return section

    def provenance(self) -> Provenance:
        """The provenance of a bundle of its weights."""
        recipe = {"import": self.source.name, "family": self.config.get("model_type")}
        return Provenance(
            recipe=json.dumps(recipe), data=(), weights=(self.source,), commit=current_commit(), metrics={}
        )

    def describe(
        self, dim: int, image: ImageSpec, context_length: int, languages: tuple[str, ...], **others: Any
    ) -> BundleDescription:
        """The description of a bundle of its weights, whose salience is the embedding of frame and text.

        Args:
            dim: D.
            image: how a picture becomes a square.
            context_length: the longest text, in tokens.
            languages: that the family reads, unless the model card names others.
            others: further fields of `BundleDescription`.
        """
        return BundleDescription(
            name=self.source.name,
            licence=self.source.licence,
            provenance=self.provenance(),
            embedding_dim=dim,
            salience_dim=dim,
            image=image,
            context_length=context_length,
            salience_strategy="simdot",
            unicode_form="as_is",
            languages=self.languages or languages,
            **others,
        )


class Imported(NamedTuple):
    """A checkpoint as a bundle: what `load` returns.

    Attributes:
        graphs: the graphs by their file names in the bundle.
        description: everything that `bundle.json` says besides its files.
        tokenizer: the content of `tokenizer.json`.
        warnings: what people should know, a line each.
    """

    graphs: Mapping[str, Graph]
    description: BundleDescription
    tokenizer: bytes
    warnings: tuple[str, ...] = ()


#: Reads one family of checkpoints.
Load = Callable[[Checkpoint], Imported]
