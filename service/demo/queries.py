"""The demo's queries, and what the server answers to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.server_process import ServerProcess, post_json


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
class DemoHit:
    """A hit: the video's file name, its score, and when its most relevant frames are shown."""

    video: str
    score: float
    match_score: float | None
    """What the matching head says of these frames; None where it was not asked."""
    seconds: tuple[float, ...]
    """Most relevant first."""


@dataclass(frozen=True)
class DemoAnswer:
    """What the server said to one query: hits, best first."""

    query: DemoQuery
    hits: tuple[DemoHit, ...]

    @property
    def rank(self) -> int | None:
        """The place of the expected video, from 1; None when it is not among the hits."""
        names = [hit.video for hit in self.hits]
        return names.index(self.query.video) + 1 if self.query.video in names else None


def ask(server: ServerProcess, query: DemoQuery, top_k: int = 10) -> DemoAnswer:
    """Send a query over HTTP. ReelfindError when the server does not answer it."""
    connection = server.connect()
    try:
        body = {"query": {"text": query.text}, "top_k": top_k}
        response = post_json(connection, "/v1/search", body)
    finally:
        connection.close()
    return DemoAnswer(query, tuple(_read_hit(hit) for hit in response["hits"]))


def _read_hit(hit: dict[str, Any]) -> DemoHit:
    ranked = sorted(hit["frames"], key=lambda frame: -float(frame["relevance"]))
    salient = [frame for frame in ranked if frame["salient"]] or ranked[:1]
    return DemoHit(
        video=Path(hit["path"]).name,
        score=float(hit["score"]),
        match_score=None if hit["match_score"] is None else float(hit["match_score"]),
        seconds=tuple(float(frame["pts_seconds"]) for frame in salient),
    )
