"""Libraries of toy videos, made by the real indexer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.events import IndexSummary
from indexer.options import IndexOptions
from indexer.run import index_paths
from indexer.stages.base import AnyStage
from model.runtime.bundle import Bundle
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

Parts = Sequence[tuple[str, float]]

#: What `make_library` films unless told: the colours of each file. `long.mp4` is three segments of 24 s.
FILMS: Mapping[str, Parts] = {
    "red.mp4": [("red", 2.0)],
    "green.mp4": [("green", 2.0)],
    "shelf/ein Film, früher.mp4": [("blue", 2.0)],
    "shelf/traffic.mp4": [("red", 1.0), ("yellow", 1.0), ("green", 1.0)],
    "long.mp4": [("black", 24.0), ("cyan", 24.0), ("white", 24.0)],
}


def data_file(library: Path, table: str) -> Path:
    """The only data file of a library's table."""
    (path,) = (library / f"{table}.lance" / "data").glob("*.lance")
    return path


@dataclass(frozen=True)
class ToyLibrary:
    """Where a library, its media and its bundle are."""

    media: Path
    library: Path
    bundle: Path

    @property
    def options(self) -> list[str]:
        """The options that name the library and the bundle to `reelfind`."""
        return ["--library", str(self.library), "--bundle", str(self.bundle)]

    def film(self, name: str, parts: Parts, title: str | None = None) -> Path:
        """Add a video to the media folder; `index` brings it into the library."""
        return make_video(self.media / name, parts=parts, size=(64, 48), fps=4, title=title)

    def index(self, *stages: AnyStage) -> IndexSummary:
        """Index the media folder and publish a snapshot, as `reelfind index --prune` does."""
        # Decoding in this process: what is tested with these libraries is not the indexer.
        options = IndexOptions(workers=0, prune=True, prune_empty=True)
        bundle = Bundle.open(self.bundle)
        return index_paths([self.media], self.library, bundle, options, lambda _event: None, stages=stages)


def make_library(folder: Path, films: Mapping[str, Parts] = FILMS, **bundle: Any) -> ToyLibrary:
    """Film `films` into `folder`, index them with the toy bundle and publish snapshot 1.

    `bundle` are options of `make_toy_bundle`.
    """
    toy = ToyLibrary(folder / "media", folder / "library", folder / "bundle")
    make_toy_bundle(toy.bundle, **bundle)
    toy.media.mkdir(parents=True, exist_ok=True)
    for name, parts in films.items():
        toy.film(name, parts, title="Traffic lights" if name.endswith("traffic.mp4") else None)
    toy.index()
    return toy
