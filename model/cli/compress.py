"""`reelfind-model compress`: makes a bundle small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from model.cli.terminal import report
from model.data.references import sample_captions
from model.data.stills import CaptionedStills, read_stills
from model.export.compressing import FEWEST_BITS, MOST_BITS, Bits, compress_bundle
from model.runtime.bundle import Bundle


def compress_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle to make smaller.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder with captions.csv and images/, and frames.csv for frames of videos."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    frame_bits: Annotated[
        float, typer.Option(min=FEWEST_BITS, max=MOST_BITS, help="Bits of a weight of the frame encoder.")
    ] = Bits.frames,
    text_bits: Annotated[
        float, typer.Option(min=FEWEST_BITS, max=MOST_BITS, help="Bits of a weight of the text encoder.")
    ] = Bits.texts,
    word_bits: Annotated[
        float, typer.Option(min=FEWEST_BITS, max=MOST_BITS, help="Bits of a number of a word embedding.")
    ] = Bits.words,
    images: Annotated[int, typer.Option(min=16, help="Training images that the rounding looks at.")] = 512,
    texts: Annotated[int, typer.Option(min=16, help="Training captions that the rounding looks at.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Round the weights of a bundle's frame and text encoders to a few bits each, and pack them.

    GPTQ (Frantar et al., 2023) looks at training images and captions, so that embeddings change little. Bits
    are those of the codes' entropy: weights that are rare take more, frequent ones fewer. The
    new bundle has no calibration; give it one, and its moment head anew, as both depend on its embeddings.
    """
    opened = Bundle.open(bundle, threads=threads)
    sets = [read_stills(folder, "train") for folder in data]
    rng = np.random.default_rng(seed)
    size = opened.manifest.image.size
    chosen = [
        (place, image)
        for place, stills in enumerate(sets)
        for image in _some(stills, images // len(sets), rng)
    ]
    captions = sample_captions([item for stills in sets for item in stills.captions], texts, seed)
    compress_bundle(
        opened,
        output,
        [sets[place].load(image, size) for place, image in chosen],
        captions,
        Bits(frame_bits, text_bits, word_bits),
        [
            stills.use(folder.resolve().name, "compression", whole=False)
            for folder, stills in zip(data, sets, strict=True)
        ],
        report,
    )
    report(f"compressed bundle written to {output}")


def _some(stills: CaptionedStills, count: int, rng: np.random.Generator) -> list[int]:
    """Images of some items, one of each."""
    items = rng.permutation(len(stills))[:count]
    return [int(rng.choice(stills.items[item])) for item in items]
