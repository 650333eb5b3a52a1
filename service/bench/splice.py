"""Splices labelled clips into longer films, so that each query is about one part of a film.

`python -m service.bench.splice CLIPS --queries queries.jsonl --seed 0 --out FOLDER` writes the films and a
query file for `reelfind eval`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from model.runtime.exits import exit_codes
from model.runtime.files import replace_text, replacing
from model.runtime.names import find_as_seen
from model.runtime.queries import LabelledQuery
from model.runtime.video.splicing import (
    CLIPS_A_FILM,
    FRAMES_PER_SECOND,
    HEIGHT,
    WIDTH,
    SplicedFilm,
    plan_films,
    write_spliced_film,
)
from service.errors import QueryError
from service.search.evaluation import read_clean_queries

PLAN_FILE, QUERIES_FILE = "splice.json", "queries.jsonl"
MAX_CHARACTERS = 10_000


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
    clips_a_film: int = CLIPS_A_FILM,
    on_made: Callable[[SplicedFilm], None] | None = None,
) -> SpliceResult:
    """Splice every few clips that `queries` names into a film in `out`, and write the films' queries.

    `seed` decides which clips are joined, their order, and whether a joint is a cut or a fade of half a
    second. All clips are converted to one size and frame rate, without sound. Existing films of the same plan
    are kept, films of another plan are removed. Several processes may write the same folder. If the number of
    clips is not a multiple of `clips_a_film`, the last films have one clip less.

    Args:
        clips: the folder of the videos that the queries name.
        queries: JSON lines with `query` and `video`, as `reelfind eval` reads them.
        out: the folder for the films and `queries.jsonl`, whose rows also state where the right clip is.
        seed: random seed: decides which clips are joined, and how.
        only_set: keep only the rows whose field `set` has this value.
        clips_a_film: clips of a film.
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
    films = plan_films(clips, sorted({query.video for query in labelled}), seed, clips_a_film)
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
    clips_per_film: Annotated[int, typer.Option(min=1, help="Clips of a film.")] = CLIPS_A_FILM,
) -> None:
    """Splice every few clips into a longer film."""
    with exit_codes(lambda line: typer.echo(line, err=True), "splice"):
        result = splice_clips(clips, queries, out, seed=seed, only_set=only_set, clips_a_film=clips_per_film)
    typer.echo(
        f"{len(result.films)} films, {result.seconds:.0f} s, {result.num_queries} queries: {result.folder}\n"
        f"reelfind index {result.folder} --library LIBRARY\n"
        f"reelfind eval --queries {result.queries} --library LIBRARY"
    )


if __name__ == "__main__":
    typer.run(_command)
