"""Compares ways to store tokens: the bytes of a segment, and the R@1 of re-ranking."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from indexer.library.folder import make_layout
from indexer.library.schema import Layout
from indexer.options import IndexOptions, default_workers
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from service.bench.figures import BenchReport, Cell, Grid, Section
from service.bench.galleries import GalleryResult, VideoGallery, index_gallery, search_gallery
from service.bench.indexing import decode_alone, encode_alone

_COLUMNS = ("stored as", "tokens", "computed", "measured", "all", "global", "ensemble", "encode")
_FEW_QUERIES = 30
_ENCODED_FILES = 6


def layouts(bundle: Bundle) -> list[Layout]:
    """No tokens, all of them as float32 and as int8, and as int8 merged to a half and to a quarter."""
    most = bundle.token_sizes().tokens_per_frame
    # At least two are left: the first token of a frame is never merged.
    counts = dict.fromkeys(max(min(2, most), -(-most // share)) for share in (1, 2, 4))
    return [
        make_layout(bundle, "none", None),
        make_layout(bundle, "float32", most),
        *(make_layout(bundle, "int8", count) for count in counts),
    ]


def measure_tokens(galleries: Sequence[VideoGallery], bundle: Path, *, repeats: int) -> BenchReport:
    """Index every gallery in each layout and search it; time the encoding of some segments in each.

    Raises:
        ReelfindError: the bundle has no matching head, so it needs no tokens.
        InputError: a video is missing.
        QueryError: a query's video cannot be searched.
    """
    opened = Bundle.open(bundle)
    if "match" not in opened.capabilities:
        raise ReelfindError(f"{opened.folder} has no matching head: choose another bundle with --bundle")
    return BenchReport(grids=[_compare_layouts(gallery, opened, repeats) for gallery in galleries])


def _compare_layouts(gallery: VideoGallery, bundle: Bundle, repeats: int) -> Grid:
    compared = layouts(bundle)
    sizes: dict[Layout, int] = {}
    results: dict[Layout, GalleryResult] = {}
    for layout in compared:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "library"
            index_gallery(gallery, library, bundle, options_of(layout))
            sizes[layout] = _bytes(library)
            results[layout] = search_gallery(gallery, library, bundle.folder)
    encoding = _encode_seconds(gallery, bundle, compared, repeats)
    bare = compared[0]
    segments, frames = results[bare].num_segments, results[bare].num_frames
    rows: list[tuple[Cell, ...]] = []
    for layout in compared:
        stored = layout != bare
        rows.append(
            (
                _name(layout, bundle),
                layout.tokens_per_frame,
                round(layout.token_bytes * frames / segments),
                round((sizes[layout] - sizes[bare]) / segments) if stored else None,
                round(sizes[layout] / segments),
                results[layout].similarity,
                results[layout].ensemble if stored else None,
                1000 * encoding[layout],
            )
        )
    note = (
        f"{len(gallery.files)} videos, {segments} segments, {len(gallery.queries)} queries; "
        "tokens per frame; bytes per segment: of its tokens as computed and as measured, and in all; "
        f"R@1 in percent: by the similarity and by the ensemble; ms to encode a segment, median of {repeats}"
    )
    if len(gallery.queries) < _FEW_QUERIES:
        note += ". So few queries only show that it works."
    return Grid(f"{Section.TOKENS}: {gallery.label}", _COLUMNS, tuple(rows), note)


def _encode_seconds(
    gallery: VideoGallery, bundle: Bundle, compared: Sequence[Layout], repeats: int
) -> dict[Layout, float]:
    """Median seconds to encode a segment in each layout; the layouts take turns with the same segments."""
    some = gallery.files[:_ENCODED_FILES]
    segments = decode_alone(some, bundle, options_of(compared[0]))[:_ENCODED_FILES]
    seconds: dict[Layout, list[float]] = {layout: [] for layout in compared}
    for turn in range(repeats + 1):
        for layout in compared:
            started = time.perf_counter()
            encode_alone(bundle, segments, options_of(layout))
            if turn:  # the first turn warms up
                seconds[layout].append((time.perf_counter() - started) / len(segments))
    return {layout: statistics.median(values) for layout, values in seconds.items()}


def options_of(layout: Layout) -> IndexOptions:
    """Options that make a library of this layout."""
    per_frame = layout.tokens_per_frame or None
    return IndexOptions(workers=default_workers(), tokens=layout.tokens, tokens_per_frame=per_frame)


def _name(layout: Layout, bundle: Bundle) -> str:
    return f"{layout.tokens}, default" if layout == make_layout(bundle, None, None) else layout.tokens


def _bytes(library: Path) -> int:
    return sum(path.stat().st_size for path in library.rglob("*") if path.is_file())
