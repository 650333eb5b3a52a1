"""The official annotation files, generated and real."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


from PIL import Image

from model.data.datasets import open_split
from model.data.datasets.didemo import paragraph, read_didemo, read_paragraphs
from model.data.datasets.image_text import read_image_text
from model.data.datasets.msrvtt import read_jsfusion, read_msrvtt
from model.data.datasets.msvd import read_msvd
from model.data.datasets.records import Annotated
from model.data.datasets.vatex import read_vatex
from model.settings import DataConfig
from tests.support.annotations import (
    didemo_row,
    head,
    vatex_row,
    write_json,
    write_msrvtt,
    write_msvd,
    write_table,
)


def names(found: list[Annotated]) -> list[str]:
    return [video.video_id for video in found]


# MSR-VTT


@pytest.mark.parametrize(
    ("partition", "split", "numbers"),
    [
        ("full", "train", range(6)),
        ("full", "val", [6]),
        ("full", "test", [7, 8, 9]),
        ("7k", "train", range(7)),
        ("7k", "test", [7, 8]),
        ("1ka", "train", [0, 1, 2, 3, 4, 5, 6, 9]),
        ("1ka", "test", [7, 8]),
    ],
)
def test_msrvtt_has_three_partitions(tmp_path: Path, partition: str, split: str, numbers: Any) -> None:
    found = read_msrvtt(write_msrvtt(tmp_path), partition, split)
    assert names(found) == [f"video{i}" for i in numbers]
    if split == "train" or partition == "full":
        assert found[-1].captions == tuple(
            f"clip {numbers[-1]} for the {t} time" for t in ("first", "second")
        )
    assert all(video.span_seconds is None for video in found)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_1ka_test_is_read_with_any_separator(tmp_path: Path, separator: str) -> None:
    found = read_msrvtt(write_msrvtt(tmp_path, separator), "1ka", "test")
    assert [video.captions for video in found] == [("a dog runs",), ("a cat; asleep",)]


def test_a_semicolon_in_an_unquoted_sentence_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("key;vid_key;video_id;sentence\nret0;msr7;video7;a cat; asleep; at home\n")
    assert read_jsfusion(path) == [Annotated("video7", ("a cat; asleep; at home",))]


def test_msrvtt_in_its_two_original_files(tmp_path: Path) -> None:
    whole = json.loads((write_msrvtt(tmp_path) / "MSRVTT_data.json").read_text())
    (tmp_path / "MSRVTT_data.json").unlink()
    for name, kept in (
        ("train_val_videodatainfo.json", ("train", "validate")),
        ("test_videodatainfo.json", ("test",)),
    ):
        videos = [v for v in whole["videos"] if v["split"] in kept]
        ids = {v["video_id"] for v in videos}
        sentences = [s for s in whole["sentences"] if s["video_id"] in ids]
        write_json(tmp_path / name, {"videos": videos, "sentences": sentences})
    assert names(read_msrvtt(tmp_path, "full", "train")) == [f"video{i}" for i in range(6)]
    assert names(read_msrvtt(tmp_path, "full", "test")) == ["video7", "video8", "video9"]
    assert len(read_msrvtt(tmp_path, "1ka", "train")) == 8


def test_the_real_1ka_head(tmp_path: Path) -> None:
    found = read_jsfusion(head("MSRVTT_JSFUSION_test_head.csv"))
    assert len(found) == 100
    assert found[0] == Annotated("video9770", ("a person is connecting something to system",))
    assert len(set(names(found))) == 100
    assert all(len(video.captions) == 1 for video in found)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("videos", 3, "split"),
            None,
            r"MSRVTT_data.json, videos 3: no field 'split'; there are category, url",
        ),
        (("videos", 3, "split"), 7, "videos 3: split is 7: it must be a text"),
        (("videos", 0), "video0", "videos 0: must be an object, not 'video0'"),
        (("videos",), {}, "videos must be a list of objects, not dict"),
        (("sentences", 4, "caption"), " ", "sentences 4: caption is ' ': it must be a text"),
        (("sentences",), [], "video video0 has no caption among the sentences"),
    ],
)
def test_a_malformed_msrvtt_file_is_named_with_place_and_field(
    tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    file = write_msrvtt(tmp_path) / "MSRVTT_data.json"
    whole = json.loads(file.read_text())
    part = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    write_json(file, whole)
    with pytest.raises(ValueError, match=message):
        read_msrvtt(tmp_path, "full", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "key,vid_key,video,sentence\n",
            "line 1: no column 'video_id'; there are key, vid_key, video, sentence",
        ),
        ("", "line 1: no column 'video_id'; there are none"),
        ("key,video_id,sentence\na,video1,\n", "line 2: sentence is '': it must be a text"),
        ("key,video_id,sentence\na,video1\n", "line 2: no field 'sentence'"),
        ("key,video_id,sentence\na,v1,b\nc,v1,d\n", "line 3: video_id v1 occurs twice"),
        ("key,video_id,sentence\na,v1,b,c\n", "line 2: 1 fields too many: put quotes around"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "test.csv").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_jsfusion(tmp_path / "test.csv")
    assert str(tmp_path / "test.csv") in str(caught.value)


def test_files_of_different_downloads_are_told_apart(tmp_path: Path) -> None:
    write_table(write_msrvtt(tmp_path) / "MSRVTT_train.9k.csv", [("video_id",), ("video1",), ("video77",)])
    with pytest.raises(ValueError, match="names 1 clips without captions, such as video77"):
        read_msrvtt(tmp_path, "1ka", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"videos": [', "line 1: is not JSON"),
        (b"[]", "must hold an object with videos and sentences"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (write_msrvtt(tmp_path) / "MSRVTT_data.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_msrvtt(tmp_path, "full", "train")


# MSVD


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_msvd_joins_words(tmp_path: Path, protocol: int) -> None:
    folder = write_msvd(tmp_path, protocol=protocol)
    assert read_msvd(folder, "train") == [
        Annotated("clip_0", ("a man 0", "he cooks")),
        Annotated("clip_1", ("a man 1", "he cooks")),
    ]
    assert names(read_msvd(folder, "val")) == ["clip_2"]
    assert names(read_msvd(folder, "test")) == ["clip_3"]


def test_captions_pickled_by_python_2_are_read(tmp_path: Path) -> None:
    write_msvd(tmp_path)
    # What Python 2 wrote for {"clip_2": [["a", "café"]]}: byte strings.
    old = b"\x80\x02}q\x01U\x06clip_2q\x02]q\x03]q\x04(U\x01aq\x05U\x05caf\xc3\xa9q\x06eas."
    (tmp_path / "raw-captions.pkl").write_bytes(old)
    assert read_msvd(tmp_path, "val") == [Annotated("clip_2", ("a café",))]


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, ("sprung",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_msvd(tmp_path)
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"clip_0": Trap()}))
    with pytest.raises(ValueError, match=r"raw-captions.pkl cannot be read: it asks for posix.mkdir"):
        read_msvd(tmp_path, "train")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"clip_0": [["a"]]}, r"train_list.txt, line 2: clip_1 has no captions"),
        ({"clip_0": ["a man"]}, "clip clip_0, caption 0: must be a list of words"),
        ({"clip_0": []}, "clip clip_0: must have a list of captions that is not empty"),
        ({"clip_0": [[" "]]}, "clip clip_0: all its captions are blank"),
    ],
)
def test_malformed_msvd_captions_are_named(tmp_path: Path, captions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_msvd(write_msvd(tmp_path, captions), "train")


def test_damaged_and_missing_captions_are_named(tmp_path: Path) -> None:
    path = write_msvd(tmp_path) / "raw-captions.pkl"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="must hold a dict, not list"):
        read_msvd(tmp_path, "train")
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        read_msvd(tmp_path, "train")
    path.unlink()
    with pytest.raises(ValueError, match=r"no raw-captions.pkl in .*: set data.annotations"):
        read_msvd(tmp_path, "train")


# DiDeMo


def test_didemo_joins_a_clips_sentences_to_a_paragraph(tmp_path: Path) -> None:
    rows = [
        didemo_row(),
        didemo_row(video="2.3gp", description="rain!", num_segments=5),
        didemo_row(description="it lands."),
    ]
    write_json(tmp_path / "val_data.json", rows)
    assert read_didemo(tmp_path, "val") == [
        Annotated("1@N0_2_ab.mov", ("a dog jumps. it lands.",), (0.0, 30.0)),
        Annotated("2.3gp", ("rain!",), (0.0, 25.0)),
    ]
    with pytest.raises(ValueError, match=r"no train_data.json in"):
        read_didemo(tmp_path, "train")


def test_the_real_didemo_head() -> None:
    path = head("didemo_val_head.json")
    found = read_paragraphs(path)
    assert len(found) == 181
    rows = json.loads(path.read_text())
    for video in found:
        own = [row for row in rows if row["video"] == video.video_id]
        assert video.captions == (paragraph([row["description"].strip() for row in own]),)
        assert video.span_seconds == (0.0, 5.0 * own[0]["num_segments"])


# VATEX


def test_vatex_files_and_its_retrieval_split(tmp_path: Path) -> None:
    write_json(
        tmp_path / "vatex_training_v1.0.json", [vatex_row("a_000001_000011"), vatex_row("b_000000_000010")]
    )
    write_json(
        tmp_path / "vatex_validation_v1.0.json", [vatex_row("c_000000_000010"), vatex_row("d_000000_000010")]
    )
    write_json(tmp_path / "vatex_public_test_english_v1.1.json", [vatex_row("e_000000_000010")])
    assert read_vatex(tmp_path, "train")[0] == Annotated(
        "a_000001_000011", ("a_000001_000011 one", "a_000001_000011 two")
    )
    assert names(read_vatex(tmp_path, "test")) == ["e_000000_000010"]
    write_json(tmp_path / "split.json", {"val": ["d_000000_000010"], "test": ["c_000000_000010"]})
    assert names(read_vatex(tmp_path, "val")) == ["d_000000_000010"]
    assert names(read_vatex(tmp_path, "test")) == ["c_000000_000010"]
    with pytest.raises(ValueError, match=r"split.json: train must be a list"):
        read_vatex(tmp_path, "train")
    write_json(tmp_path / "split.json", {"test": ["x_000000_000010"]})
    with pytest.raises(ValueError, match=r"1 clips of test have no captions in .*, such as x_000000"):
        read_vatex(tmp_path, "test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"enCap": []}, "entry 0: enCap is .*: it must be a list that is not empty"),
        ({"enCap": [1]}, "entry 0: enCap must hold texts only"),
        ({"enCap": ["", " "]}, "enCap holds blank texts only"),
        ({"videoID": None}, "entry 0: no field 'videoID'"),
    ],
)
def test_malformed_vatex_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_json(tmp_path / "vatex_validation_v1.0.json", [vatex_row("a", **row)])
    with pytest.raises(ValueError, match=message):
        read_vatex(tmp_path, "val")
    with pytest.raises(ValueError, match=r"no vatex_training\*\.json in"):
        read_vatex(tmp_path, "train")


# Image-text pairs


PAIRS = [
    {"image": "coco/1.jpg", "caption": "a bus"},
    {"image": "coco/2.jpg", "caption": ["a bike", "two wheels"]},
    {"image": "coco/1.jpg", "caption": "a red bus", "split": "train"},
    {"image": "coco/3.jpg", "caption": "a boat", "split": "val"},
]
TRAIN = [Annotated("coco/1.jpg", ("a bus", "a red bus")), Annotated("coco/2.jpg", ("a bike", "two wheels"))]


@pytest.mark.parametrize("kind", ["list.json", "lines.json", "lines.jsonl"])
def test_image_text_pairs_in_json(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    lines = "\n".join(json.dumps(pair) for pair in PAIRS)
    path.write_text(json.dumps(PAIRS) if kind == "list.json" else f"{lines}\n\n")
    assert read_image_text(path, "train") == TRAIN
    assert read_image_text(path, "val") == [Annotated("coco/3.jpg", ("a boat",))]
    with pytest.raises(ValueError, match="no pairs of split 'test'"):
        read_image_text(path, "test")


def test_image_text_pairs_in_a_table_and_in_a_folder_of_files(tmp_path: Path) -> None:
    rows = [("image", "caption"), ("coco/1.jpg", "a bus, red"), ("coco/1.jpg", "a car")]
    write_table(tmp_path / "train_coco.csv", rows)
    (tmp_path / "val.jsonl").write_text('{"image": "coco/3.jpg", "caption": "a boat"}\n')
    write_json(tmp_path / "train_sbu.json", [{"image": "sbu/1.png", "caption": "a tree"}])
    found = {video.video_id: video.captions for video in read_image_text(tmp_path, "train")}
    assert found == {"coco/1.jpg": ("a bus, red", "a car"), "sbu/1.png": ("a tree",)}
    assert read_image_text(tmp_path, "val") == [Annotated("coco/3.jpg", ("a boat",))]


def test_photos_with_a_text_file_beside_each(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a" / f"{split}.jpg")
        (tmp_path / split / "a" / f"{split}.txt").write_text("one\n\n two \n")
        (tmp_path / split / "alone.txt").write_text("no photo")
    assert read_image_text(tmp_path, "train") == [Annotated("train/a/train.jpg", ("one", "two"))]
    data = DataConfig(kind="image_text", annotations=str(tmp_path), videos=str(tmp_path))
    assert open_split(data, "val").items[0].path == tmp_path / "val" / "a" / "val.jpg"
    with pytest.raises(ValueError, match="put them into a folder test"):
        read_image_text(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"image": "a"}\n', r"x.jsonl, line 1: no field 'caption'; there are image"),
        ("x.jsonl", '{"image": "a", "caption": "b"}\n[]\n', "line 2: must be an object"),
        ("x.jsonl", '\n{"image": \n', "line 2: is not JSON"),
        ("x.json", '[{"image": 3, "caption": "b"}]', "entry 0: image is 3"),
        ("x.xml", "", r"are read from .json, .jsonl, .csv, .tsv or a folder"),
    ],
)
def test_malformed_pairs_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_image_text(tmp_path / name, "train")
