"""Queries that fit a library, for people to begin with.

The library's segments are told apart by the names of a list of things, as CLIP tells pictures apart without
training (Radford et al. 2021, section 3.1): each segment is the thing whose text is nearest, as surely as
softmax(cosine / temperature) says. Of the things that most segments are, and most surely, those are shown
that a search would find with some probability, the likeliest first; without a calibration, the most frequent
ones. Then come the words that the library has of its own: tags and titles.
"""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from indexer.library.curated import tags_of
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from model.runtime.calibration import BACKGROUND_RANKS, probabilities
from service.search.encoded_query import EncodedQuery, encode_text_queries
from service.search.glimpses import visible_rows
from service.search.probability import evidence_of
from service.search.retrieval import best_segments
from service.search.searcher import Searcher

#: Where an example is from: pictures that were told apart, a tag, or a title.
ExampleSource = Literal["seen", "tag", "title"]

#: What segments are told apart by: things that people film.
THINGS = (
    "a person talking to the camera", "people talking at a table", "a crowd of people", "a group of friends",
    "a child playing", "a baby", "a family at home", "a wedding", "a birthday party", "people dancing",
    "a concert on a stage", "a person playing a guitar", "a person playing a piano", "an orchestra",
    "a person giving a talk", "a classroom", "a meeting in an office", "a person at a computer",
    "a person reading a book", "a person writing", "a person cooking in a kitchen", "food on a plate",
    "a cup of coffee on a table", "people eating in a restaurant", "a glass of wine", "fruit and vegetables",
    "a cake", "a market", "a shop", "a dog", "a dog running", "a cat", "a close-up of a cat", "a horse",
    "cows in a field", "sheep", "a bird", "birds flying", "fish under water", "an elephant", "a lion",
    "a monkey", "a bear", "an insect on a flower", "flowers", "a garden", "trees in a forest", "a mountain",
    "snow on mountains", "a person skiing", "a person hiking", "a campfire", "a river", "a lake",
    "a waterfall", "a beach", "waves on the sea", "a person surfing", "a person swimming", "a boat",
    "a harbour with ships", "a bridge", "a sunset", "clouds in the sky", "stars at night", "the moon", "rain",
    "fog", "a desert", "a field of grass", "a farm", "a village", "a city skyline", "a city at night",
    "a busy street with cars", "a road from a moving car", "a car", "a racing car", "a motorcycle",
    "a person riding a bicycle", "a bus", "a train", "a railway station", "an aeroplane", "an airport",
    "a helicopter", "a rocket launch", "an astronaut in space", "a football match", "a basketball game",
    "a tennis match", "a person running", "a gymnast", "a person lifting weights", "a person skateboarding",
    "a boxing match", "a church", "a castle", "a museum", "an old building", "a construction site",
    "a factory", "a machine at work", "a person repairing something", "a laboratory",
    "a doctor in a hospital", "soldiers", "a police car", "a fire", "fireworks", "a parade",
    "a newsreader", "an interview", "a map", "a diagram", "text on a screen", "a cartoon", "a video game",
    "a black and white film",
    "a close-up of a face", "hands at work", "a room in a house", "a view from a drone",
)  # fmt: skip

# That of CLIP's published weights.
_TEMPERATURE = 0.01
# So many things are searched for each example that is wanted.
_TRIED_FOR_EACH = 3
# Segments that are looked at, at most.
_MOST_SEGMENTS = 512
# A title with fewer letters, or more, says little as a query.
_TITLE = re.compile(r"(?=.*[^\W\d_]{3})\w[\w ,.'’-]{2,58}\w")


@dataclass(frozen=True)
class ExampleQuery:
    """A query that fits a library, and where it is from."""

    text: str
    source: ExampleSource


@dataclass(frozen=True)
class _Thing:
    """A thing that a model understands."""

    text: str
    query: EncodedQuery


_encoded: WeakKeyDictionary[Bundle, list[_Thing]] = WeakKeyDictionary()
# Of a searcher, which is one snapshot as somebody sees it, by their number: they take many searches.
_answers: WeakKeyDictionary[Searcher, dict[int, list[ExampleQuery]]] = WeakKeyDictionary()
_encoding = threading.Lock()


def example_queries(searcher: Searcher, count: int) -> list[ExampleQuery]:
    """Queries that fit a library: what is seen in it, then tags and titles.

    Args:
        searcher: the library and its model.
        count: how many, at most.

    Raises:
        BundleError: the model fails.
        LibraryError: a segment is damaged or cannot be read.
    """
    with _encoding:
        known = _answers.setdefault(searcher, {}).get(count)
    if known is None:
        known = _found(searcher, count)
        with _encoding:
            _answers.setdefault(searcher, {})[count] = known
    return known


def _found(searcher: Searcher, count: int) -> list[ExampleQuery]:
    bundle, snapshot = searcher.bundle, searcher.snapshot
    with _encoding:
        things = _encoded.get(bundle)
        if things is None:
            things = _encoded[bundle] = _understood(bundle, THINGS)
    rows = visible_rows(snapshot)
    if not len(rows):
        return []
    seen = _likeliest(searcher, _most_seen(snapshot, rows, things)[: _TRIED_FOR_EACH * count])
    own = [example for example in _own_words(snapshot, rows) if _reads(bundle, example.text)]
    # Words of its own are surely of the library, where there are some.
    num_seen = max(count - len(own), count - count // 3)
    shown = [*(ExampleQuery(thing.text, "seen") for thing in seen[:num_seen]), *own]
    examples = {example.text.casefold(): example for example in shown}
    return list(examples.values())[:count]


def _understood(bundle: Bundle, texts: Sequence[str]) -> list[_Thing]:
    """Those of some texts of which a model knows every word."""
    known = [text for text in texts if not bundle.text_reader.read(text, 1).unknown]
    if not known:
        return []
    queries = encode_text_queries(bundle, known, tokens=False)
    return [_Thing(text, query) for text, query in zip(known, queries, strict=True)]


def _most_seen(snapshot: Snapshot, rows: NDArray[np.int64], things: Sequence[_Thing]) -> list[_Thing]:
    """The things that some segments are, those of most segments first."""
    if not things:
        return []
    texts = np.stack([thing.query.embedding for thing in things])
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_SEGMENTS)).astype(np.int64)]
    similarity = snapshot.segment_embeddings(some) @ snapshot.cut(texts).T
    nearest = similarity.max(axis=1, keepdims=True)
    sureness = 1 / np.exp((similarity - nearest) / _TEMPERATURE).sum(axis=1)
    votes = np.bincount(similarity.argmax(axis=1), sureness, len(things))
    return [things[place] for place in np.argsort(-votes, kind="stable").tolist() if votes[place]]


def _likeliest(searcher: Searcher, things: Sequence[_Thing]) -> list[_Thing]:
    """The things that a search finds with at least the level "medium", the likeliest first.

    Without a calibration, all of them as they are.
    """
    calibration = searcher.calibration_for(text_alone=True)
    if calibration is None:
        return list(things)
    fitted = calibration.first_stage
    likely = []
    for thing in things:
        least = BACKGROUND_RANKS[1]
        scores = best_segments(searcher.snapshot, thing.query, 1, 0, least=least).score
        evidence = evidence_of(searcher.bundle, thing.query, scores)
        (probability,) = probabilities(fitted, scores.max(keepdims=True), evidence)
        if probability >= fitted.medium:
            likely.append((-float(probability), thing))
    return [thing for _, thing in sorted(likely, key=lambda each: each[0])]


def _own_words(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[ExampleQuery]:
    """Tags, the most frequent first, and titles."""
    tags = [ExampleQuery(tag, "tag") for tag, _ in tags_of(snapshot, _videos_of(snapshot, rows))[:3]]
    titles = []
    for row in np.unique(snapshot.video_rows[rows])[:_MOST_SEGMENTS].tolist():
        label = snapshot.label(snapshot.video_id_at(row))
        title = None if label is None else label.shown_title
        if title is not None and _TITLE.fullmatch(title):
            titles.append(ExampleQuery(title, "title"))
        if len(titles) == 3:
            break
    return [*tags, *titles]


def _videos_of(snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which videos have some of these segments, bool, one a row of the catalog."""
    videos = np.zeros(snapshot.catalog.num_rows, np.bool_)
    videos[snapshot.video_rows[rows]] = True
    return videos


def _reads(bundle: Bundle, text: str) -> bool:
    return bundle.text_reader.read(text, 1).is_understood
