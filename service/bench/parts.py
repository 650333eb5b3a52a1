"""The parts of the benchmark, and how much each measures."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service.bench.figures import BenchReport


class BenchPart(StrEnum):
    """A part of the benchmark that can be measured on its own."""

    INDEXING = "indexing"
    STAGES = "stages"
    MEMORY = "memory"
    RESCAN = "rescan"
    RENAMES = "renames"
    PUBLISHING = "publishing"
    ISOLATION = "isolation"
    ENGINES = "engines"
    SEARCH = "search"
    FAISS = "faiss"
    VECTORS = "vectors"
    RERANK = "rerank"
    TOKENS = "tokens"
    PAGING = "paging"


@dataclass(frozen=True)
class BenchScale:
    """How much is measured."""

    repeats: int
    minutes: int
    """Length of the long file for the memory test."""
    clips: int
    """Number of small clips; there are an eighth as many large ones."""
    searches: int
    vectors: int
    stored_vectors: int
    """Vectors with which their backends are compared."""
    files: int
    """Files that are found again."""
    renamed: int
    """Files that get other names."""
    written: int
    """Segments that are written with their pictures."""
    indexed: int
    """Segments of a library that is published, for its rate."""
    published: int
    """Segments of the library to which a video is added."""
    reranked: int
    """Searches with re-ranking for each figure in a repetition."""
    segments: int
    """Segments of the library for filters and pages."""


FULL = BenchScale(
    repeats=3,
    minutes=60,
    clips=64,
    searches=128,
    vectors=50_000,
    stored_vectors=250_000,
    files=200_000,
    renamed=10_000,
    written=1024,
    indexed=100_000,
    published=1_000_000,
    reranked=64,
    segments=200_000,
)
QUICK = BenchScale(
    repeats=2,
    minutes=3,
    clips=16,
    searches=48,
    vectors=10_000,
    stored_vectors=30_000,
    files=20_000,
    renamed=1_000,
    written=256,
    indexed=5_000,
    published=20_000,
    reranked=16,
    segments=20_000,
)
# Small clips in the library for re-ranking: more than the number of candidates.
_CANDIDATE_CLIPS = 112


@dataclass(frozen=True)
class LabelledClips:
    """A folder of videos and a file with queries about them."""

    clips: Path
    queries: Path


def default_cache() -> Path:
    """The folder in which videos are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelfind" / "bench"


def measurements(
    scale: BenchScale, bundle: Path, cache: Path, labelled: Sequence[LabelledClips], splice_seeds: int
) -> dict[BenchPart, Callable[[], BenchReport]]:
    """A function for each part that measures it.

    Args:
        scale: how much is measured.
        bundle: the model bundle's folder.
        cache: where the videos to measure with are kept.
        labelled: videos with queries to measure quality on.
        splice_seeds: with how many seeds `labelled` is also spliced into longer films.
    """
    # Import late: the command must start, and show its help, without loading all parts.
    from service.bench import (
        ann,
        engines,
        ensemble,
        indexing,
        isolation,
        memory,
        paging,
        publishing,
        renames,
        rerank,
        rescan,
        serving,
        stages,
        tokens,
        vector_stores,
    )
    from service.bench.galleries import demo_gallery, read_galleries

    def all_stages() -> BenchReport:
        how_much = stages.StageScale(scale.clips, scale.indexed, scale.written, scale.repeats)
        own = [pair.clips for pair in labelled]
        rates, figures = stages.measure_stages(cache, bundle, own, how_much)
        return BenchReport(figures, rates=rates)

    def search() -> BenchReport:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), scale.clips)
            return BenchReport(
                serving.measure_serving(library, bundle, repeats=scale.repeats, queries=scale.searches)
            )

    def reranking() -> BenchReport:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), _CANDIDATE_CLIPS)
            figures = rerank.measure_reranking(library, bundle, repeats=scale.repeats, queries=scale.reranked)
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries, whole=True)]
        quality = BenchReport()
        if splice_seeds:
            quality = ensemble.measure_ensemble(galleries, cache, bundle, seeds=splice_seeds)
        return BenchReport([*figures, *quality.figures], quality.grids)

    def storing() -> BenchReport:
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries)]
        return tokens.measure_tokens(galleries or [demo_gallery(cache)], bundle, repeats=scale.repeats)

    return {
        BenchPart.INDEXING: lambda: BenchReport(
            indexing.measure_indexing(cache, bundle, repeats=scale.repeats, clips=scale.clips)
        ),
        BenchPart.STAGES: all_stages,
        BenchPart.MEMORY: lambda: BenchReport(
            memory.measure_memory(cache, bundle, minutes=scale.minutes, repeats=scale.repeats)
        ),
        BenchPart.RESCAN: lambda: BenchReport(
            rescan.measure_rescan(files=scale.files, repeats=scale.repeats)
        ),
        BenchPart.RENAMES: lambda: BenchReport(
            renames.measure_renames(bundle, files=scale.renamed, repeats=scale.repeats)
        ),
        BenchPart.PUBLISHING: lambda: BenchReport(
            publishing.measure_publishing(bundle, segments=scale.published, repeats=scale.repeats)
        ),
        BenchPart.ISOLATION: lambda: BenchReport(
            isolation.measure_isolation(cache, bundle, repeats=scale.repeats, clips=scale.clips)
        ),
        BenchPart.ENGINES: lambda: BenchReport(
            engines.measure_engines(cache, bundle, repeats=scale.repeats, clips=scale.clips)
        ),
        BenchPart.SEARCH: search,
        BenchPart.FAISS: lambda: BenchReport(
            ann.measure_faiss(scale.vectors, queries=100, dim=256, repeats=scale.repeats)
        ),
        BenchPart.VECTORS: lambda: BenchReport(
            grids=[vector_stores.measure_stores(scale.stored_vectors, queries=100, dim=256)]
        ),
        BenchPart.RERANK: reranking,
        BenchPart.TOKENS: storing,
        BenchPart.PAGING: lambda: BenchReport(
            paging.measure_paging(bundle, segments=scale.segments, queries=8, repeats=scale.repeats)
        ),
    }
