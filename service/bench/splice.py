"""Splices labelled clips into longer films, so that each query is about one part of a film.

`python -m service.bench.splice CLIPS --queries queries.jsonl --seed 0 --out FOLDER` writes the films and a
query file for `reelfind eval`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray

from model.runtime.exits import exit_codes
from model.runtime.files import replace_text, replacing
from model.runtime.names import find_as_seen
from model.runtime.queries import LabelledQuery
from model.runtime.video import VideoReader, probe
from model.runtime.video.writing import write_h264
from service.errors import QueryError
from service.search.evaluation import read_clean_queries

WIDTH, HEIGHT, FRAMES_PER_SECOND = 426, 240, 25
CLIPS_A_FILM = 3
PLAN_FILE, QUERIES_FILE = "splice.json", "queries.jsonl"
_FADE_FRAMES = FRAMES_PER_SECOND // 2
_FADE_SHARE = 0.5
MAX_CHARACTERS = 10_000


@dataclass(frozen=True)
class Part:
    """One clip's place in a film, in frames of the film."""

    clip: str
    clip_bytes: int
    start: int
    frames: int
    fade: int
    """How many of its first frames fade in over the end of the part before; 0: a cut."""

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + self.frames


@dataclass(frozen=True)
class SplicedFilm:
    """A spliced film: its file name and its parts in order."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class SpliceResult:
    """Where the films and their queries are."""

    folder: Path
    queries: Path
    films: tuple[SplicedFilm, ...]
    num_queries: int

    @property
    def seconds(self) -> float:
        """Total length of the films."""
        return sum(film.parts[-1].end for film in self.films) / FRAMES_PER_SECOND


def splice_clips(
    clips: Path,
    queries: Path,
    out: Path,
    *,
    seed: int,
    only_set: str | None = None,
    on_made: Callable[[SplicedFilm], None] | None = None,
) -> SpliceResult:
    """Splice every three clips that `queries` names into a film in `out`, and write the films' queries.

    `seed` decides which clips are joined, their order, and whether a joint is a cut or a fade of half a
    second. All clips are converted to one size and frame rate, without sound. Existing films of the same plan
    are kept, films of another plan are removed. Several processes may write the same folder. If the number of
    clips is not a multiple of three, the last films have two clips.

    Args:
        clips: the folder of the videos that the queries name.
        queries: JSON lines with `query` and `video`, as `reelfind eval` reads them.
        out: the folder for the films and `queries.jsonl`, whose rows also state where the right clip is.
        seed: random seed: decides which clips are joined, and how.
        only_set: keep only the rows whose field `set` has this value.
        on_made: called with each film that is written.

    Raises:
        InputError: the queries cannot be read, or a clip is missing; the message gives the line.
        VideoError: a clip cannot be decoded.
    """
    labelled = [
        replace(query, video=str(find_as_seen(clips / query.video).relative_to(clips)))
        for query in read_clean_queries(queries, only_set, MAX_CHARACTERS)
    ]
    for query in labelled:
        if not (clips / query.video).is_file():
            raise QueryError(
                f"{queries}, line {query.line}: {clips / query.video} is missing. "
                "Restore it, or remove the line."
            )
    films = plan_films(clips, sorted({query.video for query in labelled}), seed)
    out.mkdir(parents=True, exist_ok=True)
    _prepare_folder(out, films, seed)
    for film in films:
        if not (out / film.name).is_file():
            with replacing(out / film.name, shared=True) as temporary:
                write_spliced_film(clips, film, temporary)
            if on_made is not None:
                on_made(film)
    rows = list(_rows(labelled, films, only_set))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    replace_text(out / QUERIES_FILE, lines, shared=True)
    return SpliceResult(out, out / QUERIES_FILE, films, len(rows))


def plan_films(folder: Path, clips: Sequence[str], seed: int) -> tuple[SplicedFilm, ...]:
    """Choose which clips of `folder` are joined, and how; depends only on the clips and the seed."""
    rng = np.random.default_rng(seed)
    order = [clips[i] for i in rng.permutation(len(clips))]
    films = []
    for number, group in enumerate(np.array_split(np.arange(len(clips)), -(-len(clips) // CLIPS_A_FILM))):
        parts: list[Part] = []
        for clip in (order[i] for i in group):
            path = folder / clip
            frames = max(1, round(probe(path).duration_seconds * FRAMES_PER_SECOND))
            start = fade = 0
            if parts:
                faded = rng.random() < _FADE_SHARE
                # At most a third of the shorter clip: every clip has frames outside of fades.
                fade = min(_FADE_FRAMES, frames // 3, parts[-1].frames // 3) if faded else 0
                start = parts[-1].end - fade
            parts.append(Part(clip, path.stat().st_size, start, frames, fade))
        films.append(SplicedFilm(f"spliced-{number:03d}.mp4", tuple(parts)))
    return tuple(films)


def write_spliced_film(clips: Path, film: SplicedFilm, target: Path) -> None:
    """Write a film: H.264 in MP4, the same bytes every time."""
    options = {"preset": "ultrafast", "crf": "23", "g": str(2 * FRAMES_PER_SECOND), "threads": "1"}
    write_h264(target, _film_frames(clips, film), FRAMES_PER_SECOND, options)


def _film_frames(clips: Path, film: SplicedFilm) -> Iterator[NDArray[np.uint8]]:
    """Yield the film's frames, uint8 [h, w, 3]; only the frames of a fade are held in memory."""
    outgoing: list[NDArray[np.uint8]] = []  # the end of the part before, which fades out
    for part, following in zip(film.parts, (*film.parts[1:], None), strict=True):
        fade_start = part.frames - (following.fade if following is not None else 0)
        held: list[NDArray[np.uint8]] = []
        for number, frame in enumerate(_clip_frames(clips / part.clip, part.frames)):
            if number < part.fade:
                weight = np.float32((number + 1) / (part.fade + 1))
                frame = (outgoing[number] * (1 - weight) + frame * weight).astype(np.uint8)
            if number < fade_start:
                yield frame
            else:
                held.append(frame)
        outgoing = held


def _clip_frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` frames of a clip at the film's rate and size; repeat the last if the clip ends early."""
    times = [(number + 0.5) / FRAMES_PER_SECOND for number in range(count)]
    resized: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
    num_frames, source = 0, None
    with VideoReader(path, max_side=None, threads=1) as reader:
        for frame in reader.get_frames_played_at(times):
            if source is not frame:
                source = frame
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.data), format="rgb24")
                image = image.reformat(WIDTH, HEIGHT, "rgb24", interpolation="AREA")
                resized = image.to_ndarray().astype(np.uint8, copy=False)
            num_frames += 1
            yield resized
    for _ in range(count - num_frames):
        yield resized


def _prepare_folder(out: Path, films: Sequence[SplicedFilm], seed: int) -> None:
    """Write the plan, and remove the films of another plan."""
    plan: dict[str, Any] = {
        "size": [WIDTH, HEIGHT],
        "frames_per_second": FRAMES_PER_SECOND,
        "seed": seed,
        "films": [asdict(film) for film in films],
    }
    try:
        old_plan = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old_plan = None
    if old_plan != json.loads(json.dumps(plan)):
        for path in out.glob("spliced-*.mp4"):
            path.unlink(missing_ok=True)
        replace_text(out / PLAN_FILE, json.dumps(plan, indent=1), shared=True)


def _rows(
    labelled: Sequence[LabelledQuery], films: Sequence[SplicedFilm], only_set: str | None
) -> Iterator[dict[str, object]]:
    place_of = {part.clip: (film, part) for film in films for part in film.parts}
    for query in labelled:
        film, part = place_of[query.video]
        row: dict[str, object] = {"query": query.text, "video": film.name, "clip": part.clip}
        if only_set is not None:
            row["set"] = only_set
        row["start_seconds"] = round(part.start / FRAMES_PER_SECOND, 3)
        row["end_seconds"] = round(part.end / FRAMES_PER_SECOND, 3)
        yield row


def _command(
    clips: Annotated[Path, typer.Argument(help="The folder of the clips.")],
    queries: Annotated[Path, typer.Option(help='A file with one row {"query": …, "video": …} per line.')],
    out: Annotated[Path, typer.Option(help="The folder for the films.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed: decides which clips are joined.")] = 0,
    only_set: Annotated[
        str | None, typer.Option("--set", help="Use only the rows whose field `set` has this value.")
    ] = None,
) -> None:
    """Splice every three clips into a longer film."""
    with exit_codes(lambda line: typer.echo(line, err=True), "splice"):
        result = splice_clips(clips, queries, out, seed=seed, only_set=only_set)
    typer.echo(
        f"{len(result.films)} films, {result.seconds:.0f} s, {result.num_queries} queries: {result.folder}\n"
        f"reelfind index {result.folder} --library LIBRARY\n"
        f"reelfind eval --queries {result.queries} --library LIBRARY"
    )


if __name__ == "__main__":
    typer.run(_command)
