"""Videos with queries, for fine-tuning: TVR, How2R, DiDeMo, MSR-VTT."""

from __future__ import annotations

from pathlib import Path

from model.data.datasets import SplitName
from model.data.datasets.described import DescribedVideo, read_described
from model.data.datasets.files import plain_names
from model.data.feature_sets.planned import PlannedFeatures, PlannedItem
from model.data.feature_sets.selection import held_out, report_missing, stored_name
from model.data.feature_sets.texts import SetTexts
from model.data.features import FeatureStore
from model.progress import Report
from model.runtime.errors import InputError
from model.settings import DataConfig


def open_described(
    data: DataConfig, split: SplitName, store: FeatureStore, report: Report
) -> PlannedFeatures:
    """The videos of a split with their queries; see `open_feature_source`.

    Raises:
        InputError: as there.
    """
    name = " ".join([data.kind, *([data.msrvtt] if data.kind == "msrvtt_asr" else []), split])
    if not data.annotations:
        raise InputError(f"no data.annotations: set it to the folder of {data.kind}'s annotations")
    folder = Path(data.annotations)
    if not folder.is_dir():
        raise InputError(
            f"data.annotations={folder} is no folder: set it to the folder of {data.kind}'s files"
        )
    source = "train" if data.validation and split == "val" else split
    if source == "val" and data.kind == "msrvtt_asr" and data.msrvtt != "full":
        raise InputError(
            f"MSR-VTT {data.msrvtt} has no validation split: set data.validation=500 to keep that many "
            "training videos for it, or train.evaluate=false"
        )
    described = read_described(folder, data.kind, source, data.msrvtt)
    described = [described[i] for i in held_out(len(described), data.validation, split)]
    if data.limit and split == "train":
        described = described[: data.limit]
    found = [(video, stored_name(video.video_id, store)) for video in described]
    missing = [video.video_id for video, stored in found if stored is None]
    report_missing(name, missing, len(found), data, report)
    wanted = {plain for video in described for plain in plain_names(video.video_id)}
    texts = SetTexts(data, wanted.__contains__)
    planned = [
        PlannedItem(
            video.video_id,
            stored,
            texts.of(video.video_id)[1].lines,
            video.queries,
            duration_seconds=_duration(video, stored, store),
            number=video.number,
        )
        for video, stored in found
        if stored is not None
    ]
    texts.report(name, report)
    return PlannedFeatures(name, "videos", store, planned, data)


def _duration(video: DescribedVideo, stored: str, store: FeatureStore) -> float | None:
    return video.duration_seconds or store.duration_seconds(stored)
