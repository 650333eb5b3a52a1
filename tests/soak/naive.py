"""The naive model of the library: which films a snapshot may hold, and which answers follow from them."""

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import lance
import numpy as np

from tests.soak.films import PART_SECONDS, Film
from tests.support.toy_bundle import frame_tokens, match_logit, text_embedding

#: How far a similarity may be from the one computed, and a match score: tokens are stored in 8 bits.
SIMILARITY_ERROR = 2e-4
MATCH_ERROR = 0.2
#: How many digits of its checksum name a video.
ID_DIGITS = 32

#: What a snapshot holds: the checksum of each film that can be found, by file name.
State = Mapping[str, str]


class Published(NamedTuple):
    """The films of a snapshot, and which of them were at none of their places when it was made."""

    films: State
    missing: frozenset[str]


@dataclass(frozen=True)
class Search:
    """A request: its text, and how many hits of which kind it asks for."""

    text: str
    top_k: int
    rerank: bool


def published_state(library: Path, number: int) -> Published:
    """What a snapshot holds, read from its tables and not with the library's own reader.

    A video is shown at the places where it is; where it is at none, at those where it was.

    Raises:
        OSError: the snapshot is gone, or its tables.
    """
    tables = json.loads((library / "snapshots" / str(number) / "manifest.json").read_bytes())["tables"]
    videos = _rows(library, "videos", tables, ["sha256", "verdict"])
    found = {
        row["sha256"][:ID_DIGITS]: row["sha256"] for row in videos if row["verdict"] in ("ok", "partial")
    }
    files = _rows(library, "files", tables, ["path", "video_id", "missing_since"])
    places = [row for row in files if row["video_id"] in found]
    shown = [row for row in places if row["missing_since"] is None]
    there = {row["video_id"] for row in shown}
    shown += [row for row in places if row["video_id"] not in there]
    films = {Path(os.fsdecode(row["path"])).name: found[row["video_id"]] for row in shown}
    return Published(films, frozenset(name for name, film in films.items() if film[:ID_DIGITS] not in there))


def _rows(
    library: Path, name: str, tables: Mapping[str, int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    try:
        table = lance.dataset(str(library / f"{name}.lance"), version=tables[name])
        rows: list[dict[str, Any]] = table.to_table(columns=list(columns)).to_pylist()
    except ValueError as error:
        raise OSError(str(error)) from error
    return rows


@dataclass
class NaiveLibrary:
    """What is on the disk, and what the library may have of it.

    Attributes:
        disk: the films on the disk, by file name.
        films: every film that there ever was, by its checksum.
        maybe: for each file name, the checksums (or None: no such film) that a snapshot may hold: the last
            one known to be there, and all that were on the disk since.
    """

    disk: dict[str, Film] = field(default_factory=dict)
    films: dict[str, Film] = field(default_factory=dict)
    maybe: dict[str, set[str | None]] = field(default_factory=dict)

    def put(self, name: str, film: Film | None) -> None:
        """A film is on the disk under a name; None: the name is gone."""
        self.maybe.setdefault(name, {None})
        if film is None:
            del self.disk[name]
        else:
            self.disk[name] = film
            self.films[film.sha256] = film
        self.maybe[name].add(self.expected().get(name))

    def expected(self) -> State:
        """What a run that ends well publishes: every film on the disk that can be read."""
        return {name: film.sha256 for name, film in self.disk.items() if film.colours}

    def problems_of(self, state: State, *, complete: bool) -> list[str]:
        """What is wrong with a snapshot's films.

        Args:
            state: what it holds.
            complete: it was published at the end of a run that was not disturbed.
        """
        if complete:
            wrong = {n for n in {*state, *self.expected()} if state.get(n) != self.expected().get(n)}
            said = "is not as it is on the disk"
        else:
            wrong = {n for n in {*state, *self.maybe} if state.get(n) not in self.maybe.get(n, {None})}
            said = "is as it never was"
        return [f"{name} {said}: {state.get(name)}" for name in sorted(wrong)]

    def settle(self) -> None:
        """A run has ended well: the library has what is on the disk."""
        expected = self.expected()
        self.maybe = {name: {expected.get(name)} for name in {*self.disk, *expected}}


def problems_of_answer(
    search: Search,
    answer: Mapping[str, Any],
    held: Mapping[str, Film],
    ensemble_lambda: float,
    missing: Set[str] = frozenset(),
) -> list[str]:
    """What is wrong with an answer, given the films that its snapshot holds; by exact search with NumPy.

    Those that are missing come last.
    """
    hits = answer["hits"]
    names = [Path(hit["path"]).name for hit in hits]
    problems = []
    if len(set(names)) != len(names) or not set(names) <= set(held):
        problems.append(f"finds {sorted(set(names) - set(held))}, which are not there, or one twice: {names}")
        return problems
    wanted = min(search.top_k, len(held))
    if len(hits) != wanted:
        problems.append(f"has {len(hits)} hits, not {wanted}")
    query = text_embedding(search.text)
    for name, hit in zip(names, hits, strict=True):
        film = held[name]
        segment = min(int(hit["start_seconds"] // PART_SECONDS), len(film.colours) - 1)
        problems += _problems_of_hit(search, hit, film, segment, ensemble_lambda, name)
    places = [(name in missing, -hit["score"]) for name, hit in zip(names, hits, strict=True)]
    if places != sorted(places):
        problems.append(f"is not ordered by score, with what is missing last: {places}")
    if [name in missing for name in names] != [hit["missing"] for hit in hits]:
        problems.append(f"does not say rightly what is missing: {sorted(missing)}")
    if not answer["reranked"]:
        # The best segment of each film; no film left out is better than one that is there.
        best = {name: float((film.embeddings @ query).max()) for name, film in held.items()}
        for name, hit in zip(names, hits, strict=True):
            if abs(hit["similarity"] - best[name]) > SIMILARITY_ERROR:
                problems.append(f"has not the best segment of {name}: {hit['similarity']}, not {best[name]}")
        worst = max(((name in missing, -best[name]) for name in names), default=(False, 0.0))
        others = ((name in missing, 2 * SIMILARITY_ERROR - best[name]) for name in set(held) - set(names))
        if hits and min(others, default=worst) < worst:
            problems.append("leaves out a better film")
    if search.rerank and not answer["reranked"] and answer["rerank_skipped"] is None:
        problems.append("is not re-ranked and does not say why")
    return problems


def _problems_of_hit(
    search: Search, hit: Mapping[str, Any], film: Film, segment: int, ensemble_lambda: float, name: str
) -> list[str]:
    similarity = float(film.embeddings[segment] @ text_embedding(search.text))
    problems = []
    if abs(hit["similarity"] - similarity) > SIMILARITY_ERROR:
        problems.append(f"gives {name} the similarity {hit['similarity']}, not {similarity}")
    if hit["match_score"] is not None:
        frames = np.full((1, 32, 32, 3), film.colours[segment], np.uint8)
        match = match_logit(search.text, frame_tokens(frames)[0])
        if abs(hit["match_score"] - match) > MATCH_ERROR:
            problems.append(f"gives {name} the match score {hit['match_score']}, not {match}")
        if abs(hit["score"] - hit["match_score"] - ensemble_lambda * hit["similarity"]) > 1e-3:
            problems.append(f"gives {name} the score {hit['score']}, which is not the sum")
    return problems
