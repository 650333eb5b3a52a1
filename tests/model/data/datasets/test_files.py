"""From annotations to files: finding videos, saying what is missing, keeping videos out for validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


from model.data.datasets import MissingFilesError, Split, open_split
from model.data.datasets.files import MediaFolder
from model.settings import DataConfig
from tests.support.annotations import didemo_row, write_json, write_msrvtt


def names(split: Split) -> list[str]:
    return [video.video_id for video in split.items]


def make_files(folder: Path, files: list[str]) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")
    return folder


def msrvtt(tmp_path: Path, files: list[str], **settings: Any) -> DataConfig:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    write_msrvtt(annotations)
    (tmp_path / "videos").mkdir()
    make_files(tmp_path / "videos", files)
    return DataConfig(
        kind="msrvtt", msrvtt="1ka", annotations=str(annotations), videos=str(tmp_path / "videos"), **settings
    )


def test_videos_are_found_by_name_in_folders_and_after_conversion(tmp_path: Path) -> None:
    write_json(
        tmp_path / "notes" / "val_data.json",
        [didemo_row(video=f"{i}@N0.mov") for i in range(3)] + [didemo_row(video="x@N0.3gp")],
    )
    files = ["0@N0.mov", "deep/1@N0.mp4", "2@N0.mov.mp4", "deep/2@N0.mkv", "x@N0.MP4", "x@N0.txt"]
    data = DataConfig(
        kind="didemo", annotations=str(tmp_path / "notes"), videos=str(make_files(tmp_path / "videos", files))
    )
    split = open_split(data, "val")
    found = [item.path.relative_to(tmp_path / "videos").as_posix() for item in split.items]
    assert found == ["0@N0.mov", "deep/1@N0.mp4", "2@N0.mov.mp4", "x@N0.MP4"]
    assert split.items[0].span_seconds == (0.0, 30.0)
    assert split.name == "didemo val"


def test_links_are_followed_once(tmp_path: Path) -> None:
    data = msrvtt(tmp_path, [])
    make_files(tmp_path / "disk", ["video7.mp4", "video8.mp4"])
    (tmp_path / "videos" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "videos")
    found = [item.path.relative_to(tmp_path / "videos").as_posix() for item in open_split(data, "test").items]
    assert found == ["more/video7.mp4", "more/video8.mp4"]


def test_missing_videos_fail_with_all_that_helps(tmp_path: Path) -> None:
    data = msrvtt(tmp_path, ["video0.mp4", "video9.txt"])
    with pytest.raises(MissingFilesError) as caught:
        open_split(data, "train")
    message = str(caught.value)
    assert message.startswith(
        "7 of 8 files are missing: video1, video2, video3, video4, video5, …; looked in"
    )
    for part in (
        str(tmp_path / "videos"),
        ".mp4, .avi, .mkv",
        "download them, or set data.allow_missing=true",
    ):
        assert part in message


def test_missing_videos_can_be_done_without_but_not_all(tmp_path: Path) -> None:
    data = msrvtt(tmp_path, ["video0.mp4", "video2.avi"], allow_missing=True)
    told: list[str] = []
    split = open_split(data, "train", told.append)
    assert names(split) == ["video0", "video2"]
    assert split.items[1].captions == ("clip 2 for the first time", "clip 2 for the second time")
    assert len(told) == 1
    assert told[0].startswith("msrvtt 1ka train: 6 of 8 files are missing: video1, video3")
    with pytest.raises(
        MissingFilesError, match=r"2 of 2 files are missing: .* set data.videos to the folder"
    ):
        open_split(data, "test", told.append)


def test_validation_videos_are_kept_out_of_training(tmp_path: Path) -> None:
    files = [f"video{i}.mp4" for i in range(10)]
    data = msrvtt(tmp_path, files, validation=3)
    train, val, test = (names(open_split(data, split)) for split in ("train", "val", "test"))
    assert (len(train), len(val), test) == (5, 3, ["video7", "video8"])
    assert not set(train) & set(val)
    assert names(open_split(data, "val")) == val


@pytest.mark.parametrize(
    ("settings", "split", "message"),
    [
        ({}, "val", r"MSR-VTT 1ka has no validation split: set data.validation=500"),
        ({"validation": 8}, "train", "validation=8 leaves none of the 8 videos to train on"),
        ({}, "dev", "split 'dev' is not known: use one of train, val, test"),
        ({"annotations": ""}, "train", r"no data.annotations: set it"),
        ({"videos": "/missing/videos"}, "train", r"data.videos=/missing/videos is not a folder"),
        ({"annotations": "/missing/notes"}, "train", r"data.annotations=/missing/notes does not exist"),
        ({"kind": "photos"}, "train", r"data.kind=photos is not a data set of videos"),
        ({"kind": "msvd"}, "train", r"no raw-captions.pkl in"),
    ],
)
def test_settings_that_open_nothing_are_named(
    tmp_path: Path, settings: dict[str, Any], split: Any, message: str
) -> None:
    data = msrvtt(tmp_path, [])
    values = {field: getattr(data, field) for field in ("kind", "msrvtt", "annotations", "videos")}
    with pytest.raises(ValueError, match=message):
        open_split(DataConfig(**(values | settings)), split)


def test_a_name_in_another_unicode_form_is_found(tmp_path: Path) -> None:
    folder = MediaFolder(
        make_files(tmp_path / "videos", ["cafe\u0301.mp4", "e\u0301/one.mkv"]), (".mp4", ".mkv")
    )
    for name, file in (("caf\u00e9.mp4", "cafe\u0301.mp4"), ("caf\u00e9", "cafe\u0301.mp4")):
        assert folder.find(name) == tmp_path / "videos" / file
    assert folder.find("\u00e9/one.mkv") == tmp_path / "videos" / "e\u0301" / "one.mkv"
