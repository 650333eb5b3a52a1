"""The demo's queries, and the server's answers to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.server_process import ServerProcess

if TYPE_CHECKING:
    from service.client.search_answers import Hit


@dataclass(frozen=True)
class DemoQuery:
    """A query to try, and the name of the video that it describes."""

    text: str
    video: str


QUERIES = (
    DemoQuery("a tabby cat with green eyes", "film-cat.mp4"),
    DemoQuery("a cup of coffee on a table", "film-coffee.mp4"),
    DemoQuery("a person on a bicycle in the street", "clip-street-with-bikes.mp4"),
)


@dataclass(frozen=True)
class DemoHit:
    """A hit: the video's file name, its score, and the times of its most relevant frames."""

    video: str
    score: float
    match_score: float | None
    """The matching head's score of these frames; None without re-ranking."""
    seconds: tuple[float, ...]
    """Most relevant first."""


@dataclass(frozen=True)
class DemoAnswer:
    """The server's answer to one query: its hits, best first."""

    query: DemoQuery
    hits: tuple[DemoHit, ...]

    @property
    def rank(self) -> int | None:
        """The rank of the expected video, from 1; None when it is not among the hits."""
        names = [hit.video for hit in self.hits]
        return names.index(self.query.video) + 1 if self.query.video in names else None


def ask(server: ServerProcess, query: DemoQuery, top_k: int = 10) -> DemoAnswer:
    """Send a query over HTTP.

    Raises:
        ReelfindError: the server does not answer it.
    """
    with server.client() as client:
        hits = client.search(query.text, top_k=top_k).hits
    return DemoAnswer(query, tuple(_read_hit(hit) for hit in hits))


def _read_hit(hit: "Hit") -> DemoHit:
    ranked = sorted(hit.frames, key=lambda frame: -(frame.relevance or 0.0))
    salient = [frame for frame in ranked if frame.salient] or ranked[:1]
    return DemoHit(
        video=Path(hit.path).name,
        score=hit.score,
        match_score=hit.match_score,
        seconds=tuple(frame.pts_seconds for frame in salient),
    )
