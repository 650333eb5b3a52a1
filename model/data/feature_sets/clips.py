"""Clips of videos with timed text, for pre-training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from model.data.datasets import SplitName
from model.data.datasets.msrvtt import table_entries
from model.data.datasets.records import read_text
from model.data.feature_sets.cutting import cut_video, home_clip, shift, vectors_of_clip
from model.data.feature_sets.planned import PlannedFeatures, PlannedItem
from model.data.feature_sets.selection import held_out, report_missing, stored_name
from model.data.feature_sets.texts import SetTexts
from model.data.features import FeatureStore
from model.progress import Progress, Report
from model.runtime.errors import InputError
from model.settings import DataConfig

# HERO's names of clips that are cut already.
_CLIP_NAME = re.compile(r"(.+)\.(\d+)")


def open_clips(data: DataConfig, split: SplitName, store: FeatureStore, report: Report) -> PlannedFeatures:
    """Clips of videos; see `open_feature_source`.

    Raises:
        InputError: as there.
    """
    name = f"clips {split}"
    if split == "test":
        raise InputError("data.kind=clips has no test split: it is for pre-training")
    if split == "val" and not data.validation:
        raise InputError("data.kind=clips has no validation split: set data.validation to a number of videos")
    if not data.subtitles:
        raise InputError("no data.subtitles: set it to the timed text of the clips to pre-train on")
    taken = _listed(Path(data.annotations), store, data, report) if data.annotations else store.names
    videos: dict[str, list[str]] = {}
    for stored in taken:
        videos.setdefault(_parts(stored)[0], []).append(stored)
    groups = list(videos.values())
    chosen = [stored for i in held_out(len(groups), data.validation, split) for stored in groups[i]]
    wanted = {name for stored in chosen for name in (stored, _parts(stored)[0])}
    texts, counts = SetTexts(data, wanted.__contains__), Counter[str]()
    progress = Progress("videos cut", len(chosen), report)
    planned: list[PlannedItem] = []
    for stored in chosen:
        planned += _clips_of(stored, store, texts, data, counts)
        progress.step()
    texts.report(name, report)
    if left_out := ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count):
        report(f"{name}: {len(planned)} clips; left out: {left_out}")
    if not planned:
        raise InputError(
            f"{name}: no clip with text in {', '.join(data.features)}: set data.subtitles to the text of the "
            "same videos"
        )
    return PlannedFeatures(name, "clips", store, planned, data)


def _parts(stored: str) -> tuple[str, int | None]:
    """The video of stored features, and the number of the clip if they look like those of a clip."""
    match = _CLIP_NAME.fullmatch(stored)
    return (match[1], int(match[2])) if match else (stored, None)


def _clips_of(
    stored: str, store: FeatureStore, texts: SetTexts, data: DataConfig, counts: Counter[str]
) -> Iterator[PlannedItem]:
    """The clips of the stored features of a video, or of a clip that is cut already."""
    video, number = _parts(stored)
    name, text = texts.of(stored, *([video] if number is not None else []))
    # A name that ends in a number may also be a whole video's.
    number = number if name != stored else None
    lines = text.lines
    if number is not None:
        seconds = vectors_of_clip(data.clip_seconds, data.every_seconds) * data.every_seconds
        inside = [line for line in lines if home_clip(line, seconds) == number]
        lines = tuple(shift(line, number * seconds) for line in inside)
    try:
        length = store.length(stored)
    except InputError:
        if not data.allow_missing:
            raise
        counts["videos with damaged features"] += 1
        return
    cut = cut_video(lines, length, data.every_seconds, data.clip_seconds, data.min_clip_seconds)
    counts["clips without text"] += cut.without_text
    counts[f"clips shorter than {data.min_clip_seconds:g} s"] += cut.too_short
    counts["lines after the end of their video"] += cut.lines_outside
    for clip in cut.clips:
        yield PlannedItem(
            stored if number is not None and not clip.number else f"{stored}.{clip.number}",
            stored,
            clip.lines,
            first=clip.first,
            count=clip.count,
            duration_seconds=clip.duration_seconds,
        )


def _listed(path: Path, store: FeatureStore, data: DataConfig, report: Report) -> list[str]:
    """The stored names of the videos that a file lists: a table with `video_id`, or a name on each line."""
    if path.suffix.lower() in (".csv", ".tsv"):
        names = [row.text("video_id") for row in table_entries(path, ("video_id",))]
    else:
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = list(dict.fromkeys(names))
    clips: dict[str, list[str]] = {}
    for stored in store.names:
        clips.setdefault(_parts(stored)[0], []).append(stored)
    found = [
        [plain] if (plain := stored_name(name, store)) is not None else clips.get(name, []) for name in names
    ]
    missing = [name for name, stored in zip(names, found, strict=True) if not stored]
    report_missing("clips", missing, len(names), data, report)
    return [name for group in found for name in group]
