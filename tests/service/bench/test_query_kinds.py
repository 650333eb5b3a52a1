"""The measurements of pictures, sequences and batches, on films of which the answers are known."""

from pathlib import Path

import numpy as np
import pytest

from model.runtime.queries import LabelledQuery
from service.bench.query_kinds import (
    CHANGES,
    cropped,
    frame_between,
    measure_frames,
    measure_moments,
    measure_sequences,
    measure_times,
    read_parts,
)
from service.live import open_searcher
from service.search.searcher import Searcher
from service.server_process import running_server
from service.settings import load_settings
from tests.support.toy_bundle import colour_embedding, frame_embedding
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow
FILMS = {
    "one.mp4": [("red", 8.0), ("blue", 8.0)],
    "two.mp4": [("green", 8.0), ("yellow", 8.0)],
    "three.mp4": [("white", 8.0), ("black", 8.0)],
}
QUERIES = [
    LabelledQuery(number, colour, name, span=(place * 8.0, place * 8.0 + 8.0))
    for number, (name, parts) in enumerate(FILMS.items())
    for place, (colour, _) in enumerate(parts)
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("bench"), FILMS, moments="edges")


@pytest.fixture(scope="module")
def searcher(toy: ToyLibrary) -> Searcher:
    return open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))


def test_each_film_is_found_by_its_frames(searcher: Searcher) -> None:
    lines: list[str] = []
    measure_frames(searcher, 0, lines.append)
    assert len(lines) == 2 * len(CHANGES)
    assert lines[0] == "frame, as it is, first stage: R@1 100.0 %, R@5 100.0 %, R@10 100.0 % (n = 3)"
    # Without its colour, nothing is known of a frame.
    assert "R@1 100.0 %" not in lines[-1]


def test_a_frame_is_taken_from_its_span(toy: ToyLibrary) -> None:
    rng = np.random.default_rng(0)
    for span, colour in (((0, 8), "red"), ((8, 16), "blue")):
        pixels = frame_between(toy.media / "one.mp4", *span, rng)
        np.testing.assert_allclose(frame_embedding(pixels[None])[0], colour_embedding(colour), atol=0.05)
    assert cropped(np.zeros((100, 50, 3), np.uint8)).shape == (60, 30, 3)


def test_moments_and_sequences_of_what_queries_name(searcher: Searcher) -> None:
    parts = read_parts(searcher, QUERIES, 0)
    assert [part.text for part in parts] == [query.text for query in QUERIES]
    lines: list[str] = []
    measure_moments(searcher, parts, lines.append)
    assert "IoU ≥ 0.7: 100.0 % (n = 6)" in lines[0]
    measure_sequences(searcher, parts, lines.append)
    in_order, wrong, joined = lines[2:]
    assert in_order.startswith("two texts in order: R@1 100.0 %, R@5 100.0 %, R@10 100.0 % (n = 3), ")
    assert wrong.startswith("two texts in the wrong order: R@1 0.0 %")
    assert joined == "both in one text: R@1 100.0 %, R@5 100.0 %, R@10 100.0 % (n = 3)"


def test_times_are_those_of_a_server(toy: ToyLibrary, searcher: Searcher, tmp_path: Path) -> None:
    lines: list[str] = []
    pixels = frame_between(toy.media / "one.mp4", 0, 8, np.random.default_rng(0))
    with running_server(toy.library, bundle=toy.bundle) as server:
        measure_times(server, searcher.snapshot.frame_id(0, 0), pixels, 2, lines.append)
    assert [line.partition(":")[0] for line in lines] == [
        "first picture",
        "memory of the server after pictures",
        *(f"search by a {name}" for name in ("text", "stored frame", "picture")),
        *(f"round {number}" for number in (1, 2, 3)),
    ]
