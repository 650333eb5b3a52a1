"""Answers to questions about videos against a naive twin, over real films and a bundle of known answers."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.library.errors import DamagedRowsError
from indexer.library.records import SegmentRecord
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.errors import (
    CannotAnswerError,
    NotFoundError,
    NotUnderstoodError,
    OverloadedError,
    QueryError,
)
from service.search import answering
from service.search.answering import AnswerOptions, answer_question, why_no_answers
from service.search.match_queue import MatchTerms
from service.search.results import AnswerResult
from tests.support import toy_bundle as toy_model
from tests.support.toy_library import FILMS, ToyLibrary, data_file, make_library
from tests.support.toy_videos import write_slides

#: Questions with the parts that they are read in, each with its number of words.
QUESTIONS: dict[str, list[tuple[str, int]]] = {
    "a red thing": [("a red thing", 3)],
    "what colour is the yellow one": [("what colour is the yellow one", 6)],
    "the white or the cyan": [("the white or the cyan", 5)],
    # A full stop is part of a word for the toy tokenizer: "what." is unknown.
    "green green a green the green one or what. black or black and a black the magenta one": [
        ("green green a green the green one or what.", 9),
        ("black or black and a black the magenta one", 9),
    ],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Films, one of which shows pictures for longer than a segment, and a file that is no video.

    The bundle has no matcher, and its answer head reads the question's words.
    """
    folder = tmp_path_factory.mktemp("answers")
    (folder / "media").mkdir()
    write_slides(folder / "media" / "still.mkv", {0: 250, 100: 0})
    write_slides(folder / "media" / "slides.mkv", {0: 20, 50: 220, 53: 80}, sound_seconds=90.0)
    (folder / "media" / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    return make_library(folder, FILMS, matcher=False, answers="words")


@pytest.fixture(scope="module")
def bundle(toy: ToyLibrary) -> Bundle:
    return Bundle.open(toy.bundle)


@pytest.fixture(scope="module")
def snapshot(toy: ToyLibrary) -> Snapshot:
    return Snapshot.open(toy.library)


def video_named(snapshot: Snapshot, name: str) -> str:
    return next(v.video_id for v in snapshot.videos(0, 100) if v.path.endswith(name))


def segments_of(snapshot: Snapshot, video_id: str) -> list[SegmentRecord]:
    segments = snapshot.segments(range(snapshot.num_segments))
    return sorted((s for s in segments if s.video_id == video_id), key=lambda s: s.start_seconds)


def twin(
    snapshot: Snapshot,
    video_id: str,
    parts: Sequence[tuple[str, int]],
    count: int,
    span: tuple[float, float] = (0.0, 1e9),
) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """The probability of each answer, and the frames, best first: one frame and one part after the other."""
    words = sum(number for _, number in parts)
    wanted = sum(toy_model.salience(toy_model.text_embedding(text)) * (n / words) for text, n in parts)
    frames = [
        (-float(segment.frame_salience[i] @ wanted), float(pts), segment.frame_ids[i], segment.row, i)
        for segment in segments_of(snapshot, video_id)
        for i, pts in enumerate(segment.frame_pts_seconds)
        if span[0] <= pts < span[1]
    ]
    # Frames of one colour differ by the order of sums: the first of them comes first.
    best = sorted((round(each[0], 5), *each[1:]) for each in frames)[:count]
    tokens = np.concatenate([snapshot.frame_tokens([row], [i]) for *_, row, i in best])
    logits = sum(toy_model.answer_logit(tokens, text) * (n / words) for text, n in parts)
    shares = np.exp(logits) / np.exp(logits).sum()
    answers = dict(zip(toy_model.COLOURS, shares.tolist(), strict=True))
    return answers, [(frame_id, -relevance) for relevance, _, frame_id, *_ in best]


def best_of(result: AnswerResult) -> str:
    return result.answers[0].answer


def test_a_library_for_answers_alone_stores_tokens(bundle: Bundle, snapshot: Snapshot) -> None:
    assert bundle.capabilities == {"image_query", "salient_frames", "answers"}
    assert snapshot.tokens_per_frame == 4
    assert why_no_answers(bundle, snapshot) is None


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_answers_are_those_of_the_twin(bundle: Bundle, snapshot: Snapshot, question: str, count: int) -> None:
    for video in snapshot.videos(0, 100, "ok"):
        options = AnswerOptions(top_k=100, num_salient_frames=count)
        result = answer_question(bundle, snapshot, video.video_id, question, options)
        answers, frames = twin(snapshot, video.video_id, QUESTIONS[question], count)
        found = {each.answer: each.probability for each in result.answers}
        assert found == pytest.approx(answers, abs=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        # Frames of one colour tie, but for what half precision and the order of sums make of them.
        assert [frame.relevance for frame in result.frames] == pytest.approx(
            [relevance for _, relevance in frames], abs=1e-4
        )
        assert result.snapshot == 1
        assert result.library_warnings == []


def test_the_frames_are_those_that_the_question_is_about(bundle: Bundle, snapshot: Snapshot) -> None:
    """Of a film of three colours, each in a segment of its own."""
    video_id = video_named(snapshot, "long.mp4")
    for number, colour in enumerate(("black", "cyan", "white")):
        result = answer_question(bundle, snapshot, video_id, f"the {colour} one", AnswerOptions())
        assert best_of(result) == colour
        assert len(result.answers) == 5
        assert len(result.frames) == bundle.manifest.num_salient_frames
        assert all(24 * number <= frame.pts_seconds < 24 * number + 24 for frame in result.frames)
        ids = segments_of(snapshot, video_id)[number].frame_ids
        assert {frame.frame_id for frame in result.frames} <= set(ids)


def test_a_moment_gives_the_colour_that_it_shows(bundle: Bundle, snapshot: Snapshot) -> None:
    video_id = video_named(snapshot, "traffic.mp4")
    for start, colour in enumerate(("red", "yellow", "green")):
        for count in (1, 2, 16):
            options = AnswerOptions(float(start), start + 1.0, num_salient_frames=count)
            result = answer_question(bundle, snapshot, video_id, "what colour is the light", options)
            assert best_of(result) == colour
            expected = twin(snapshot, video_id, [("what colour is the light", 5)], count, (start, start + 1))
            assert {f.frame_id for f in result.frames} == {frame_id for frame_id, _ in expected[1]}
    late = answer_question(bundle, snapshot, video_id, "a light", AnswerOptions(2.0))
    assert best_of(late) == "green"
    early = answer_question(bundle, snapshot, video_id, "a light", AnswerOptions(end_seconds=1.0))
    assert best_of(early) == "red"


def test_the_span_of_a_segment_holds_its_frames_and_no_others(bundle: Bundle, snapshot: Snapshot) -> None:
    kept_on = 0
    for video in snapshot.videos(0, 100, "ok"):
        segments = segments_of(snapshot, video.video_id)
        for segment in segments:
            kept_on += int((segment.frame_pts_seconds < segment.start_seconds).any())
            options = AnswerOptions(segment.start_seconds, segment.end_seconds, num_salient_frames=16)
            result = answer_question(bundle, snapshot, video.video_id, "a red one", options)
            assert {frame.frame_id for frame in result.frames} == set(segment.frame_ids)
    assert kept_on, "a picture is shown on in the next segment"


def test_a_picture_that_stands_still_is_in_every_moment(bundle: Bundle, snapshot: Snapshot) -> None:
    video_id = video_named(snapshot, "still.mkv")
    segment, *_rest = segments_of(snapshot, video_id)
    assert len(segment.frame_ids) == 1
    assert segment.end_seconds > 70
    for start, end in ((0.0, 0.0), (0.0, 1.0), (60.0, 61.5), (70.0, 70.0), (65.0, segment.end_seconds)):
        result = answer_question(bundle, snapshot, video_id, "a thing", AnswerOptions(start, end))
        assert best_of(result) == "white"
        assert [frame.frame_id for frame in result.frames] == segment.frame_ids
    after = answer_question(bundle, snapshot, video_id, "a thing", AnswerOptions(100.0, 200.0))
    assert best_of(after) == "black"


def test_long_videos_are_read_in_parts(
    bundle: Bundle, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_id = video_named(snapshot, "long.mp4")
    options = AnswerOptions(num_salient_frames=5)
    whole = answer_question(bundle, snapshot, video_id, "the white or the cyan", options)
    monkeypatch.setattr(answering, "_SEGMENTS_AT_ONCE", 1)
    assert answer_question(bundle, snapshot, video_id, "the white or the cyan", options) == whole
    # Time runs out after the first part.
    calls = 0

    def is_wanted() -> bool:
        nonlocal calls
        calls += 1
        return calls < 2

    terms = MatchTerms(is_wanted=is_wanted)
    with pytest.raises(OverloadedError, match=r"passed before it was answered. Ask about a shorter"):
        answer_question(bundle, snapshot, video_id, "the white one", replace(options, terms=terms))
    assert calls == 2


def test_what_of_a_question_does_not_count_is_told(bundle: Bundle, snapshot: Snapshot) -> None:
    video_id = video_named(snapshot, "red.mp4")

    def warnings(question: str) -> dict[str, str]:
        result = answer_question(bundle, snapshot, video_id, question, AnswerOptions())
        return {warning.kind: warning.message for warning in result.query_warnings}

    assert warnings("the red") == {}
    assert warnings("zzz red") == {
        "not_understood": 'The model does not know "zzz": the rest of the question decides.'
    }
    split = warnings("the red " * 12)
    assert list(split) == ["split"]
    assert split["split"].startswith("The question is longer than")
    assert split["split"].endswith("each answer's score is the mean of theirs.")
    cut = warnings("the red " * 100)
    assert cut["truncated"].startswith("The question is too long: its first 8 parts were read")
    with pytest.raises(
        NotUnderstoodError, match=r'know "zzz", so there is nothing to answer\. Ask in'
    ) as got:
        answer_question(bundle, snapshot, video_id, "zzz", AnswerOptions())
    assert got.value.field == "/question/text"


def test_without_a_frame_there_is_no_answer(bundle: Bundle, snapshot: Snapshot) -> None:
    video_id = video_named(snapshot, "red.mp4")
    for options, said in (
        (AnswerOptions(2.5), "from 2.5 s to its end; it lasts 2 s. Choose a longer span"),
        (AnswerOptions(0.55, 0.6), "from 0.55 s to 0.6 s; it lasts 2 s"),
        (AnswerOptions(100.0, 200.0), "from 100 s to 200 s"),
    ):
        with pytest.raises(QueryError, match=said):
            answer_question(bundle, snapshot, video_id, "the red", options)
    broken = video_named(snapshot, "noise.mp4")
    with pytest.raises(QueryError, match=r"could not be indexed \((corrupt|unsupported): .*another one"):
        answer_question(bundle, snapshot, broken, "the red", AnswerOptions())
    with pytest.raises(NotFoundError, match="No video has the id"):
        answer_question(bundle, snapshot, "0123456789abcdef", "the red", AnswerOptions())


def test_a_deadline_that_has_passed_costs_no_work(bundle: Bundle, snapshot: Snapshot) -> None:
    late = AnswerOptions(terms=MatchTerms(deadline=time.monotonic() - 1))
    with pytest.raises(OverloadedError, match="raise deadline_ms"):
        answer_question(bundle, snapshot, video_named(snapshot, "red.mp4"), "the red", late)


def test_what_cannot_answer_says_what_to_change(toy: ToyLibrary, tmp_path: Path, bundle: Bundle) -> None:
    plain = make_library(tmp_path / "plain", {"red.mp4": [("red", 1.0)]})
    opened, other = Bundle.open(plain.bundle), Snapshot.open(plain.library)
    assert why_no_answers(opened, other) == "no_answer_head"
    with pytest.raises(CannotAnswerError, match=r"'toy' has no answer head\. Index into a new library"):
        answer_question(opened, other, video_named(other, "red.mp4"), "the red", AnswerOptions())

    media = [plain.media / "red.mp4"]
    options = IndexOptions(workers=0, tokens="none")
    index_paths(media, tmp_path / "none", bundle, options, lambda _event: None)
    bare = Snapshot.open(tmp_path / "none")
    assert why_no_answers(bundle, bare) == "no_tokens"
    with pytest.raises(CannotAnswerError, match=r"stores no frame tokens.*without `--tokens none`"):
        answer_question(bundle, bare, video_named(bare, "red.mp4"), "the red", AnswerOptions())


def test_damaged_segments_are_left_out_and_damaged_tokens_give_no_answer(
    toy: ToyLibrary, bundle: Bundle, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    shutil.copytree(toy.library, library)
    snapshot = Snapshot.open(library)
    video_id = video_named(snapshot, "long.mp4")
    cyan = segments_of(snapshot, video_id)[1]

    path = data_file(library, "segments")
    content = path.read_bytes()
    stored = open_table(library, "segments").to_table(columns=["frame_salience"])["frame_salience"]
    value = np.array(stored[cyan.row].as_py(), np.float16).tobytes()
    at = content.index(value)
    path.write_bytes(content[: at + 3] + bytes([content[at + 3] ^ 0x41]) + content[at + 4 :])
    result = answer_question(bundle, snapshot, video_id, "the white", AnswerOptions(num_salient_frames=16))
    (warning,) = result.library_warnings
    assert warning.kind == "damaged_segments"
    assert "segments.lance is damaged: the segment at 24.0 s of " in warning.message
    assert best_of(result) == "white"
    everything = AnswerOptions(num_salient_frames=100)
    left = answer_question(bundle, snapshot, video_id, "the white", everything).frames
    assert len(left) == 32
    assert not {frame.frame_id for frame in left} & set(cyan.frame_ids)
    with pytest.raises(DamagedRowsError, match=r"segments\.lance is damaged"):
        answer_question(bundle, snapshot, video_id, "the white", AnswerOptions(30.0, 40.0))
    path.write_bytes(content)
    assert answer_question(bundle, snapshot, video_id, "the cyan", AnswerOptions()).library_warnings == []

    frames = data_file(library, "frames")
    tokens = open_table(library, "frames").to_table(columns=["tokens"])["tokens"].to_pylist()
    data = frames.read_bytes()
    for row in {bytes(np.array(row, np.int8)) for row in tokens}:
        data = data.replace(row, bytes([row[0] ^ 64]) + row[1:])
    frames.write_bytes(data)
    with pytest.raises(DamagedRowsError, match=r"frames\.lance is damaged"):
        answer_question(bundle, snapshot, video_id, "the cyan", AnswerOptions())
