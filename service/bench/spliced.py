"""How well a film is found by one of its parts: by the similarity alone, and by the ensemble with the match.

A film spliced from unrelated videos is where re-ranking should help: most of its frames are noise to a query.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from indexer.options import IndexOptions, default_workers
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, Cell, Figure, Grid, Report
from service.bench.galleries import Gallery, index_gallery, search_gallery, spliced_gallery

SECTION = "Spliced films: the ensemble against the similarity alone"
_BAR = Bar(">=", 5.0)
_COLUMNS = ("clips", "seed", "films", "segments", "queries", "R@1 global", "R@1 ensemble", "gain")


def measure(galleries: Sequence[Gallery], cache: Path, bundle: Path, *, seeds: int) -> Report:
    """Splice every three clips of each gallery by the seeds 0, 1, …, index the films and search them.

    Raises:
        QueryError: a clip is missing.
        VideoError: one cannot be decoded.
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
                found = search_gallery(films, library, bundle)
            if found.ensemble is None:
                raise ReelfindError(f"{bundle} has no matching head: choose another bundle with --bundle")
            gains.append(found.ensemble - found.similarity)
            sizes = (len(films.files), found.num_segments, len(films.queries))
            rows.append((gallery.label, seed, *sizes, found.similarity, found.ensemble, gains[-1]))
        sizes_of = f"{len(gallery.files)} clips, three a film, {len(gallery.queries)} queries"
        note = f"{sizes_of}, seeds 0 to {seeds - 1}"
        name = f"{gallery.label}: R@1 of the ensemble − of the similarity"
        figures.append(Figure(SECTION, name, tuple(gains), "points", bar=_BAR, note=note))
    return Report(figures, [Grid(SECTION, _COLUMNS, tuple(rows), "R@1 in percent")])
