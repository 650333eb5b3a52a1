"""`reelfind demo`: real clips and short films, indexed and served, with queries to try."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import FORMAT_VERSION, MANIFEST_FILE, current_number, snapshot_folder
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.errors import ReelfindError
from service.demo.films import NOTICE, collect
from service.server_process import REELFIND, ServerProcess, post_json, running_server

_SHOWN_HITS = 3
_NOTHING_FOUND, _FAILED, _STOPPED = 1, 3, 130


@dataclass(frozen=True)
class DemoQuery:
    """A query to try and the file that it describes."""

    text: str
    video: str


QUERIES = (
    DemoQuery("a tabby cat with green eyes", "film-cat.mp4"),
    DemoQuery("a cup of coffee on a table", "film-coffee.mp4"),
    DemoQuery("a person on a bicycle in the street", "clip-street-with-bikes.mp4"),
)


@dataclass(frozen=True)
class Found:
    """A hit: the video's file name, its score, and when its most relevant frames are shown."""

    video: str
    score: float
    match_score: float | None
    """What the matching head says of these frames; None where it was not asked."""
    seconds: tuple[float, ...]
    """Most relevant first."""


@dataclass(frozen=True)
class Answer:
    """What the server said to one query: hits, best first."""

    query: DemoQuery
    hits: tuple[Found, ...]

    @property
    def rank(self) -> int | None:
        """The place of the expected video, from 1; None when it is not among the hits."""
        names = [hit.video for hit in self.hits]
        return names.index(self.query.video) + 1 if self.query.video in names else None


def demo_command(
    once: Annotated[bool, typer.Option("--once", help="Answer the three queries and exit.")] = False,
    library: Annotated[
        Path, typer.Option(help="The library's folder; the videos go beside it, in DIR-films.")
    ] = Path("demo-library"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; else 8000, with --once a free one.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The model bundle's folder.")] = None,
    keep: Annotated[
        bool, typer.Option(help="Keep videos and library for the next run, or delete what this run made.")
    ] = True,
) -> None:
    """Index real clips, serve them, and print three queries to try.

    With --once: exit code 0 when every query had hits, 1 when one had none, 3 when the server failed.
    """
    console = Console(highlight=False)
    library = library if library.name else library.absolute()  # "." has no name to build on
    films = library.with_name(f"{library.name}-films")
    made = [folder for folder in (films, library) if not folder.exists()]
    try:
        with _sigterm_as_ctrl_c():
            _prepare(films, library, bundle, console)
            free_port = 0 if once else 8000
            with running_server(
                library, bundle=bundle, host=host, port=free_port if port is None else port
            ) as server:
                if once:
                    answers = [ask(server, query) for query in QUERIES]
                    _print_answers(answers, console)
                    if not all(answer.hits for answer in answers):
                        raise typer.Exit(_NOTHING_FOUND)
                else:
                    _serve_until_stopped(server, console)
    except KeyboardInterrupt:
        console.print("stopped; `reelfind demo` goes on from here")
        raise typer.Exit(_STOPPED) from None
    finally:
        if not keep:
            for folder in made:
                shutil.rmtree(folder, ignore_errors=True)


def ask(server: ServerProcess, query: DemoQuery, top_k: int = 10) -> Answer:
    """Send a query over HTTP. ReelfindError when the server does not answer it."""
    connection = server.connect()
    try:
        body = {"query": {"text": query.text}, "top_k": top_k}
        response = post_json(connection, "/v1/search", body)
    finally:
        connection.close()
    return Answer(query, tuple(_found(hit) for hit in response["hits"]))


def _prepare(films: Path, library: Path, bundle: Path | None, console: Console) -> None:
    with console.status("making the films") as status:
        videos = collect(films, on_made=lambda name: status.update(f"made {name}"))
    console.print(f"{len(videos)} videos in {films} (whose they are: {films / NOTICE})")
    if is_stale(films, library, bundle):
        console.print(
            f"{library} holds these videos as another bundle or version of Reelfind saw them: making it anew"
        )
        shutil.rmtree(library)
    command = ["index", str(films), "--library", str(library)]
    command += ["--bundle", str(bundle)] if bundle is not None else []
    console.print(f"[bold]reelfind {' '.join(command)}[/bold]", soft_wrap=True)
    # In a session of its own: Ctrl-C reaches only this process, which then asks it once to stop.
    process = subprocess.Popen([*REELFIND, *command], start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()  # it keeps what it has encoded
        raise
    if code != 0:  # it has said why
        raise typer.Exit(code if code > 0 else _FAILED)


def is_stale(films: Path, library: Path, bundle: Path | None) -> bool:
    """Whether the library is the demo's own, of its films alone, made with another bundle or version."""
    own = [str(films.resolve())]
    try:
        snapshot = Library.open(library).current()
    except LibraryError:
        # Indexing makes it, mends it, or says what is wrong, unless another version of Reelfind made it.
        manifest = _manifest_of_another_version(library)
        return manifest is not None and manifest.get("media_roots") == own
    if [str(root) for root in snapshot.media_roots] != own:
        return False
    return snapshot.bundle_checksum != Bundle.open(bundle or default_bundle_path()).checksum


def _manifest_of_another_version(library: Path) -> dict[str, Any] | None:
    try:
        number = current_number(library)
        if number is None:
            return None
        manifest = json.loads((snapshot_folder(library, number) / MANIFEST_FILE).read_bytes())
    except (LibraryError, OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format_version") == FORMAT_VERSION:
        return None
    return manifest


def _invite(server: ServerProcess, console: Console) -> None:
    console.print(f"\nReelfind is at [bold]{server.url}[/bold] (Ctrl-C stops it). Three queries to try:")
    for query in QUERIES:
        console.print(f"  {query.text:<42} finds {query.video}")


def _serve_until_stopped(server: ServerProcess, console: Console) -> None:
    try:
        _invite(server, console)
        code = server.process.wait()
    except KeyboardInterrupt:
        console.print("\nstopping")
        return
    raise ReelfindError(f"The server ended by itself with exit code {code}.")


def _print_answers(answers: list[Answer], console: Console) -> None:
    for answer in answers:
        console.print(f"\n[bold]{answer.query.text}[/bold]")
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for place, hit in enumerate(answer.hits[:_SHOWN_HITS], start=1):
            expected = hit.video == answer.query.video
            mark = "[green]✓ expected[/green]" if expected and place == 1 else "expected" if expected else ""
            match = "" if hit.match_score is None else f"match {hit.match_score:+.2f}"
            times = ", ".join(f"{seconds:.1f} s" for seconds in hit.seconds)
            table.add_row(f"  {place}", hit.video, f"{hit.score:.3f}", match, f"at {times}", mark)
        console.print(table if answer.hits else "  [red]nothing found[/red]")
    first = sum(answer.rank == 1 for answer in answers)
    console.print(f"\n{first} of {len(answers)} queries found the expected video first.")


def _found(hit: dict[str, Any]) -> Found:
    ranked = sorted(hit["frames"], key=lambda frame: -float(frame["relevance"]))
    salient = [frame for frame in ranked if frame["salient"]] or ranked[:1]
    return Found(
        video=Path(hit["path"]).name,
        score=float(hit["score"]),
        match_score=None if hit["match_score"] is None else float(hit["match_score"]),
        seconds=tuple(float(frame["pts_seconds"]) for frame in salient),
    )


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Stop the server and leave in order on SIGTERM too, as `timeout` and service managers send it."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
