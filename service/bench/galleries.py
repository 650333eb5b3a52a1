"""Labelled videos to measure quality with: the caller's, the demo's, or films spliced from either."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.queries import LabelledQuery
from service.bench.splice import MAX_CHARACTERS, splice
from service.demo.films import collect
from service.demo.queries import QUERIES as DEMO_QUERIES
from service.live import open_searcher
from service.search.evaluation import evaluate_library, read_clean_queries
from service.settings import load_settings


@dataclass(frozen=True)
class Gallery:
    """Videos and the queries about them; every query's video is one of them."""

    label: str
    folder: Path
    queries_file: Path
    only_set: str | None
    queries: tuple[LabelledQuery, ...]
    files: tuple[Path, ...]
    """The videos; those of the queries are among them."""


def read_galleries(clips: Path, queries: Path, *, whole: bool = False) -> list[Gallery]:
    """A gallery for each value of the rows' field `set`, in the order of the file; one if there is none.

    `whole` adds one of all rows where there are several sets.

    Raises:
        InputError: the file cannot be read, or a row is not as it must be.
    """
    labelled = read_clean_queries(queries, None, MAX_CHARACTERS)
    sets = list(dict.fromkeys(query.set_name for query in labelled if query.set_name is not None))
    galleries = [_gallery(name, clips, queries, name) for name in sets]
    if not sets or (whole and len(sets) > 1):
        galleries.append(_gallery("all" if sets else queries.stem, clips, queries, None))
    return galleries


def demo_gallery(cache: Path) -> Gallery:
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
    return Gallery("the demo's films", folder, queries, None, labelled, tuple(files))


def spliced_gallery(gallery: Gallery, cache: Path, seed: int) -> Gallery:
    """Films spliced from a gallery's videos; made once.

    Raises:
        QueryError: a video is missing.
        VideoError: one cannot be decoded.
    """
    name = re.sub(r"[^\w.-]+", "-", gallery.label)
    out = cache / "spliced" / f"{name}-seed{seed}"
    made = splice(gallery.folder, gallery.queries_file, out, seed=seed, only_set=gallery.only_set)
    return _gallery(f"{gallery.label}, spliced with seed {seed}", made.folder, made.queries, None)


def index_gallery(gallery: Gallery, library: Path, bundle: Bundle, options: IndexOptions) -> None:
    """Index the gallery's videos into a new library.

    Raises:
        InputError: a video is missing.
        LibraryError: the library cannot be written.
        BundleError: the bundle fails.
    """
    index_paths(gallery.files, library, bundle, options, lambda _event: None)


@dataclass(frozen=True)
class Found:
    """What a search of a gallery's library finds first, in percent of the queries, and the library's size."""

    similarity: float
    """R@1 of the first stage."""
    ensemble: float | None
    """R@1 with re-ranking; None where there was none."""
    num_segments: int
    num_frames: int


def search_gallery(gallery: Gallery, library: Path, bundle: Path) -> Found:
    """Search a library that holds the gallery for every query of it, as `reelfind eval` does.

    Raises:
        QueryError: a query's video cannot be searched.
        LibraryError: the library cannot be read.
    """
    searcher = open_searcher(load_settings({"library": library, "bundle": bundle}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ties: the rank counts half of them
            figures = evaluate_library(searcher, list(gallery.queries))
    finally:
        searcher.match_queue.close()
    manifest = searcher.snapshot.manifest
    ensemble = None if figures.ensemble is None else figures.ensemble["R@1"]
    return Found(figures.similarity["R@1"], ensemble, manifest.num_segments, manifest.num_frames)


def _gallery(label: str, clips: Path, queries: Path, only_set: str | None) -> Gallery:
    labelled = tuple(read_clean_queries(queries, only_set, MAX_CHARACTERS))
    files = tuple(clips / name for name in sorted({query.video for query in labelled}))
    return Gallery(label, clips, queries, only_set, labelled, files)
