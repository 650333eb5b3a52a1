"""What stored tokens cost, and what they are worth: bytes a segment against R@1, by how they are stored."""

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
from service.bench.figures import Cell, Grid, Report
from service.bench.galleries import Found, Gallery, index_gallery, search_gallery
from service.bench.indexing import Corpus, decode, encode

SECTION = "Stored tokens"
_COLUMNS = ("stored as", "tokens", "computed", "measured", "all", "global", "ensemble", "encode")
_FEW_QUERIES = 30
_ENCODED_FILES = 6


def layouts(bundle: Bundle) -> list[Layout]:
    """No tokens, all of them as float32 and as int8, and as int8 merged to a half and to a quarter."""
    most = bundle.token_sizes().tokens_per_frame
    # Two are left at least: the first one of a frame is never merged.
    counts = dict.fromkeys(max(min(2, most), -(-most // share)) for share in (1, 2, 4))
    return [
        make_layout(bundle, "none", None),
        make_layout(bundle, "float32", most),
        *(make_layout(bundle, "int8", count) for count in counts),
    ]


def measure(galleries: Sequence[Gallery], bundle: Path, *, repeats: int) -> Report:
    """Index every gallery in each layout and search it; encode some of it in all of them by turns.

    Raises:
        ReelfindError: the bundle has no matching head, so tokens are worth nothing.
        InputError: a video is missing.
        QueryError: a query's video cannot be searched.
    """
    opened = Bundle.open(bundle)
    if "match" not in opened.capabilities:
        raise ReelfindError(f"{opened.folder} has no matching head: choose another bundle with --bundle")
    return Report(grids=[_measure(gallery, opened, repeats) for gallery in galleries])


def _measure(gallery: Gallery, bundle: Bundle, repeats: int) -> Grid:
    compared = layouts(bundle)
    sizes: dict[Layout, int] = {}
    found: dict[Layout, Found] = {}
    for layout in compared:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "library"
            index_gallery(gallery, library, bundle, options_of(layout))
            sizes[layout] = _bytes(library)
            found[layout] = search_gallery(gallery, library, bundle.folder)
    encoding = _encode_seconds(gallery, bundle, compared, repeats)
    bare = compared[0]
    segments, frames = found[bare].num_segments, found[bare].num_frames
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
                found[layout].similarity,
                found[layout].ensemble if stored else None,
                1000 * encoding[layout],
            )
        )
    note = (
        f"{len(gallery.files)} videos, {segments} segments, {len(gallery.queries)} queries; tokens a frame; "
        "bytes a segment: of its tokens as computed and as measured, of all; R@1 in percent: by the "
        f"similarity, by the ensemble; ms to encode a segment, median of {repeats}"
    )
    if len(gallery.queries) < _FEW_QUERIES:
        note += ". So few queries only show that it works."
    return Grid(f"{SECTION}: {gallery.label}", _COLUMNS, tuple(rows), note)


def _encode_seconds(
    gallery: Gallery, bundle: Bundle, compared: Sequence[Layout], repeats: int
) -> dict[Layout, float]:
    """Seconds to encode a segment, by layout: the same segments, by turns; medians."""
    some = Corpus(gallery.label, gallery.folder, gallery.files[:_ENCODED_FILES], 0.0)
    segments = decode(some, bundle, options_of(compared[0]))[:_ENCODED_FILES]
    taken: dict[Layout, list[float]] = {layout: [] for layout in compared}
    for turn in range(repeats + 1):
        for layout in compared:
            started = time.perf_counter()
            encode(bundle, segments, options_of(layout))
            if turn:  # the first one warms up
                taken[layout].append((time.perf_counter() - started) / len(segments))
    return {layout: statistics.median(values) for layout, values in taken.items()}


def options_of(layout: Layout) -> IndexOptions:
    """What makes a library of this layout."""
    per_frame = layout.tokens_per_frame or None
    return IndexOptions(workers=default_workers(), tokens=layout.tokens, tokens_per_frame=per_frame)


def _name(layout: Layout, bundle: Bundle) -> str:
    return f"{layout.tokens}, default" if layout == make_layout(bundle, None, None) else layout.tokens


def _bytes(library: Path) -> int:
    return sum(path.stat().st_size for path in library.rglob("*") if path.is_file())
