"""What is said and written in videos and how they are called, as evidence beside what they show.

A line of text counts by its coverage: the share of the query's letters that are in words of the line. A line
with less than half of them says something else, as lines with the query's small words do. The square of the
coverage is the line's strength, and a strength of 1 raises a moment's score as much as the best segment's
score stands above the median one's: as far as pictures can.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import TextLine
from indexer.library.schema import LINE_KINDS, LineKind
from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS
from service.search.results import TextModality, TextSource

#: Lines that a search reads, at most.
_MOST_LINES = 100
# A line with less of the query than this is no evidence.
_LEAST_COVERAGE = 0.5
# Lines with a longer pause between them are of two moments.
_PAUSE_SECONDS = 2.0
# Where all segments score alike, text still counts.
_LEAST_REACH = 0.05

#: What the lines of a request's `modalities` are; several kinds of lines may be of one.
MODALITY_OF: dict[LineKind, TextModality] = {
    "speech": "speech",
    "transcript": "speech",
    "screen": "screen",
    "name": "name",
}
SOURCE_OF: dict[LineKind, TextSource] = {
    "speech": "subtitles",
    "transcript": "heard",
    "screen": "seen",
    "name": "name",
}


@dataclass(frozen=True)
class Modalities:
    """How much each kind of evidence counts; 0: not at all.

    Attributes:
        visual: what the frames show.
        speech: what is said: subtitles and transcripts.
        screen: what is written in the pictures.
        name: file name and title.
    """

    visual: float = 1.0
    speech: float = 1.0
    screen: float = 1.0
    name: float = 0.5

    def weight_of(self, modality: TextModality) -> float:
        """The weight of what is said, of what is written, or of the name."""
        return {"speech": self.speech, "screen": self.screen, "name": self.name}[modality]

    def counts(self, kind: LineKind) -> bool:
        """Whether lines of a kind count at all."""
        return self.weight_of(MODALITY_OF[kind]) > 0


def strength_of(line: TextLine) -> float:
    """How much a line counts, from 0 to 1."""
    return line.coverage**2


@dataclass(frozen=True)
class TextEvidence:
    """The lines that a search found.

    Attributes:
        modalities: the weights.
        lines: by video, the strongest first.
    """

    modalities: Modalities = field(default_factory=Modalities)
    lines: Mapping[str, tuple[TextLine, ...]] = field(default_factory=dict)

    def alone(self) -> "TextEvidence":
        """The same where pictures do not count."""
        return TextEvidence(replace(self.modalities, visual=0.0), self.lines)

    def within(self, video_id: str, start_seconds: float, end_seconds: float) -> list[TextLine]:
        """The lines of a video that touch a span, names included."""
        return [
            line
            for line in self.lines.get(video_id, ())
            if line.kind == "name" or (line.start_seconds < end_seconds and line.end_seconds > start_seconds)
        ]

    def spans(self, video_id: str) -> list[tuple[float, float]]:
        """Where something of the query is said in a video: lines that follow each other closely make one."""
        spans: list[tuple[float, float]] = []
        lines = [line for line in self.lines.get(video_id, ()) if line.kind != "name"]
        for line in sorted(lines, key=lambda line: line.start_seconds):
            if spans and line.start_seconds - spans[-1][1] <= _PAUSE_SECONDS:
                spans[-1] = (spans[-1][0], max(spans[-1][1], line.end_seconds))
            else:
                spans.append((line.start_seconds, line.end_seconds))
        return spans

    def term(self, lines: Iterable[TextLine], reach: float) -> float:
        """What lines add to a score: of what is said, what is written and the names, the strongest counts."""
        total = sum(self.modalities.weight_of(each) * strength for each, strength in strongest(lines).items())
        return round(total * reach, SCORE_DECIMALS)


def find_text(snapshot: Snapshot, text: str, modalities: Modalities) -> TextEvidence:
    """The lines of all videos that have enough of a query.

    Raises:
        DamagedRowsError: a line is damaged.
        LibraryError: the table cannot be read.
    """
    kinds = [kind for kind in LINE_KINDS if modalities.counts(kind)]
    found = snapshot.find_lines(text, _MOST_LINES, kinds, _LEAST_COVERAGE) if kinds else []
    return _evidence(found, modalities)


def find_text_of(snapshot: Snapshot, video_id: str, text: str, modalities: Modalities) -> TextEvidence:
    """The lines of one video that have enough of a query. Raises as `find_text`."""
    lines = snapshot.lines_between(video_id, text=text)
    counts = (line for line in lines if modalities.counts(line.kind))
    return _evidence([line for line in counts if line.coverage >= _LEAST_COVERAGE], modalities)


def _evidence(lines: Iterable[TextLine], modalities: Modalities) -> TextEvidence:
    by_video: dict[str, list[TextLine]] = {}
    for line in lines:
        by_video.setdefault(line.video_id, []).append(line)
    return TextEvidence(
        modalities,
        {video: tuple(sorted(found, key=lambda line: -line.coverage)) for video, found in by_video.items()},
    )


def strongest(lines: Iterable[TextLine]) -> dict[TextModality, float]:
    """The strength of the strongest line of each modality: a subtitle that is heard too counts once."""
    best: dict[TextModality, float] = {}
    for line in lines:
        modality = MODALITY_OF[line.kind]
        best[modality] = max(best.get(modality, 0.0), strength_of(line))
    return best


def reach_of(scores: NDArray[np.floating]) -> float:
    """How far the best score stands above the median one. [K] → a number above 0."""
    if not len(scores):
        return _LEAST_REACH
    return max(_LEAST_REACH, float(scores.max() - np.median(scores)))
