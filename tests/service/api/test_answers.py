"""Results of searches and questions on the wire: every field, under the name that the schema has."""

import json
from dataclasses import asdict, fields
from datetime import datetime, timedelta, timezone
from typing import get_args

import pytest
from pydantic import BaseModel

from model.runtime.places import Place
from service.api import schemas
from service.api.answers import answer_body, reload_result, search_body
from service.live import ReloadOutcome
from service.readiness import Degradation
from service.scrub import ScrubState
from service.search import results

FRAME = results.FrameEvidence("0f3a9c52d1e8b764-00002-07", 1.5, 0.25, True, -3.1416)
OTHER_FRAME = results.FrameEvidence("0f3a9c52d1e8b764-00002-08", 1e-6, -1e-6, False, None)
TERM = results.SalientFrame(FRAME.frame_id, 0.25, -3.1416)
HUBNESS = (0.4, 0.5, -0.5)
EXPLANATION = results.ScoreExplanation(
    0.123457, 2.5, 0.308642, *HUBNESS, -3.1416, 0.25, None, 1.0, 0.5, [TERM], 7, "a × 0.1 (“b”)"
)
LINE = results.TextMatch("speech", "heard", 1.0, 2.5, "en", "a “red” car", [[3, 6]], 0.75)
MOMENT = results.VideoMoment(0.0, 4.5, 2.833, 0.123457, -3.1416, 0.5, "medium", [FRAME], [LINE])
HIT = results.Hit(
    "0f3a9c52d1e8b764",
    "/é/one.mp4",
    False,
    "Ein Film",
    "film0001",
    ["Meer"],
    datetime(2023, 7, 14, 18, 22, 31, tzinfo=timezone(timedelta(hours=2))),
    "tag_with_zone",
    Place(48.8584, 2.2945, 35.0),
    "Apple iPhone 12",
    True,
    0.0,
    32.0,
    7.5,
    2.833,
    0.123457,
    -3.1416,
    0.5,
    "medium",
    [FRAME],
    [LINE],
    [MOMENT],
    None,
    EXPLANATION,
)
OTHER_HIT = results.Hit(
    "1f3a9c52d1e8b764",
    "/two.mp4",
    True,
    None,
    None,
    [],
    None,
    None,
    None,
    None,
    None,
    32.5,
    64.0,
    None,
    0.1,
    1.0,
    None,
    None,
    None,
    [FRAME, OTHER_FRAME],
    [],
    None,
    [results.SequenceStep("a", MOMENT, EXPLANATION), results.SequenceStep("b", MOMENT, None)],
    None,
)
TIMINGS = results.StageTimings(1.0, 0.125, 2.25, 3.0, 4.0, 5.0, 6.0, 7.5, 0.5, 29.375)
WARNING = results.QueryWarning("not_understood", "…", results.QueryWarningDetails(words=["猫"]))
DAMAGE = results.LibraryWarning("damaged_segments", "…")
RESULT = results.SearchResult(
    [HIT, OTHER_HIT], False, None, 3, True, None, 2, 5, "deadline", [WARNING], [DAMAGE], TIMINGS, 7, "token"
)


@pytest.mark.parametrize(
    ("internal", "wire"),
    [
        (results.SearchResult, schemas.SearchResponse),
        (results.Hit, schemas.Hit),
        (results.TextMatch, schemas.TextMatch),
        (results.VideoMoment, schemas.VideoMoment),
        (results.SequenceStep, schemas.SequenceStep),
        (results.FrameEvidence, schemas.FrameHit),
        (results.ScoreExplanation, schemas.Explanation),
        (results.SalientFrame, schemas.FrameTerm),
        (results.StageTimings, schemas.Timings),
        (results.QueryWarning, schemas.QueryWarning),
        (results.QueryWarningDetails, schemas.QueryWarningDetails),
        (results.LibraryWarning, schemas.LibraryWarning),
        (results.AnswerResult, schemas.AnswerResponse),
        (results.PossibleAnswer, schemas.PossibleAnswer),
        (results.AnswerFrame, schemas.AnswerFrame),
        (Degradation, schemas.Degradation),
        (ScrubState, schemas.ScrubState),
        (ReloadOutcome, schemas.ReloadResult),
    ],
)
def test_fields_are_those_of_the_schema_in_its_order(internal: type, wire: type[BaseModel]) -> None:
    assert [field.name for field in fields(internal)] == list(wire.model_fields)


def test_a_result_is_written_value_by_value_as_the_schema_would() -> None:
    body = search_body(RESULT)
    expected = asdict(RESULT)
    expected["hits"][0]["captured_at"] = "2023-07-14T18:22:31+02:00"
    assert json.loads(body) == expected
    parsed = schemas.SearchResponse.model_validate_json(body, strict=True)
    assert parsed.model_dump() == asdict(RESULT)
    assert parsed.model_dump_json().encode() == body


def test_an_answer_is_written_value_by_value_as_the_schema_would() -> None:
    frames = [results.AnswerFrame(FRAME.frame_id, 1.5, -1e-6)]
    answers = [results.PossibleAnswer("deux “chats”", 0.75), results.PossibleAnswer("two", 0.125)]
    result = results.AnswerResult(answers, frames, 3, [WARNING], [DAMAGE])
    body = answer_body(result)
    assert json.loads(body) == asdict(result)
    parsed = schemas.AnswerResponse.model_validate_json(body, strict=True)
    assert parsed.model_dump_json().encode() == body


@pytest.mark.parametrize("skipped", get_args(results.RerankSkipped))
def test_every_reason_not_to_rerank_is_in_the_schema(skipped: results.RerankSkipped) -> None:
    result = results.SearchResult(
        [], None, "not_calibrated", 1, False, skipped, 0, 0, None, [], [], TIMINGS, 1
    )
    assert schemas.SearchResponse.model_validate_json(search_body(result)).rerank_skipped == skipped


def test_a_reload_is_told() -> None:
    assert reload_result(ReloadOutcome(4, True)) == schemas.ReloadResult(snapshot=4, changed=True)
