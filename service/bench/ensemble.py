"""Compares the ensemble with the similarity alone, on films of which only one part answers a query.

Re-ranking should help with films spliced from unrelated videos: most of their frames are noise to a query.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from indexer.options import IndexOptions, default_workers
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, BenchReport, Cell, Figure, Grid, Section
from service.bench.galleries import VideoGallery, index_gallery, search_gallery, spliced_gallery

_BAR = Bar(">=", 5.0)
_COLUMNS = ("clips", "seed", "films", "segments", "queries", "R@1 global", "R@1 ensemble", "gain")


def measure_ensemble(
    galleries: Sequence[VideoGallery], cache: Path, bundle: Path, *, seeds: int
) -> BenchReport:
    """Splice every three clips of each gallery with the seeds 0, 1, …; index the films and search them.

    Raises:
        QueryError: a clip is missing.
        VideoError: a clip cannot be decoded.
        BundleError: the bundle fails.
    """
    opened = Bundle.open(bundle)
    figures: list[Figure] = []
    rows: list[tuple[Cell, ...]] = []
    for gallery in galleries:
        gains: list[float] = []
        for seed in range(seeds):
            films = spliced_gallery(gallery, cache, seed)
            with tempfile.TemporaryDirectory() as folder:
                library = Path(folder) / "library"
                index_gallery(films, library, opened, IndexOptions(workers=default_workers()))
                result = search_gallery(films, library, bundle)
            if result.ensemble is None:
                raise ReelfindError(f"{bundle} has no match: choose another bundle with --bundle")
            gains.append(result.ensemble - result.similarity)
            sizes = (len(films.files), result.num_segments, len(films.queries))
            rows.append((gallery.label, seed, *sizes, result.similarity, result.ensemble, gains[-1]))
        sizes_of = f"{len(gallery.files)} clips, three a film, {len(gallery.queries)} queries"
        note = f"{sizes_of}, seeds 0 to {seeds - 1}"
        name = f"{gallery.label}: R@1 of the ensemble − of the similarity"
        figures.append(Figure(Section.ENSEMBLE, name, tuple(gains), "points", bar=_BAR, note=note))
    return BenchReport(figures, [Grid(Section.ENSEMBLE, _COLUMNS, tuple(rows), "R@1 in percent")])
