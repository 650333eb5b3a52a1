"""The stage that hears what is said: Whisper, by faster-whisper, where somebody speaks.

Silero's voice activity detection, which comes with the package, finds where somebody speaks; Whisper hears
nothing else. Still, it may make up text, as it was trained on subtitles: such text is left out by Whisper's
own measures, which are the probability that nobody speaks, the mean log probability of the words, and how far
the text can be compressed, since it often repeats itself.
"""

from collections.abc import Iterator
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.library.schema import LineRow, VideoRow
from indexer.media import MediaKind, SoundChunk
from indexer.stages.base import StageName, StageResult
from indexer.stages.speech_models import find_model
from indexer.stages.spoken import MOST_SECONDS, Spoken, spoken_parts
from model.runtime.bundle import Provider
from model.runtime.errors import InputError, ReelfindError
from model.runtime.installing import install_command
from model.runtime.timed_text import Lines, language_code
from model.runtime.video.sound import RATE

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

#: Part of the key: another number lets the next run hear all videos again.
_RULES = 1
#: Whisper's own thresholds. A text below the second and above the third of them is tried again at higher
#: temperatures, and left out if none of them helps; one that is likely to be of silence is left out at once.
_NO_SPEECH = 0.6
_LEAST_LOG_PROBABILITY = -1.0
_MOST_COMPRESSION = 2.4
_TEMPERATURES = (0.0, 0.2, 0.4)
_SEED = 1
#: Voice activity, in milliseconds: a pause as long as the first ends a stretch; speech shorter than the
#: second is noise; so much as the third is heard before and after a stretch.
_PAUSE_MS = 2000
_LEAST_SPEECH_MS = 250
_PAD_MS = 400
#: The language is found anew after so many stretches; another one must be so likely to replace it.
_STRETCHES_A_LANGUAGE = 10
_SURE = 0.7


class SpeechStage:
    """A `Stage` that gives lines of the kind "transcript".

    Args:
        model: see `find_model`.
        provider: where Whisper runs: on a GPU unless it is "cpu".
        threads: of the CPU; 0: as many as CTranslate2 takes by itself.

    Raises:
        InputError: the package, the model or the GPU is missing.
    """

    name: StageName = "speech"
    media: MediaKind = "audio"
    max_side = 0

    def __init__(self, model: str, provider: Provider = "cpu", threads: int = 0) -> None:
        if util.find_spec("faster_whisper") is None:
            raise InputError(
                f"speech needs faster-whisper, which is not installed: `{install_command('speech')}`",
                field="speech",
            )
        self._on_gpu = provider != "cpu"
        if self._on_gpu and not _has_gpu():
            raise InputError(
                f"provider is {provider}, but CTranslate2, which runs Whisper, finds no GPU: index without "
                "`speech`, then once more with it and `provider` cpu",
                field="provider",
            )
        self._model = find_model(model)
        self._threads = threads
        self.key = f"faster-whisper {metadata.version('faster-whisper')} {self._model.label} {_RULES}"
        self._whisper: WhisperModel | None = None

    def read(self, video: VideoRow, chunks: Iterator[SoundChunk]) -> StageResult:
        """See `Stage`. Nothing is loaded for a video in which nobody speaks."""
        del video
        hearing = _Hearing()
        lines: list[LineRow] = []
        for spoken in spoken_parts(chunks, _find_speech):
            lines += hearing.lines(self._opened(), spoken)
        return StageResult(lines=tuple(lines))

    def close(self) -> None:
        """See `Stage`."""
        self._whisper = None

    def _opened(self) -> "WhisperModel":
        if self._whisper is None:
            from faster_whisper import WhisperModel

            try:
                self._whisper = WhisperModel(
                    str(self._model.folder),
                    device="cuda" if self._on_gpu else "cpu",
                    compute_type="float16" if self._on_gpu else "int8",
                    cpu_threads=self._threads,
                    local_files_only=True,
                )
            except Exception as error:
                raise ReelfindError(
                    f"the speech model {self._model.folder} cannot be opened ({error}): is it a whole "
                    "Whisper model in CTranslate2's format?"
                ) from error
        return self._whisper


def _has_gpu() -> bool:
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count())


class _Hearing:
    """Hears the stretches of one video, whose language may change."""

    def __init__(self) -> None:
        self._language: str | None = None
        self._is_sure = False
        self._stretches = 0

    def lines(self, whisper: "WhisperModel", spoken: Spoken) -> list[LineRow]:
        """The lines of one stretch."""
        import ctranslate2

        # Higher temperatures draw words: the same sound is heard in the same way, whatever came before.
        ctranslate2.set_random_seed(_SEED)
        language = self._language_of(whisper, spoken.samples)
        segments, _ = whisper.transcribe(
            spoken.samples,
            language=language,
            beam_size=5,
            temperature=_TEMPERATURES,
            no_speech_threshold=_NO_SPEECH,
            log_prob_threshold=_LEAST_LOG_PROBABILITY,
            compression_ratio_threshold=_MOST_COMPRESSION,
            # A mistake must not go on from one stretch to the next.
            condition_on_previous_text=False,
        )
        found = Lines()
        for segment in segments:
            if _is_trusted(segment):
                # Whisper may say that a line ends after the stretch.
                start, end = (min(each, len(spoken.samples) / RATE) for each in (segment.start, segment.end))
                found.add(spoken.start_seconds + start, spoken.start_seconds + max(start, end), segment.text)
        code = language_code(language)
        return [
            LineRow("transcript", line.start_seconds, line.end_seconds, code, line.text)
            for line in found.done().lines
        ]

    def _language_of(self, whisper: "WhisperModel", samples: NDArray[np.float32]) -> str:
        """The language of a stretch, as Whisper calls it. Finding it takes a pass of the encoder more."""
        if not whisper.model.is_multilingual:
            return "en"
        is_due = not self._is_sure or self._stretches % _STRETCHES_A_LANGUAGE == 0
        self._stretches += 1
        if is_due or self._language is None:
            language, probability, _ = whisper.detect_language(samples)
            if self._language is None or probability >= _SURE or not self._is_sure:
                self._language = language
            self._is_sure = self._is_sure or probability >= _SURE
        return self._language


def _is_trusted(segment: Any) -> bool:
    """Whether a text is likely to have been said; faster-whisper's `Segment`."""
    return bool(
        segment.avg_logprob >= _LEAST_LOG_PROBABILITY and segment.compression_ratio <= _MOST_COMPRESSION
    )


def _find_speech(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
    """See `FindSpeech`."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(
        min_speech_duration_ms=_LEAST_SPEECH_MS,
        max_speech_duration_s=MOST_SECONDS,
        min_silence_duration_ms=_PAUSE_MS,
        speech_pad_ms=_PAD_MS,
    )
    return [(span["start"], span["end"]) for span in get_speech_timestamps(samples, options)]
