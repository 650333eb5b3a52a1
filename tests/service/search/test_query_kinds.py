"""Pictures, examples, mixtures and feedback as queries, against NumPy twins of the toy bundle's encoders."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.runtime.bundle import BundleManifest
from model.runtime.bundle.manifest import SalienceMatch
from service.errors import NoImageQueryError, NotUnderstoodError, QueryError
from service.live import open_searcher
from service.search.encoded_query import EncodedQuery, EncodedTexts, combined, encode_together
from service.search.picture_encoder import query_salience, why_no_image_query
from service.search.queries import (
    FeedbackQuery,
    FrameQuery,
    MixedQuery,
    MomentQuery,
    PictureQuery,
    SingleQuery,
    TextQuery,
    VideoQuery,
)
from service.search.query_encoder import QueryEncoder
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.texts import Modalities
from service.settings import load_settings
from tests.support.toy_bundle import (
    COLOURS,
    colour_embedding,
    match_logit,
    salience,
    segment_embedding,
    text_embedding,
)
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import FILMS, Parts, make_library

TAPE = [("red", 12.0), ("blue", 12.0), ("green", 12.0), ("blue", 12.0)]
MEDIA: Mapping[str, Parts] = {**FILMS, "tape.mp4": TAPE, "mix.mp4": [("red", 2.0), ("blue", 2.0)]}
MATCH = SalienceMatch(scale=8.0, bias=-4.0)
#: Names of films do not count: they are colours.
BY_MOMENT = SearchOptions(group_by="moment", modalities=Modalities(name=0))


def opened(folder: Path, films: Mapping[str, Parts] = MEDIA, **bundle: object) -> Searcher:
    toy = make_library(folder, films, **bundle)
    return open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))


@pytest.fixture(scope="module")
def searchers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Searcher]:
    """By the kind of their bundle: what libraries hold of frames, and what re-ranks."""
    folder = tmp_path_factory.mktemp("kinds")
    return {
        # Saliences are no embeddings: a stored frame is its thumbnail.
        "thumbnails": opened(folder / "thumbnails"),
        # Saliences are embeddings.
        "embeddings": opened(folder / "embeddings", moments="edges", calibration=toy_calibration()),
        "salience match": opened(folder / "match", matcher=False, moments="edges", salience_match=MATCH),
        "video": opened(folder / "video", video=True),
    }


@pytest.fixture(params=["thumbnails", "embeddings", "salience match"])
def searcher(request: pytest.FixtureRequest, searchers: dict[str, Searcher]) -> Searcher:
    found: Searcher = searchers[request.param]
    return found


def picture(colour: str, size: tuple[int, int] = (80, 60)) -> PictureQuery:
    out = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(out, "PNG")
    return PictureQuery(out.getvalue())


def encoded(searcher: Searcher, query: SingleQuery) -> EncodedQuery:
    return QueryEncoder(searcher.bundle, searcher.snapshot, tokens=False).encode(query)


def names(hits: Sequence[Hit]) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def find(searcher: Searcher, query: str | SingleQuery, top_k: int = 10) -> list[Hit]:
    return searcher.search(query, top_k, BY_MOMENT).hits


def frames_of(searcher: Searcher, name: str) -> dict[float, str]:
    """The stored frames of a film: their ids by their times."""
    video = next(v for v in searcher.snapshot.videos(0, 100) if v.path.endswith(name))
    segments = searcher.snapshot.segments(searcher.snapshot.segment_rows(video.video_id))
    return {
        pts: frame_id
        for segment in segments
        for pts, frame_id in zip(segment.frame_pts_seconds.tolist(), segment.frame_ids, strict=True)
    }


def video_id(searcher: Searcher, name: str) -> str:
    return next(v.video_id for v in searcher.snapshot.videos(0, 100) if v.path.endswith(name))


def frame_at(searcher: Searcher, name: str, seconds: float) -> str:
    frames = frames_of(searcher, name)
    return frames[min(frames, key=lambda pts: abs(pts - seconds))]


def expected_salience(searcher: Searcher, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    return embedding if searcher.bundle.manifest.embedding_in_salience else salience(embedding)


@pytest.mark.parametrize("colour", ["red", "cyan", "black"])
def test_a_picture_is_encoded_as_a_segment_that_shows_it(searcher: Searcher, colour: str) -> None:
    query = encoded(searcher, picture(colour))
    np.testing.assert_allclose(query.embedding, colour_embedding(colour), atol=1e-6)
    expected = expected_salience(searcher, colour_embedding(colour))
    np.testing.assert_allclose(query.salience, expected, atol=1e-6)
    assert (query.parts, query.is_text_alone) == (None, False)


def test_a_picture_finds_the_film_that_shows_it(searcher: Searcher) -> None:
    assert names(find(searcher, picture("red"), 1)) == ["red.mp4"]
    hit = next(hit for hit in find(searcher, picture("green")) if hit.path.endswith("tape.mp4"))
    assert (hit.start_seconds, hit.end_seconds) == pytest.approx((24, 36), abs=1.5)
    best = max(hit.frames, key=lambda frame: frame.relevance or 0)
    assert best.salient
    assert 24 <= best.pts_seconds < 36


def test_numbers_after_an_embedding_are_ones_in_a_query(tmp_path: Path) -> None:
    """As a text has ones there: they say how much of a frame's own correction counts."""
    manifest = opened(tmp_path, {"red.mp4": [("red", 1.0)]}, moments="edges").bundle.manifest
    longer: BundleManifest = manifest.model_copy(update={"salience_dim": 10})
    stored = np.arange(20, dtype=np.float32).reshape(2, 10)
    given = query_salience(longer, stored)
    assert (given[:, :8] == stored[:, :8]).all()
    assert (given[:, 8:] == 1).all()


@pytest.mark.parametrize(("kind", "close"), [("thumbnails", 0.02), ("embeddings", 1e-3)])
def test_a_stored_frame_is_its_embedding_or_its_thumbnail(
    searchers: dict[str, Searcher], kind: str, close: float
) -> None:
    searcher = searchers[kind]
    for seconds, colour in ((3, "red"), (18, "blue"), (30, "green")):
        query = encoded(searcher, FrameQuery(frame_at(searcher, "tape.mp4", seconds)))
        np.testing.assert_allclose(query.embedding, colour_embedding(colour), atol=close + 0.02)
        pts, frame_id = next(
            (t, f) for t, f in frames_of(searcher, "tape.mp4").items() if abs(t - seconds) < 1
        )
        row, place = searcher.snapshot.frame_place(frame_id) or (-1, -1)
        assert searcher.snapshot.frame_id(row, place) == frame_id
        read = searcher.snapshot.segment_frames([row])
        assert read.pts_seconds[0, place] == pts
        np.testing.assert_allclose(query.salience, read.salience[0, place], atol=close)


def test_a_moment_is_its_frames_as_if_they_were_a_segment(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["embeddings"]
    tape = video_id(searcher, "tape.mp4")
    for start, end, colours in ((1, 11, ["red"]), (6, 18, ["red", "blue"]), (20, 28, ["blue", "green"])):
        query = encoded(searcher, MomentQuery(tape, start, end))
        shown = np.stack([colour_embedding(colour) for colour in colours])[None]
        expected = segment_embedding(shown, np.ones(shown.shape[:2], np.bool_))[0]
        # Of both colours there need not be the same number of frames.
        assert query.embedding @ expected > 0.98
    between = encoded(searcher, MomentQuery(tape, 3.001, 3.002))
    segment = encoded(searcher, MomentQuery(tape, 0, 24))
    np.testing.assert_allclose(between.embedding, segment.embedding, atol=1e-6)


@pytest.mark.parametrize("kind", ["thumbnails", "video"])
def test_without_embeddings_of_frames_a_moment_is_the_mean_of_its_segments(
    searchers: dict[str, Searcher], kind: str
) -> None:
    searcher = searchers[kind]
    tape, snapshot = video_id(searcher, "tape.mp4"), searcher.snapshot
    rows = snapshot.segment_rows(tape)
    stored = snapshot.segment_embeddings(rows)
    indexed = snapshot.index.vectors(rows)
    assert indexed is not None
    np.testing.assert_allclose(stored, indexed, atol=1e-6)
    spans = [snapshot.segment_span(row) for row in rows.tolist()]
    for start, end in ((1.0, 40.0), (0.0, 12.0), (30.0, 47.0)):
        overlaps = [max(0.0, min(end, b) - max(start, a)) for a, b in spans]
        mean = np.array(overlaps) @ stored
        query = encoded(searcher, MomentQuery(tape, start, end))
        np.testing.assert_allclose(query.embedding, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_video_is_the_mean_of_its_segments(searcher: Searcher) -> None:
    snapshot = searcher.snapshot
    for name in ("tape.mp4", "long.mp4", "red.mp4"):
        rows = snapshot.segment_rows(video_id(searcher, name))
        seconds = [end - start for start, end in map(snapshot.segment_span, rows.tolist())]
        mean = np.array(seconds) @ snapshot.segment_embeddings(rows)
        query = encoded(searcher, VideoQuery(video_id(searcher, name)))
        np.testing.assert_allclose(query.embedding, mean / np.linalg.norm(mean), atol=1e-5)
        assert query.salience.shape == (searcher.bundle.manifest.salience_dim,)


def test_a_video_like_another_comes_first(searcher: Searcher) -> None:
    found = names(find(searcher, VideoQuery(video_id(searcher, "red.mp4"))))
    assert found[0] in ("tape.mp4", "traffic.mp4", "mix.mp4")
    assert "red.mp4" not in found


def test_the_example_is_left_out_unless_it_is_wanted(searcher: Searcher) -> None:
    red, tape = video_id(searcher, "red.mp4"), video_id(searcher, "tape.mp4")
    frame = frame_at(searcher, "red.mp4", 1)
    for without, with_it in (
        (FrameQuery(frame), FrameQuery(frame, include_example=True)),
        (MomentQuery(red, 0, 2), MomentQuery(red, 0, 2, include_example=True)),
        (VideoQuery(red), VideoQuery(red, include_example=True)),
    ):
        assert names(find(searcher, with_it, 1)) == ["red.mp4"]
        assert "red.mp4" not in names(find(searcher, without, 100))
        mixed = MixedQuery(TextQuery("red"), without)
        assert "red.mp4" not in names(find(searcher, mixed, 100))
    # Of a long video, only the segments that hold the example are.
    first = searcher.snapshot.segment_span(int(searcher.snapshot.segment_rows(tape)[0]))
    hits = [hit for hit in find(searcher, MomentQuery(tape, 1, 5), 100) if hit.video_id == tape]
    assert hits
    assert all(hit.start_seconds >= first[1] for hit in hits)
    answer = searcher.search_video(tape, MomentQuery(tape, 1, 5), 10, BY_MOMENT)
    assert all(hit.start_seconds >= first[1] for hit in answer.hits)


def test_leaving_out_does_not_cost_hits(searcher: Searcher) -> None:
    """As many are found as there are, although those that are left out would have been first."""
    left = names(find(searcher, VideoQuery(video_id(searcher, "tape.mp4")), 7))
    every = find(searcher, VideoQuery(video_id(searcher, "tape.mp4"), include_example=True), 100)
    assert set(left) == set(names(every)) - {"tape.mp4"}


def test_a_mixture_is_the_weighted_sum(searcher: Searcher) -> None:
    for weight in (0.0, 0.3, 0.5, 1.0):
        query = encoded(searcher, MixedQuery(TextQuery("green"), picture("red"), weight))
        total = weight * text_embedding("green") + (1 - weight) * colour_embedding("red")
        np.testing.assert_allclose(query.embedding, total / np.linalg.norm(total), atol=1e-5)
        assert sum(part.weight for part in query.parts or ()) == pytest.approx(weight)


def test_text_and_picture_move_the_hits_between_them(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["salience match"]
    both = names(find(searcher, MixedQuery(TextQuery("blue"), picture("red")), 3))
    # Films that show both come before those that show one.
    assert set(both[:2]) == {"tape.mp4", "mix.mp4"}
    assert names(find(searcher, MixedQuery(TextQuery("blue"), picture("red"), 0.95), 1))[0] != "red.mp4"
    assert names(find(searcher, MixedQuery(TextQuery("blue"), picture("red"), 0.05), 1)) == ["red.mp4"]


def test_what_is_not_wanted_counts_against_a_hit(searcher: Searcher) -> None:
    options = SearchOptions(rerank=False)
    for name, first in (("mix.mp4", "red.mp4"), ("tape.mp4", "traffic.mp4")):
        without = names(searcher.search(TextQuery("red", "blue", 0.8), 100, options).hits)
        assert without.index(first) < without.index(name)
    plain = names(searcher.search("blue", 100, options).hits)
    assert plain.index("mix.mp4") < plain.index("red.mp4")
    query = encoded(searcher, TextQuery("red", "blue", 0.8))
    total = text_embedding("red") - 0.8 * text_embedding("blue")
    np.testing.assert_allclose(query.embedding, total / np.linalg.norm(total), atol=1e-5)
    assert [part.weight for part in query.parts or ()] == [1.0, -0.8]
    assert not query.is_text_alone


def test_the_matching_head_reads_what_is_not_wanted_too(searchers: dict[str, Searcher]) -> None:
    """The match of a frame is that of the text less that of the other, times its weight."""
    searcher = searchers["thumbnails"]
    hits = searcher.search(TextQuery("red", "yellow", 0.5), 10, BY_MOMENT).hits
    red = next(hit for hit in hits if hit.path.endswith("/red.mp4"))
    tokens = np.tile(np.array([1, -1, -1], np.float32), (4, 1))
    assert red.match_score == pytest.approx(
        match_logit("red", tokens) - 0.5 * match_logit("yellow", tokens), abs=0.1
    )


def test_feedback_is_the_formula_of_rocchio(searcher: Searcher) -> None:
    tape = video_id(searcher, "tape.mp4")
    like = (FrameQuery(frame_at(searcher, "tape.mp4", 3)), MomentQuery(tape, 14, 22))
    unlike = (FrameQuery(frame_at(searcher, "green.mp4", 1)),)
    query = encoded(searcher, FeedbackQuery(TextQuery("white"), like, unlike, 0.9, 0.7, 0.2))
    liked = [encoded(searcher, each).embedding for each in like]
    (unliked,) = (encoded(searcher, each).embedding for each in unlike)
    total = 0.9 * text_embedding("white") + 0.7 * np.mean(liked, axis=0) - 0.2 * unliked
    np.testing.assert_allclose(query.embedding, total / np.linalg.norm(total), atol=1e-5)
    alone = encoded(searcher, FeedbackQuery(None, like[:1]))
    np.testing.assert_allclose(alone.embedding, liked[0], atol=1e-6)


def test_feedback_raises_what_is_liked_and_lowers_what_is_not(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["salience match"]
    before = names(find(searcher, "red", 100))
    assert before.index("red.mp4") < before.index("ein Film, früher.mp4")
    like = (FrameQuery(frame_at(searcher, "mix.mp4", 3)),)
    unlike = (FrameQuery(frame_at(searcher, "red.mp4", 1)),)
    after = names(find(searcher, FeedbackQuery(TextQuery("red"), like, unlike, 1.0, 2.0, 0.7), 100))
    assert max(after.index("mix.mp4"), after.index("ein Film, früher.mp4")) < after.index("red.mp4")


def test_what_cancels_out_is_refused(searcher: Searcher) -> None:
    for query in (
        TextQuery("red", "red", 1.0),
        FeedbackQuery(None, (), (FrameQuery(frame_at(searcher, "red.mp4", 1)),), gamma=0.0),
    ):
        with pytest.raises(QueryError, match="cancel each other out"):
            searcher.search(query, 3, BY_MOMENT)
    red = encoded(searcher, picture("red"))
    with pytest.raises(QueryError, match="cancel"):
        combined([(1.0, red), (-1.0, red)])


def test_what_is_reranked_and_why_not(searchers: dict[str, Searcher]) -> None:
    def asked(kind: str, query: str | SingleQuery) -> tuple[bool, str | None]:
        result = searchers[kind].search(query, 3, BY_MOMENT)
        return result.reranked, result.rerank_skipped

    mixed = MixedQuery(TextQuery("red"), picture("blue"))
    for kind in ("thumbnails", "embeddings"):
        assert asked(kind, picture("red")) == (False, "no_text")
        assert asked(kind, VideoQuery(video_id(searchers[kind], "red.mp4"))) == (False, "no_text")
        assert asked(kind, mixed) == (True, None)
    assert asked("salience match", picture("red")) == asked("salience match", mixed) == (True, None)


def test_only_a_text_alone_has_probabilities(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["embeddings"]
    text = searcher.search("red", 3, BY_MOMENT)
    assert text.probability_skipped is None
    assert text.best_guess is not None
    assert all(hit.probability is not None for hit in text.hits)
    others: list[SingleQuery] = [
        picture("red"),
        TextQuery("red", "blue"),
        MixedQuery(TextQuery("red"), picture("red")),
        FeedbackQuery(TextQuery("red"), (FrameQuery(frame_at(searcher, "red.mp4", 1)),)),
    ]
    for query in others:
        result = searcher.search(query, 3, BY_MOMENT)
        assert (result.probability_skipped, result.best_guess) == ("not_a_text", None)
        assert all((hit.probability, hit.level) == (None, None) for hit in result.hits)
        with pytest.raises(QueryError, match="only if the query is one text"):
            searcher.check(SearchOptions(min_probability=0.5), query)
    assert searchers["thumbnails"].search("red", 1, BY_MOMENT).probability_skipped == "not_calibrated"


def test_lines_of_text_count_for_the_text_of_a_mixture(searcher: Searcher) -> None:
    by_name = SearchOptions(group_by="moment")
    mixed = MixedQuery(TextQuery("traffic lights red"), picture("black"))
    hits = searcher.search(mixed, 10, by_name).hits
    traffic = next(hit for hit in hits if hit.path.endswith("traffic.mp4"))
    assert traffic.text_matches
    assert not any(hit.text_matches for hit in searcher.search(picture("red"), 10, by_name).hits)


def test_a_bundle_that_reads_whole_segments_takes_no_picture(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["video"]
    assert why_no_image_query(searcher.bundle, is_allowed=True) == "no_image_query"
    for query in (picture("red"), FrameQuery(frame_at(searcher, "red.mp4", 1))):
        with pytest.raises(NoImageQueryError, match="'toy' lacks the capability image_query"):
            searcher.search(query, 3, BY_MOMENT)
    # What is stored of segments is an example all the same.
    red = video_id(searcher, "red.mp4")
    assert names(find(searcher, VideoQuery(red, include_example=True), 1)) == ["red.mp4"]
    assert names(find(searcher, MomentQuery(red, 0, 1, include_example=True), 1)) == ["red.mp4"]


def test_pictures_can_be_turned_off(searchers: dict[str, Searcher]) -> None:
    for kind in ("thumbnails", "embeddings"):
        shared = searchers[kind]
        off = Searcher(shared.queues, shared.snapshot, 100, images_allowed=False)
        with pytest.raises(NoImageQueryError, match=r"turned off the capability image_query.*=true"):
            off.search(picture("red"), 3, BY_MOMENT)
        frame = FrameQuery(frame_at(shared, "red.mp4", 1), include_example=True)
        if kind == "embeddings":
            # Nothing has to be encoded but the segment of the stored embedding.
            assert names(find(off, frame, 1)) == ["red.mp4"]
        else:
            with pytest.raises(NoImageQueryError, match="turned off"):
                off.search(frame, 3, BY_MOMENT)


def test_the_frame_encoder_is_opened_with_the_first_picture(tmp_path: Path) -> None:
    searcher = opened(tmp_path, {"red.mp4": [("red", 1.0)]}, moments="edges")
    searcher.search("red", 1, BY_MOMENT)
    searcher.search(FrameQuery(frame_at(searcher, "red.mp4", 0)), 1, BY_MOMENT)
    assert "frame_encoder.onnx" not in searcher.bundle._sessions
    searcher.search(picture("red"), 1, BY_MOMENT)
    assert "frame_encoder.onnx" in searcher.bundle._sessions


@pytest.mark.parametrize(
    ("query", "pointer", "said"),
    [
        (PictureQuery(b"nothing"), "/query/image", "no JPEG, PNG"),
        (FrameQuery("nothing"), "/query/frame_id", 'No stored frame has the id "nothing"'),
        (FrameQuery("0" * 32 + "-00000-00"), "/query/frame_id", "No stored frame"),
        (VideoQuery("nothing"), "/query/video_id", 'No video has the id "nothing"'),
        (MomentQuery("nothing", 0, 1), "/query/video_id", "No video has the id"),
        (TextQuery("red", "zzz"), "/query/not_text", 'does not know "zzz"'),
        (MixedQuery(TextQuery("red"), FrameQuery("x")), "/query/example/frame_id", "No stored frame"),
        (FeedbackQuery(TextQuery("zzz")), "/query/original/text", 'does not know "zzz"'),
        (FeedbackQuery(None, (FrameQuery("x"),)), "/query/like/0/frame_id", "No stored frame"),
    ],
)
def test_what_cannot_be_encoded_names_its_place(
    searcher: Searcher, query: SingleQuery, pointer: str, said: str
) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        searcher.search(query, 3, BY_MOMENT)
    assert caught.value.field == pointer


def test_a_moment_beyond_its_video_names_its_length(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="Nothing of the video lies from 60 s to 70 s; it lasts 48 s"):
        searcher.search(MomentQuery(video_id(searcher, "tape.mp4"), 60, 70), 3, BY_MOMENT)


def test_texts_that_were_encoded_together_are_used(searcher: Searcher) -> None:
    texts = ["red", "a green car", "blue and white", "red"]
    known = encode_together(searcher.bundle, [*texts, "zzz"], tokens=True)
    assert set(known.queries) == {*texts, "zzz"}
    for text in texts:
        alone = encoded(searcher, TextQuery(text))
        found = known.of(searcher.bundle, text, tokens=False)
        assert found is not None
        np.testing.assert_allclose(found.embedding, alone.embedding, atol=1e-6)
        whole = searcher.open(text, 5, BY_MOMENT, known).result.hits
        single = searcher.search(text, 5, BY_MOMENT).hits
        assert names(whole) == names(single)
        np.testing.assert_allclose([h.score for h in whole], [h.score for h in single], atol=2e-6)
    with pytest.raises(NotUnderstoodError):
        searcher.open("zzz", 5, BY_MOMENT, known)
    without = encode_together(searcher.bundle, texts, tokens=False)
    assert without.of(searcher.bundle, "red", tokens=True) is None
    assert EncodedTexts().of(searcher.bundle, "red", tokens=False) is None
