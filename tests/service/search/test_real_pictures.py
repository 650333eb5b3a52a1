"""Queries of all kinds with the bundle that ships, over films of photographs."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from indexer.library.records import VideoRecord
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.video import VideoReader
from service.demo.films import WIDE, Film, Shot, package_folder, write_film
from service.live import open_searcher
from service.search.asking import ask
from service.search.queries import (
    FeedbackQuery,
    FrameQuery,
    MixedQuery,
    MomentQuery,
    PictureQuery,
    SearchQuery,
    SequenceQuery,
    TextQuery,
    VideoQuery,
)
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings

pytestmark = pytest.mark.slow
BY_MOMENT = SearchOptions(group_by="moment")
#: Films of one photograph each, by their names.
PHOTOS = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "coins": "coins.png",
}
#: Films of several, in order.
TWO = {"cat-rocket": ("cat", "rocket"), "rocket-cat": ("rocket", "cat")}


def shot(photo: str, seconds: float = 6.0) -> Shot:
    return Shot(PHOTOS[photo], WIDE, (0.45, 0.45, 0.7), seconds)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("photos")
    media, photos = folder / "media", package_folder("skimage", "data")
    media.mkdir()
    # Names that say nothing of what the films show.
    films = [*((name, (name,)) for name in PHOTOS), *TWO.items()]
    for number, (name, shown) in enumerate(films):
        film = Film(name, tuple(shot(photo) for photo in shown))
        write_film(film, photos, media / f"{number}-{'_'.join(photo[::-1] for photo in shown)}.mp4")
    options = IndexOptions(workers=0)
    bundle = Bundle.open(default_bundle_path())
    index_paths([media], folder / "library", bundle, options, lambda _event: None)
    return open_searcher(load_settings({"library": folder / "library"}))


def film_of(path: str) -> str:
    """What the film in a file shows, such as "cat" or "cat-rocket"."""
    return "-".join(part[::-1] for part in Path(path).stem.partition("-")[2].split("_"))


def shown(hits: Sequence[Hit]) -> list[str]:
    return [film_of(hit.path) for hit in hits]


def find(searcher: Searcher, query: str | SearchQuery, top_k: int = 20) -> list[Hit]:
    text = TextQuery(query) if isinstance(query, str) else query
    return ask(searcher, text, top_k, BY_MOMENT).hits


def picture(pixels: NDArray[np.uint8]) -> PictureQuery:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return PictureQuery(out.getvalue())


def films_of(searcher: Searcher) -> dict[str, VideoRecord]:
    return {film_of(video.path): video for video in searcher.snapshot.videos(0, 100)}


def frame_of(searcher: Searcher, film: str) -> str:
    """A stored frame of a film, from its middle."""
    rows = searcher.snapshot.segment_rows(films_of(searcher)[film].video_id)
    (segment,) = searcher.snapshot.segments(rows[:1])
    return segment.frame_ids[len(segment.frame_ids) // 2]


def test_a_frame_of_a_film_finds_the_film(searcher: Searcher) -> None:
    """Frames at other times than the stored ones, decoded anew; and the stored ones."""
    for name, video in films_of(searcher).items():
        if name in TWO:
            continue
        (segment,) = VideoReader(video.files[0].path).segments(32.0, 5)
        for pixels in segment.frames.data:
            (best,) = find(searcher, picture(pixels), 1)
            assert name in shown([best])[0].split("-")
        stored = FrameQuery(frame_of(searcher, name), include_example=True)
        assert name in shown(find(searcher, stored, 1))[0].split("-")


def test_a_photograph_finds_the_films_that_show_it(searcher: Searcher) -> None:
    for name, file in PHOTOS.items():
        data = (package_folder("skimage", "data") / file).read_bytes()
        hits = find(searcher, PictureQuery(data), 3)
        wanted = {name, *(film for film, parts in TWO.items() if name in parts)}
        assert set(shown(hits[: len(wanted)])) == wanted


def test_the_moment_of_a_picture_is_where_it_is_shown(searcher: Searcher) -> None:
    data = (package_folder("skimage", "data") / PHOTOS["rocket"]).read_bytes()
    for hit in find(searcher, PictureQuery(data), 3):
        (name,) = shown([hit])
        start, end = {"rocket": (0, 6), "cat-rocket": (6, 12), "rocket-cat": (0, 6)}[name]
        assert (hit.start_seconds, hit.end_seconds) == pytest.approx((start, end), abs=1.1)


def test_more_like_this_leaves_out_what_it_is_like(searcher: Searcher) -> None:
    frame = frame_of(searcher, "cat")
    assert set(shown(find(searcher, FrameQuery(frame), 2))) == set(TWO)
    hits = find(searcher, VideoQuery(films_of(searcher)["cat-rocket"].video_id), 3)
    assert "cat-rocket" not in shown(hits)
    assert "rocket-cat" in shown(hits)


def test_text_and_picture_find_what_shows_both(searcher: Searcher) -> None:
    data = (package_folder("skimage", "data") / PHOTOS["cat"]).read_bytes()
    text = TextQuery("a rocket is launched into the sky")
    videos = SearchOptions(group_by="video", rerank=False)

    def scores(query: SearchQuery) -> dict[str, float]:
        return {film_of(hit.path): hit.score for hit in ask(searcher, query, 20, videos).hits}

    def ranking(query: SearchQuery) -> list[str]:
        return list(scores(query))

    mixed = ranking(MixedQuery(text, PictureQuery(data)))
    assert set(mixed[:2]) <= {"cat-rocket", "rocket-cat", "cat", "rocket"}
    for film in ("cat-rocket", "rocket-cat"):
        # Neither of the two alone says more of these films than both.
        assert mixed.index(film) <= max(ranking(text).index(film), ranking(PictureQuery(data)).index(film))
    # Both films of two photos show the rocket: the text gives them the same score, but for its last digits.
    alone = scores(text)
    first = ranking(MixedQuery(text, PictureQuery(data), 0.98))[0]
    assert alone[first] == pytest.approx(max(alone.values()), abs=1e-3)
    assert ranking(MixedQuery(text, PictureQuery(data), 0.02))[0] == ranking(PictureQuery(data))[0]


def test_what_should_not_be_there_falls(searcher: Searcher) -> None:
    plain = shown(find(searcher, "a photo of something"))
    without = find(searcher, TextQuery("a photo of something", "a cat", 1.0))
    assert shown(without).index("cat") > plain.index("cat")
    similarity = dict(zip(shown(without), (hit.similarity for hit in without), strict=True))
    assert similarity["cat"] == min(similarity[film] for film in PHOTOS)


def test_feedback_raises_what_is_liked(searcher: Searcher) -> None:
    text = TextQuery("something round")
    before = shown(find(searcher, text))
    liked = FeedbackQuery(text, (FrameQuery(frame_of(searcher, "motorcycle")),))
    after = shown(find(searcher, liked))
    assert after[0] == "motorcycle"
    assert before[0] != "motorcycle"
    unliked = FeedbackQuery(text, (), (FrameQuery(frame_of(searcher, before[0])),), gamma=1.0)
    assert shown(find(searcher, unliked)).index(before[0]) > 0


def test_a_sequence_is_found_in_its_order_alone(searcher: Searcher) -> None:
    cat, rocket = TextQuery("a cat looks at the camera"), TextQuery("a rocket is launched")
    for steps, film in (((cat, rocket), "cat-rocket"), ((rocket, cat), "rocket-cat")):
        hits = find(searcher, SequenceQuery(steps))
        assert shown(hits)[0] == film
        first, second = (step.moment for step in hits[0].steps or ())
        assert (first.start_seconds, second.end_seconds) == pytest.approx((0, 12), abs=1.1)
        assert first.end_seconds == pytest.approx(6, abs=1.1)


def test_a_moment_finds_the_same_picture_elsewhere(searcher: Searcher) -> None:
    film = films_of(searcher)["rocket-cat"]
    hits = find(searcher, MomentQuery(film.video_id, 0.5, 5.5, include_example=True), 3)
    assert set(shown(hits)) == {"rocket", "rocket-cat", "cat-rocket"}
    assert film.video_id not in {
        hit.video_id for hit in find(searcher, MomentQuery(film.video_id, 0.5, 5.5), 3)
    }
