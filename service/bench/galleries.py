"""Labelled videos that quality is measured on: the user's, the demo's, or films spliced from them."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.names import find_as_seen
from model.runtime.queries import LabelledQuery
from service.bench.splice import MAX_CHARACTERS, splice_clips
from service.demo.films import collect
from service.demo.queries import QUERIES as DEMO_QUERIES
from service.live import open_searcher
from service.search.evaluation import evaluate_library, read_clean_queries
from service.settings import load_settings


@dataclass(frozen=True)
class VideoGallery:
    """Videos and queries about them; `files` includes the video of every query."""

    label: str
    folder: Path
    queries_file: Path
    only_set: str | None
    queries: tuple[LabelledQuery, ...]
    files: tuple[Path, ...]


def read_galleries(clips: Path, queries: Path, *, whole: bool = False) -> list[VideoGallery]:
    """A gallery for each value of the field `set`, in the order of the file; a single one without sets.

    With `whole`, there is also a gallery of all rows where there are several sets.

    Raises:
        InputError: the file cannot be read, or a row is invalid.
    """
    labelled = read_clean_queries(queries, None, MAX_CHARACTERS)
    sets = list(dict.fromkeys(query.set_name for query in labelled if query.set_name is not None))
    galleries = [_gallery(name, clips, queries, name) for name in sets]
    if not sets or (whole and len(sets) > 1):
        galleries.append(_gallery("all" if sets else queries.stem, clips, queries, None))
    return galleries


def demo_gallery(cache: Path) -> VideoGallery:
    """The demo's videos and its three queries.

    Raises:
        ReelfindError: the packages of the extra `demo` are missing.
    """
    folder = cache / "demo-films"
    files = collect(folder)
    queries = folder / "queries.jsonl"
    rows = [{"query": query.text, "video": query.video} for query in DEMO_QUERIES]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labelled = tuple(read_clean_queries(queries, None, MAX_CHARACTERS))
    return VideoGallery("the demo's films", folder, queries, None, labelled, tuple(files))


def spliced_gallery(gallery: VideoGallery, cache: Path, seed: int) -> VideoGallery:
    """Films spliced from a gallery's videos; kept in `cache` for the next run.

    Raises:
        QueryError: a video is missing.
        VideoError: a video cannot be decoded.
    """
    name = re.sub(r"[^\w.-]+", "-", gallery.label)
    out = cache / "spliced" / f"{name}-seed{seed}"
    spliced = splice_clips(gallery.folder, gallery.queries_file, out, seed=seed, only_set=gallery.only_set)
    return _gallery(f"{gallery.label}, spliced with seed {seed}", spliced.folder, spliced.queries, None)


def index_gallery(gallery: VideoGallery, library: Path, bundle: Bundle, options: IndexOptions) -> None:
    """Index the gallery's videos into a new library.

    Raises:
        InputError: a video is missing.
        LibraryError: the library cannot be written.
        BundleError: the bundle fails.
    """
    index_paths(gallery.files, library, bundle, options, lambda _event: None)


@dataclass(frozen=True)
class GalleryResult:
    """R@1 of a gallery's queries, in percent, and the size of its library."""

    similarity: float
    """R@1 by the similarity alone."""
    ensemble: float | None
    """R@1 with re-ranking; None where nothing was re-ranked."""
    num_segments: int
    num_frames: int


def search_gallery(gallery: VideoGallery, library: Path, bundle: Path) -> GalleryResult:
    """Search a gallery's library with all of its queries, as `reelfind eval` does.

    Raises:
        QueryError: a query's video cannot be searched.
        LibraryError: the library cannot be read.
    """
    searcher = open_searcher(load_settings({"library": library, "bundle": bundle}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ties: the rank counts half of them
            figures = evaluate_library(searcher, list(gallery.queries))
    finally:
        searcher.queues.close()
    manifest = searcher.snapshot.manifest
    ensemble = None if figures.ensemble is None else figures.ensemble["R@1"]
    return GalleryResult(figures.similarity["R@1"], ensemble, manifest.num_segments, manifest.num_frames)


def _gallery(label: str, clips: Path, queries: Path, only_set: str | None) -> VideoGallery:
    labelled = tuple(read_clean_queries(queries, only_set, MAX_CHARACTERS))
    names = sorted({query.video for query in labelled})
    files = tuple(dict.fromkeys(find_as_seen(clips / name) for name in names))
    return VideoGallery(label, clips, queries, only_set, labelled, files)
