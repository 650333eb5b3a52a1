"""The parts of the benchmark, and how much each measures."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service.bench.figures import Report


class BenchPart(StrEnum):
    """What can be measured alone."""

    INDEXING = "indexing"
    MEMORY = "memory"
    SEARCH = "search"
    FAISS = "faiss"
    RERANK = "rerank"
    TOKENS = "tokens"


@dataclass(frozen=True)
class BenchScale:
    """How much is measured."""

    repeats: int
    minutes: int
    """Length of the long file in the memory test."""
    clips: int
    """Small clips in the corpus; the large corpus has an eighth of them."""
    searches: int
    vectors: int
    reranked: int
    """Searches with re-ranking for each of its figures in a repetition."""


FULL = BenchScale(repeats=3, minutes=60, clips=64, searches=128, vectors=50_000, reranked=64)
QUICK = BenchScale(repeats=2, minutes=3, clips=16, searches=48, vectors=10_000, reranked=16)
# Small clips to re-rank among: more than are re-ranked.
_CANDIDATE_CLIPS = 112


@dataclass(frozen=True)
class LabelledClips:
    """A folder of videos and the file with the queries about them."""

    clips: Path
    queries: Path


def default_cache() -> Path:
    """The folder that outlasts a run: videos are made once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelfind" / "bench"


def measurements(
    scale: BenchScale, bundle: Path, cache: Path, labelled: Sequence[LabelledClips], splice: int
) -> dict[BenchPart, Callable[[], Report]]:
    """What measures each part.

    Args:
        scale: how much is measured.
        bundle: the model bundle's folder.
        cache: where the videos to measure with are kept.
        labelled: videos with queries to measure quality with.
        splice: for how many seeds `labelled` is also spliced into longer films.
    """
    # Each part loads what it needs: the command must start, and show its help, without any of it.
    from service.bench import ann, indexing, memory, rerank, serving, spliced, tokens
    from service.bench.galleries import demo_gallery, read_galleries

    def search() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), scale.clips)
            return Report(serving.measure(library, bundle, repeats=scale.repeats, queries=scale.searches))

    def reranking() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), _CANDIDATE_CLIPS)
            figures = rerank.measure(library, bundle, repeats=scale.repeats, queries=scale.reranked)
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries, whole=True)]
        quality = spliced.measure(galleries, cache, bundle, seeds=splice) if splice else Report()
        return Report([*figures, *quality.figures], quality.grids)

    def storing() -> Report:
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries)]
        return tokens.measure(galleries or [demo_gallery(cache)], bundle, repeats=scale.repeats)

    return {
        BenchPart.INDEXING: lambda: Report(
            indexing.measure(cache, bundle, repeats=scale.repeats, clips=scale.clips)
        ),
        BenchPart.MEMORY: lambda: Report(
            memory.measure(cache, bundle, minutes=scale.minutes, repeats=scale.repeats)
        ),
        BenchPart.SEARCH: search,
        BenchPart.FAISS: lambda: Report(
            ann.measure(scale.vectors, queries=100, dim=256, repeats=scale.repeats)
        ),
        BenchPart.RERANK: reranking,
        BenchPart.TOKENS: storing,
    }
