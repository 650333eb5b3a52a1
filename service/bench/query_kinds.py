"""Measures searches by pictures and sequences, and batches, on a library whose files are still there.

`python -m service.bench.query_kinds LIBRARY` finds each video by a frame of it. With `--queries FILE`, such
as that of `service.bench.splice`, it also finds moments by a frame of them, and sequences by the texts of
neighbouring moments. With `--server` it measures times over HTTP.
"""

import io
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from model.runtime.exits import exit_codes
from model.runtime.moments import temporal_iou
from model.runtime.queries import LabelledQuery, read_queries
from model.runtime.retrieval_metrics import retrieval_metrics
from model.runtime.video import VideoReader
from service.bench.load import drive
from service.bench.memory import tree_bytes
from service.bench.serving import query_texts, take
from service.client import Client
from service.live import open_searcher
from service.search.asking import ask
from service.search.encoded_query import EncodedQuery
from service.search.picture_encoder import encode_pixels
from service.search.queries import SequenceQuery, TextQuery
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.video_finder import VideoFinder
from service.server_process import ServerProcess, running_server
from service.settings import load_settings

Pixels = NDArray[np.uint8]
Say = Callable[[str], None]
_TOP_K = 10
_BATCH = 64
_BY_MOMENT = SearchOptions(group_by="moment")


class Part(NamedTuple):
    """A span of a video, its text, and a frame of it."""

    video_id: str
    span: tuple[float, float]
    text: str
    pixels: Pixels


def same(pixels: Pixels) -> Pixels:
    """The picture as it is."""
    return pixels


def cropped(pixels: Pixels) -> Pixels:
    """The middle of a picture, 60 % of each side."""
    height, width = pixels.shape[:2]
    return pixels[height // 5 : height - height // 5, width // 5 : width - width // 5]


def small(pixels: Pixels) -> Pixels:
    """A picture as a small JPEG of low quality."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((160, 160))
    image.save(out, "JPEG", quality=40)
    return np.array(Image.open(out).convert("RGB"))


def mirrored(pixels: Pixels) -> Pixels:
    """A picture as in a mirror."""
    return np.ascontiguousarray(pixels[:, ::-1])


def grey(pixels: Pixels) -> Pixels:
    """A picture without colours."""
    return np.array(Image.fromarray(pixels).convert("L").convert("RGB"))


CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "as it is": same,
    "its middle, 60 % of each side": cropped,
    "160 px, JPEG 40": small,
    "mirrored": mirrored,
    "grey": grey,
}


def frame_between(path: Path, start: float, end: float, rng: np.random.Generator) -> Pixels:
    """The frame of a file that is shown at a time drawn between two, but not at the very ends."""
    at = start + float(rng.uniform(0.05, 0.95)) * (end - start)
    with VideoReader(path) as reader:
        frame = next(iter(reader.get_frames_played_at([at])))
    return np.asarray(frame.data)


def measure_frames(searcher: Searcher, seed: int, say: Say) -> None:
    """Find each video by one frame of it, changed in several ways, without and with re-ranking."""
    rng, snapshot = np.random.default_rng(seed), searcher.snapshot
    videos = [v for v in snapshot.videos(0, snapshot.count_videos()) if v.num_segments]
    frames = [frame_between(v.files[0].path, 0, v.duration_seconds, rng) for v in videos]
    for name, change in CHANGES.items():
        queries = [encode_pixels(searcher.bundle, change(pixels)) for pixels in frames]
        for rerank in (False, True):
            options = SearchOptions(group_by="video", rerank=rerank)
            hits = [searcher.search_encoded(query, _TOP_K, options).hits for query in queries]
            ranks = [_rank(found, v.video_id) for found, v in zip(hits, videos, strict=True)]
            say(f"frame, {name}, {'re-ranked' if rerank else 'first stage'}: {_recalls(ranks)}")


def read_parts(searcher: Searcher, queries: Sequence[LabelledQuery], seed: int) -> list[Part]:
    """The spans that queries name, each with a frame of it."""
    rng, finder, snapshot = np.random.default_rng(seed), VideoFinder(searcher.snapshot), searcher.snapshot
    parts = []
    for query in queries:
        video = snapshot.video(snapshot.video_id_at(finder.row_of(query.video)))
        if video is not None and query.span is not None:
            pixels = frame_between(video.files[0].path, *query.span, rng)
            parts.append(Part(video.video_id, query.span, query.text, pixels))
    return parts


def measure_moments(searcher: Searcher, parts: Sequence[Part], say: Say) -> None:
    """Find moments by a frame of them: by the rule that pictures have, and by the head that texts have."""
    queries = [encode_pixels(searcher.bundle, part.pixels) for part in parts]
    for name, by_head in (("by the relevance of frames", False), ("by the moment head", True)):
        overlaps = [
            _overlap(searcher, replace(query, is_text_alone=by_head), part)
            for query, part in zip(queries, parts, strict=True)
        ]
        shares = ", ".join(
            f"IoU ≥ {least:g}: {100 * np.mean(np.array(overlaps) >= least):.1f} %"
            for least in (0.3, 0.5, 0.7)
        )
        say(f"first moment for a frame, {name}: {shares} (n = {len(parts)})")


def _overlap(searcher: Searcher, query: EncodedQuery, part: Part) -> float:
    """The IoU of the first moment with the part that the frame is of."""
    best = searcher.search_encoded(query, 1, _BY_MOMENT).hits[0]
    if best.video_id != part.video_id:
        return 0.0
    return float(temporal_iou(np.array([best.start_seconds, best.end_seconds]), np.array(part.span)))


def measure_sequences(searcher: Searcher, parts: Sequence[Part], say: Say) -> None:
    """Find videos by the texts of neighbouring parts: in order, in the wrong order, and as one text."""
    by_video: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda part: part.span):
        by_video.setdefault(part.video_id, []).append(part)
    pairs = [pair for own in by_video.values() for pair in itertools.pairwise(own)]
    for name, texts in (
        ("in order", [(one.text, other.text) for one, other in pairs]),
        ("in the wrong order", [(other.text, one.text) for one, other in pairs]),
    ):
        ranks, seconds = [], []
        for (one, _), steps in zip(pairs, texts, strict=True):
            query = SequenceQuery(tuple(map(TextQuery, steps)))
            started = time.perf_counter()
            hits = ask(searcher, query, _TOP_K, _BY_MOMENT).hits
            seconds.append(time.perf_counter() - started)
            ranks.append(_rank(hits, one.video_id))
        say(f"two texts {name}: {_recalls(ranks)}, {1000 * statistics.median(seconds):.0f} ms")
    joined = [f"{one.text} {other.text}" for one, other in pairs]
    found = [searcher.search(text, _TOP_K, SearchOptions(group_by="video")).hits for text in joined]
    ranks = [_rank(hits, one.video_id) for hits, (one, _) in zip(found, pairs, strict=True)]
    say(f"both in one text: {_recalls(ranks)}")


def _rank(hits: Sequence[Hit], video_id: str) -> int:
    """The place of a video, from 1; beyond the last hit if it is not there."""
    ids = [hit.video_id for hit in hits]
    return ids.index(video_id) + 1 if video_id in ids else len(ids) + 1 + _TOP_K


def _recalls(ranks: Sequence[int]) -> str:
    found = retrieval_metrics(ranks)
    return (
        f"R@1 {found['R@1']:.1f} %, R@5 {found['R@5']:.1f} %, R@10 {found['R@10']:.1f} % (n = {len(ranks)})"
    )


def measure_times(server: ServerProcess, frame_id: str, pixels: Pixels, repeats: int, say: Say) -> None:
    """Median milliseconds of searches over HTTP, one after another, and the memory that pictures take."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    with server.client(600.0) as client:
        _measure_times(server, client, frame_id, out.getvalue(), repeats, say)


def _measure_times(
    server: ServerProcess, client: Client, frame_id: str, data: bytes, repeats: int, say: Say
) -> None:
    texts = query_texts()

    def timed(count: int, request: Callable[[], object]) -> float:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            request()
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)

    def text() -> object:
        return client.search(next(texts), top_k=_TOP_K)

    def stored() -> object:
        return client.search({"frame_id": frame_id}, top_k=_TOP_K)

    def picture() -> object:
        return client.search(image=data)

    timed(20, text)
    before = tree_bytes(server.process.pid)
    say(f"first picture: {timed(1, picture):.1f} ms")
    timed(10, picture)
    say(f"memory of the server after pictures: {(tree_bytes(server.process.pid) - before) / 2**20:+.0f} MiB")
    for name, request in (("text", text), ("stored frame", stored), ("picture", picture)):
        say(f"search by a {name}: {timed(repeats, request):.1f} ms (median of {repeats})")
    for round_number in range(3):
        _compare_batch(server, client, texts, round_number + 1, say)


def _compare_batch(
    server: ServerProcess, client: Client, texts: Iterator[str], number: int, say: Say
) -> None:
    """One batch against as many single searches: one after another, and eight at a time."""
    asked: list[Any] = [{"query": {"text": text}, "top_k": _TOP_K} for text in take(texts, 3 * _BATCH)]
    started = time.perf_counter()
    client.search_batch(asked[:_BATCH])
    batch = time.perf_counter() - started
    single = drive(server, asked[_BATCH : 2 * _BATCH], 1).seconds
    together = drive(server, asked[2 * _BATCH :], 8).seconds
    say(
        f"round {number}: a batch of {_BATCH} {batch:.2f} s; {_BATCH} searches one after another "
        f"{single:.2f} s, eight at a time {together:.2f} s"
    )


def _command(
    library: Annotated[Path, typer.Argument(help="The folder of the library.")],
    queries: Annotated[
        Path | None,
        typer.Option(help='A file with rows {"query": …, "video": …, "start_seconds": …, "end_seconds": …}.'),
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="Also measure times over HTTP.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Searches of each kind that are timed.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Random seed: decides which frames are taken.")] = 0,
) -> None:
    """Measure searches by pictures and sequences, and batches."""
    with exit_codes(lambda line: typer.echo(line, err=True), "query_kinds"):
        searcher = open_searcher(load_settings({"library": library}))
        measure_frames(searcher, seed, typer.echo)
        if queries is not None:
            parts = read_parts(searcher, read_queries(queries), seed)
            measure_moments(searcher, parts, typer.echo)
            measure_sequences(searcher, parts, typer.echo)
        if server:
            video = next(v for v in searcher.snapshot.videos(0, 1000) if v.num_segments)
            pixels = frame_between(
                video.files[0].path, 0, video.duration_seconds, np.random.default_rng(seed)
            )
            frame_id = searcher.snapshot.frame_id(int(searcher.snapshot.segment_rows(video.video_id)[0]), 0)
            with running_server(library) as process:
                measure_times(process, frame_id, pixels, repeats, typer.echo)


if __name__ == "__main__":
    typer.run(_command)
