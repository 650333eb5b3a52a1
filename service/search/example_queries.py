"""Queries that fit a library, for people to begin with.

The library's segments are told apart by the names of a list of things, as CLIP tells pictures apart without
training (Radford et al. 2021, section 3.1): each segment is the thing whose text is nearest, as surely as
softmax(cosine / temperature) says. The things that most segments are, and most surely, are shown. Then come
the words that the library has of its own: tags and titles.
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
from service.search.glimpses import visible_rows

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
class _Things:
    """Things that a model understands, and the embeddings of their texts, float32 [P, D]."""

    texts: tuple[str, ...]
    embeddings: NDArray[np.float32]


_encoded: WeakKeyDictionary[Bundle, _Things] = WeakKeyDictionary()
_encoding = threading.Lock()


def example_queries(bundle: Bundle, snapshot: Snapshot, count: int) -> list[ExampleQuery]:
    """Queries that fit a library: what is seen most often, then tags and titles.

    Args:
        bundle: the library's model.
        snapshot: the library.
        count: how many, at most.

    Raises:
        BundleError: the model fails.
        LibraryError: a segment is damaged or cannot be read.
    """
    with _encoding:
        things = _encoded.get(bundle)
        if things is None:
            things = _encoded[bundle] = _understood(bundle, THINGS)
    rows = visible_rows(snapshot)
    if not len(rows):
        return []
    seen = [ExampleQuery(text, "seen") for text in _most_seen(snapshot, rows, things)]
    own = [example for example in _own_words(snapshot, rows) if _reads(bundle, example.text)]
    # Words of its own are surely of the library, where there are some.
    num_seen = max(count - len(own), count - count // 3)
    examples = {example.text.casefold(): example for example in [*seen[:num_seen], *own]}
    return list(examples.values())[:count]


def _understood(bundle: Bundle, texts: Sequence[str]) -> _Things:
    """Those of some texts of which a model knows every word."""
    known = tuple(text for text in texts if not bundle.text_reader.read(text, 1).unknown)
    if not known:
        return _Things((), np.empty((0, bundle.manifest.embedding_dim), np.float32))
    return _Things(known, bundle.encode_text(known).embedding)


def _most_seen(snapshot: Snapshot, rows: NDArray[np.int64], things: _Things) -> list[str]:
    """The things that some segments are, those of most segments first."""
    if not things.texts:
        return []
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_SEGMENTS)).astype(np.int64)]
    similarity = snapshot.segment_embeddings(some) @ snapshot.cut(things.embeddings).T
    nearest = similarity.max(axis=1, keepdims=True)
    sureness = 1 / np.exp((similarity - nearest) / _TEMPERATURE).sum(axis=1)
    votes = np.bincount(similarity.argmax(axis=1), sureness, len(things.texts))
    return [things.texts[place] for place in np.argsort(-votes, kind="stable").tolist() if votes[place]]


def _own_words(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[ExampleQuery]:
    """Tags, the most frequent first, and titles."""
    tags = [ExampleQuery(tag, "tag") for tag, _ in tags_of(snapshot, _videos_of(snapshot, rows))[:3]]
    titles = []
    for row in np.unique(snapshot.video_rows[rows])[:_MOST_SEGMENTS].tolist():
        label = snapshot.label(snapshot.video_id_at(row))
        title = None if label is None else label.annotation.title or label.title
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
