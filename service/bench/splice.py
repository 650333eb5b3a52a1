"""Longer films spliced from labelled clips: each query is about one part of a film and none of the others.

`python -m service.bench.splice CLIPS --queries queries.jsonl --seed 0 --out FOLDER` writes the films and a
query file for `reelfind eval`.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray

from model.runtime.exits import exit_codes
from model.runtime.queries import LabelledQuery
from model.runtime.video import VideoReader, probe
from service.errors import QueryError
from service.search.evaluation import read_clean_queries

WIDTH, HEIGHT, FRAMES_PER_SECOND = 426, 240, 25
CLIPS_A_FILM = 3
PLAN, QUERIES = "splice.json", "queries.jsonl"
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
    """The first so many frames fade in over the end of the part before; 0: a cut."""

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + self.frames


@dataclass(frozen=True)
class Film:
    """A spliced film: its file name and its parts in order."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Spliced:
    """Where the films are and what was asked of them."""

    folder: Path
    queries: Path
    films: tuple[Film, ...]
    num_queries: int

    @property
    def seconds(self) -> float:
        """Length of all films together."""
        return sum(film.parts[-1].end for film in self.films) / FRAMES_PER_SECOND


def splice(
    clips: Path,
    queries: Path,
    out: Path,
    *,
    seed: int,
    only_set: str | None = None,
    on_made: Callable[[Film], None] | None = None,
) -> Spliced:
    """Splice every three clips that `queries` names into a film in `out`, and write the films' queries.

    Which clips meet, their order, and whether a joint is a cut or a fade of half a second follow from `seed`.
    All are brought to one size and rate; sound is left out. Films of the same plan are kept, those of another
    are removed. Several processes may write the same folder. Where the clips do not divide by three, the last
    films have two.

    Args:
        clips: the folder that the queries' file names are in.
        queries: JSON lines with `query` and `video`, as `reelfind eval` reads them.
        out: where the films and `queries.jsonl` go. The rows say in addition where the right clip is.
        seed: another one, another choice.
        only_set: keeps the rows whose field `set` is this.
        on_made: told of each film written.

    Raises:
        InputError: the queries cannot be read, or a clip is missing; names the line.
        VideoError: a clip cannot be decoded.
    """
    labelled = read_clean_queries(queries, only_set, MAX_CHARACTERS)
    for query in labelled:
        if not (clips / query.video).is_file():
            raise QueryError(
                f"{queries}, line {query.line}: {clips / query.video} is missing. Bring it back."
            )
    films = plan_films(clips, sorted({query.video for query in labelled}), seed)
    out.mkdir(parents=True, exist_ok=True)
    _begin(out, films, seed)
    for film in films:
        if not (out / film.name).is_file():
            partial = _partial(out / film.name)
            try:
                write_film(clips, film, partial)
                partial.replace(out / film.name)
            finally:
                partial.unlink(missing_ok=True)
            if on_made is not None:
                on_made(film)
    rows = list(_rows(labelled, films, only_set))
    _write_text(out / QUERIES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Spliced(out, out / QUERIES, films, len(rows))


def plan_films(folder: Path, clips: Sequence[str], seed: int) -> tuple[Film, ...]:
    """Choose which clips of `folder` meet in which film, and how; the same for the same clips and seed."""
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
                # A third of the shorter one at most: every clip has frames of its own.
                fade = min(_FADE_FRAMES, frames // 3, parts[-1].frames // 3) if faded else 0
                start = parts[-1].end - fade
            parts.append(Part(clip, path.stat().st_size, start, frames, fade))
        films.append(Film(f"spliced-{number:03d}.mp4", tuple(parts)))
    return tuple(films)


def write_film(clips: Path, film: Film, target: Path) -> None:
    """Write a film: H.264 in MP4, the same bytes every time."""
    with av.open(str(target), "w", format="mp4") as container:
        options = {"preset": "ultrafast", "crf": "23", "g": str(2 * FRAMES_PER_SECOND), "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for picture in _pictures(clips, film):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _pictures(clips: Path, film: Film) -> Iterator[NDArray[np.uint8]]:
    """The film's pictures, uint8 [h, w, 3]; only those of a fade are held back."""
    held: list[NDArray[np.uint8]] = []
    for part, following in zip(film.parts, (*film.parts[1:], None), strict=True):
        own = part.frames - (following.fade if following is not None else 0)
        holding: list[NDArray[np.uint8]] = []
        for number, picture in enumerate(_clip_pictures(clips / part.clip, part.frames)):
            if number < part.fade:
                weight = np.float32((number + 1) / (part.fade + 1))
                picture = (held[number] * (1 - weight) + picture * weight).astype(np.uint8)
            if number < own:
                yield picture
            else:
                holding.append(picture)
        held = holding


def _clip_pictures(path: Path, frames: int) -> Iterator[NDArray[np.uint8]]:
    """`frames` pictures of a clip at the film's rate and size; its last stays where it ends early."""
    times = [(number + 0.5) / FRAMES_PER_SECOND for number in range(frames)]
    picture: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
    count, source = 0, None
    with VideoReader(path, max_side=None, threads=1) as reader:
        for shown in reader.get_frames_played_at(times):
            if source is not shown:
                source = shown
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown.data), format="rgb24")
                frame = frame.reformat(WIDTH, HEIGHT, "rgb24", interpolation="AREA")
                picture = frame.to_ndarray().astype(np.uint8, copy=False)
            count += 1
            yield picture
    for _ in range(frames - count):
        yield picture


def _begin(out: Path, films: Sequence[Film], seed: int) -> None:
    """Note the plan; what was made by another one is stale."""
    plan: dict[str, Any] = {
        "size": [WIDTH, HEIGHT],
        "frames_per_second": FRAMES_PER_SECOND,
        "seed": seed,
        "films": [asdict(film) for film in films],
    }
    try:
        known = json.loads((out / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != json.loads(json.dumps(plan)):
        for path in out.glob("spliced-*.mp4"):
            path.unlink(missing_ok=True)
        _write_text(out / PLAN, json.dumps(plan, indent=1))


def _rows(
    labelled: Sequence[LabelledQuery], films: Sequence[Film], only_set: str | None
) -> Iterator[dict[str, object]]:
    place = {part.clip: (film, part) for film in films for part in film.parts}
    for query in labelled:
        film, part = place[query.video]
        row: dict[str, object] = {"query": query.text, "video": film.name, "clip": part.clip}
        if only_set is not None:
            row["set"] = only_set
        row["start_seconds"] = round(part.start / FRAMES_PER_SECOND, 3)
        row["end_seconds"] = round(part.end / FRAMES_PER_SECOND, 3)
        yield row


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _write_text(path: Path, text: str) -> None:
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _command(
    clips: Annotated[Path, typer.Argument(help="The folder of the clips.")],
    queries: Annotated[Path, typer.Option(help='A file with a row {"query": …, "video": …} a line.')],
    out: Annotated[Path, typer.Option(help="Where the films go.")],
    seed: Annotated[int, typer.Option(min=0, help="Another one, another choice.")] = 0,
    only_set: Annotated[
        str | None, typer.Option("--set", help="Only rows whose field `set` is this.")
    ] = None,
) -> None:
    """Splice every three clips into a longer film."""
    with exit_codes(lambda line: typer.echo(line, err=True), "splice"):
        made = splice(clips, queries, out, seed=seed, only_set=only_set)
    typer.echo(
        f"{len(made.films)} films, {made.seconds:.0f} s, {made.num_queries} queries: {made.folder}\n"
        f"reelfind index {made.folder} --library LIBRARY\n"
        f"reelfind eval --queries {made.queries} --library LIBRARY"
    )


if __name__ == "__main__":
    typer.run(_command)
