"""What is said and written in videos and how they are called, as evidence beside what they show.

A line of text counts by its coverage: the share of the query's letters that are in words of the line. A line
with less than half of them says something else, as lines with the query's small words do. The cube of the
coverage is the line's strength; see `service.search.probability` for what it adds to a moment's score.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import TextLine
from indexer.library.schema import LINE_KINDS, LineKind
from indexer.library.snapshot import Snapshot
from service.search.results import TextModality, TextSource

#: Lines that a search reads, at most.
_MOST_LINES = 100
# A line with less of the query than this is no evidence.
_LEAST_COVERAGE = 0.5
# Lines with a longer pause between them are of two moments.
_PAUSE_SECONDS = 2.0
# What stands in the picture for longer, such as the mark of a channel, tells nothing of one moment.
_LONGEST_SHOWN_SECONDS = 60.0
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
    return line.coverage**3


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
        """Where something of the query is said or written in a video: lines that follow closely make one."""
        spans: list[tuple[float, float]] = []
        lines = [line for line in self.lines.get(video_id, ()) if _is_of_a_moment(line)]
        for line in sorted(lines, key=lambda line: line.start_seconds):
            if spans and line.start_seconds - spans[-1][1] <= _PAUSE_SECONDS:
                spans[-1] = (spans[-1][0], max(spans[-1][1], line.end_seconds))
            else:
                spans.append((line.start_seconds, line.end_seconds))
        return spans


def find_text(
    snapshot: Snapshot, text: str, modalities: Modalities, videos: NDArray[np.bool_] | None = None
) -> TextEvidence:
    """The lines that have enough of a query.

    Args:
        snapshot: holds the lines.
        text: the query.
        modalities: the weights.
        videos: of which videos the lines may be, in the order of the snapshot's list; None: of all.

    Raises:
        DamagedRowsError: a line is damaged.
        LibraryError: the table cannot be read.
    """
    kinds = [kind for kind in LINE_KINDS if modalities.counts(kind)]
    if not kinds:
        return _evidence([], modalities)
    found = snapshot.find_lines(text, _MOST_LINES, kinds, _LEAST_COVERAGE, videos=videos)
    return _evidence(found, modalities)


def find_text_of(snapshot: Snapshot, video_id: str, text: str, modalities: Modalities) -> TextEvidence:
    """The lines of one video that have enough of a query. Raises as `find_text`."""
    lines = snapshot.lines_between(video_id, text=text)
    counts = (line for line in lines if modalities.counts(line.kind))
    return _evidence([line for line in counts if line.coverage >= _LEAST_COVERAGE], modalities)


def _is_of_a_moment(line: TextLine) -> bool:
    """Whether a line tells where in its video something is."""
    if line.kind == "screen":
        return line.end_seconds - line.start_seconds <= _LONGEST_SHOWN_SECONDS
    return line.kind != "name"


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


def terms_by_spread(
    visual: NDArray[np.floating], strengths: NDArray[np.floating], retrieved: NDArray[np.floating]
) -> NDArray[np.float64]:
    """What lines add to scores that are not calibrated, float64 [K].

    A strength of 1 raises a moment as far as the best retrieved segment stands above the median one, and one
    that is below the median from there: so it stands at least with the best.

    Args:
        visual: the scores of the moments, shape [K].
        strengths: of their lines, weighted, shape [K].
        retrieved: the scores of the retrieved segments.
    """
    median = float(np.median(retrieved)) if len(retrieved) else 0.0
    reach = max(_LEAST_REACH, float(retrieved.max()) - median) if len(retrieved) else _LEAST_REACH
    terms: NDArray[np.float64] = strengths * (np.maximum(0.0, median - visual) + reach)
    return terms
