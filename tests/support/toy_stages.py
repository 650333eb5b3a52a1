"""Stages without a model: what they find follows from what they read, and can be told beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.library.schema import LineRow, VideoRow
from indexer.media import MediaKind, PictureChunk, SoundChunk
from indexer.stages.base import StageName, StageResult
from tests.support.toy_bundle import COLOURS


@dataclass
class LoudStage:
    """Gives a line, `text`, for each chunk of sound that is not silent. `each` is called for every chunk."""

    key: str = "loud 1"
    text: str = "it is loud"
    each: Callable[[VideoRow], None] = lambda _: None
    name: StageName = "speech"
    media: MediaKind = "audio"
    max_side: int = 0
    read_videos: list[str] = field(default_factory=list)
    closed: int = 0

    def read(self, video: VideoRow, chunks: Iterator[SoundChunk]) -> StageResult:
        self.read_videos.append(video.video_id)
        lines = []
        for chunk in chunks:
            self.each(video)
            if np.abs(chunk.samples.astype(np.int32)).max() > 1000:
                lines.append(LineRow("transcript", chunk.start_seconds, chunk.end_seconds, "en", self.text))
        return StageResult(tuple(lines))

    def close(self) -> None:
        self.closed += 1


@dataclass
class ColourStage:
    """Gives a line for each colour that the sampled pictures have; `text` is formatted with its name."""

    key: str = "colour 1"
    text: str = "painted {}"
    name: StageName = "screen"
    media: MediaKind = "pictures"
    max_side: int = 32

    def read(self, video: VideoRow, chunks: Iterator[PictureChunk]) -> StageResult:
        lines: dict[str, LineRow] = {}
        for chunk in chunks:
            assert max(chunk.data.shape[1:3]) <= self.max_side
            for time, picture in zip(chunk.pts_seconds.tolist(), chunk.data, strict=True):
                mean = picture.mean(axis=(0, 1))
                name = min(COLOURS, key=lambda each: float(np.abs(mean - COLOURS[each]).sum()))
                lines.setdefault(name, LineRow("screen", time, time, None, self.text.format(name)))
        return StageResult(tuple(lines.values()))

    def close(self) -> None:
        pass


@dataclass
class ScriptStage:
    """Gives the lines that were written for a file, by its size: start and end in seconds, and the text."""

    script: Mapping[int, Sequence[tuple[float, float, str]]]
    key: str = "script 1"
    name: StageName = "screen"
    media: MediaKind = "pictures"
    max_side: int = 32

    def read(self, video: VideoRow, chunks: Iterator[PictureChunk]) -> StageResult:
        for _ in chunks:
            pass
        lines = self.script.get(video.bytes, ())
        return StageResult(tuple(LineRow("screen", start, end, None, text) for start, end, text in lines))

    def close(self) -> None:
        pass
