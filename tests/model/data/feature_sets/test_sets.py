"""Data sets of features with timed text, in the official layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model.config import Config, essentials
from model.data.datasets import SplitName
from model.data.feature_sets import FeatureSource, open_feature_source
from model.data.feature_sets.items import pool_vectors
from model.data.features import open_features
from model.runtime.errors import InputError
from model.settings import DataConfig, from_mapping, to_mapping
from tests.support.annotations import head, write_json
from tests.support.feature_sets import (
    FORMS,
    WIDTH,
    Form,
    Scene,
    TinySet,
    ToyVideo,
    features_of,
    split_videos,
    write_didemo,
    write_features,
    write_howto100m,
    write_msrvtt_asr,
    write_transcripts,
    write_tvr,
    write_tvr_subtitles,
)


def opened(
    tiny: TinySet,
    kind: str,
    split: SplitName = "train",
    report: Callable[[str], None] = print,
    **changes: Any,
) -> FeatureSource:
    return open_feature_source(DataConfig(**tiny.settings(kind, **changes)), split, report)


@pytest.mark.parametrize("form", FORMS)
def test_tvr_in_every_format(tmp_path: Path, form: Form) -> None:
    tiny = write_tvr(tmp_path, form=form)
    features = features_of(tiny.videos)
    for split, group in split_videos(tiny.videos).items():
        source = opened(tiny, "tvr", split)  # type: ignore[arg-type]
        assert (source.name, source.unit, source.width, len(source)) == (
            f"tvr {split}",
            "videos",
            WIDTH,
            len(group),
        )
        assert list(source.item_ids) == [video.name for video in group]
        assert list(source.numbers) == [100 + tiny.videos.index(video) for video in group]
        for index, video in enumerate(group):
            item = source.item(index)
            assert (item.item_id, item.every_seconds) == (video.name, 1.5)
            assert item.duration_seconds == video.seconds
            assert np.array_equal(item.features, features[video.name])
            assert [line.text for line in item.lines] == [f"Ann : Look, the {s.topic}!" for s in video.scenes]
            assert [(line.start_seconds, line.end_seconds) for line in item.lines] == [
                video.span(scene) for scene in video.scenes
            ]
            assert [(covered[0], covered[-1]) for covered in item.alignment.vectors] == [
                (scene.first, scene.last) for scene in video.scenes
            ]
            assert (item.alignment.line >= 0).all()
            assert [query.text for query in item.queries] == [
                f"Ann sees the {s.topic}." for s in video.scenes
            ]
            assert source.captions[index] == tuple(query.text for query in item.queries)
            assert [query.kind for query in item.queries] == ["v", "t", "vt"]
            if split == "test":  # its spans are not published
                assert item.labels == ((), (), ())
                assert [item.label(i) for i in range(3)] == [None, None, None]
            else:
                assert [item.label(i) for i in range(3)] == [(s.first, s.last) for s in video.scenes]


def test_how2r_numbers_its_videos_by_place(tmp_path: Path) -> None:
    tiny = write_tvr(tmp_path, kind="how2r")
    source = opened(tiny, "how2r", "val")
    assert source.name == "how2r val"
    assert list(source.numbers) == [0, 1]
    assert source.item(1).duration_seconds == split_videos(tiny.videos)["val"][1].seconds


def test_training_may_take_fewer_videos(tmp_path: Path) -> None:
    tiny = write_tvr(tmp_path)
    whole = opened(tiny, "tvr", "train")
    few = opened(tiny, "tvr", "train", limit=2)
    assert list(few.item_ids) == list(whole.item_ids)[:2]
    assert len(opened(tiny, "tvr", "val", limit=1)) == len(opened(tiny, "tvr", "val"))


def test_all_videos_of_a_split_are_searched(tmp_path: Path) -> None:
    """A video without a query trains nothing, but a search may find it."""
    tiny = write_tvr(tmp_path)
    for split in ("train", "val"):
        path = tiny.annotations / f"tvr_{split}_release.jsonl"
        name = split_videos(tiny.videos)[split][0].name
        rows = [line for line in path.read_text().splitlines() if name not in line]
        path.write_text("\n".join(rows))
    train, val = opened(tiny, "tvr", "train"), opened(tiny, "tvr", "val")
    assert len(train) == 3
    assert len(val) == 2
    place = list(val.item_ids).index(name)
    assert val.item(place).queries == ()
    assert val.numbers[place] == 100 + [video.name for video in tiny.videos].index(name)


def test_didemo_has_the_spans_of_four_annotators(tmp_path: Path) -> None:
    tiny = write_didemo(tmp_path)
    source = opened(tiny, "didemo_moments", "val")
    item = source.item(0)
    # The features are stored without the video's extension.
    assert item.item_id == f"{split_videos(tiny.videos)['val'][0].name}.mov"
    assert item.queries[1].spans == ((15.0, 30.0), (15.0, 30.0), (15.0, 30.0), (0.0, 5.0))
    assert item.labels[1] == ((10, 19), (10, 19), (10, 19), (0, 3))
    assert (item.label(0), item.label(1)) == ((0, 9), (10, 19))


@pytest.mark.parametrize(
    ("partition", "split", "videos"),
    [
        ("1ka", "train", [0, 1, 2, 3, 4, 5, 6, 9]),
        ("7k", "train", range(7)),
        ("1ka", "test", [7, 8]),
        ("full", "val", [6]),
    ],
)
def test_msrvtt_with_speech(tmp_path: Path, partition: str, split: SplitName, videos: list[int]) -> None:
    tiny = write_msrvtt_asr(tmp_path)
    source = opened(tiny, "msrvtt_asr", split, msrvtt=partition)
    assert source.name == f"msrvtt_asr {partition} {split}"
    assert list(source.item_ids) == [f"video{i}" for i in videos]
    item = source.item(0)
    assert item.every_seconds == 2.0
    assert item.lines[0].text.startswith("Ann : Look")
    assert item.labels == ((),) * len(item.queries)
    assert len(item.queries) == (1 if split == "test" else 2)
    assert len({query.moment_id for group in source.queries for query in group}) == sum(
        len(group) for group in source.captions
    )


def test_clips_of_long_videos(tmp_path: Path) -> None:
    tiny = write_howto100m(tmp_path, form="hdf5")
    lines: list[str] = []
    source = opened(tiny, "clips", report=lines.append)
    features = features_of(tiny.videos)
    assert source.unit == "clips"
    said = 0
    for index, name in enumerate(source.item_ids):
        video, number = name.rsplit(".", 1)
        item, first = source.item(index), 40 * int(number)
        assert item.item_id == name
        assert np.array_equal(item.features, features[video][first : first + 40])
        assert item.duration_seconds == 1.5 * len(item.features)
        assert item.lines == tuple(source.lines[index])
        assert item.queries == source.queries[index] == ()
        said += len(item.lines)
        for line, covered in zip(item.lines, item.alignment.vectors, strict=True):
            assert len(covered) > 0, line
    total = sum(len(video.scenes) for video in tiny.videos)
    (report,) = lines
    assert report == f"clips train: {len(source)} clips; left out: 1 clips shorter than 5 s"
    # No line has its home in the short rest.
    assert said == total
    val = opened(tiny, "clips", "val", validation=1)
    train = opened(tiny, "clips", "train", validation=1)
    owners = [{name.rsplit(".", 1)[0] for name in part.item_ids} for part in (train, val)]
    assert [len(part) for part in owners] == [3, 1]
    assert not owners[0] & owners[1]


def test_clips_that_are_cut_already_have_their_own_lines(tmp_path: Path) -> None:
    """HERO's files hold `VIDEO.N`: the result is the same as of whole videos."""
    tiny = write_howto100m(tmp_path)
    cut = {
        f"{name}.{number}": part
        for name, values in features_of(tiny.videos).items()
        for number, part in enumerate(np.split(values, range(40, len(values), 40)))
    }
    path = write_features(tmp_path / "cut", cut, "lmdb_npz")
    whole, parts = opened(tiny, "clips"), opened(tiny, "clips", features=(str(path),))
    assert list(parts.item_ids) == list(whole.item_ids)
    assert len(whole) > 6
    for index in range(len(whole)):
        a, b = whole.item(index), parts.item(index)
        assert np.array_equal(a.features, b.features)
        assert [line.text for line in a.lines] == [line.text for line in b.lines]
        starts = [[line.start_seconds for line in item.lines] for item in (a, b)]
        assert np.allclose(starts[0], starts[1])
    assert len(opened(tiny, "clips", "val", features=(str(path),), validation=1)) in (2, 3)


def test_what_has_no_text_or_is_not_listed_is_no_clip(tmp_path: Path) -> None:
    tiny = write_howto100m(tmp_path)
    write_transcripts(tiny.subtitles, tiny.videos[1:])
    tiny.annotations.write_text("video_id,rank\nhowto_00,1\nhowto_01,2\nhowto_03,3\n")
    lines: list[str] = []
    source = opened(tiny, "clips", report=lines.append)
    assert {name.rsplit(".", 1)[0] for name in source.item_ids} == {"howto_01", "howto_03"}
    assert "clips train: 1 without timed text" in lines
    plain = tmp_path / "list.txt"
    plain.write_text("howto_02\n\nother\n")
    with pytest.raises(InputError, match=r"clips: 1 of 2 videos have no features in .*: other"):
        opened(tiny, "clips", annotations=str(plain))
    source = opened(tiny, "clips", annotations=str(plain), allow_missing=True)
    assert {name.rsplit(".", 1)[0] for name in source.item_ids} == {"howto_02"}
    assert len(opened(tiny, "clips", annotations="")) > len(source)
    write_transcripts(tiny.subtitles, ())
    with pytest.raises(
        InputError, match=r"no clip with text in .*: set data.subtitles to the text of the same"
    ):
        opened(tiny, "clips")


def long_set(parent: Path) -> TinySet:
    """One video of 250 vectors, and queries at 15, 145, 156 and 360 seconds."""
    video = ToyVideo("long", tuple(Scene("dog", 50 * i, 50 * i + 49) for i in range(5)), 1.5)
    rows = [
        {
            "vid_name": "long",
            "duration": 374.0,
            "ts": [start, start + 10],
            "desc": "x",
            "type": "v",
            "desc_id": i,
        }
        for i, start in enumerate((15, 145, 156, 360))
    ]
    (parent / "notes").mkdir()
    (parent / "notes" / "tvr_train_release.jsonl").write_text("\n".join(map(json.dumps, rows)))
    subtitles = write_tvr_subtitles(parent / "subs.jsonl", [video])
    return TinySet(parent / "notes", subtitles, write_features(parent, features_of([video])), (video,))


def test_a_long_video_is_cut_as_hero_does(tmp_path: Path) -> None:
    tiny = long_set(tmp_path)
    item = opened(tiny, "tvr").item(0)
    assert np.array_equal(item.features, features_of(tiny.videos)["long"][:100])
    assert (item.every_seconds, item.duration_seconds) == (1.5, 374.0)
    # Nothing to learn from a moment behind the cut; one across it ends there.
    assert [item.label(i) for i in range(4)] == [(10, 16), (96, 99), None, None]
    assert len(item.lines) == 2
    assert len(item.alignment.vectors) == 2


def test_a_long_video_is_pooled(tmp_path: Path) -> None:
    tiny = long_set(tmp_path)
    item = opened(tiny, "tvr", long_videos="pool").item(0)
    features = features_of(tiny.videos)["long"]
    assert item.features.shape == (84, WIDTH)
    assert item.features.dtype == np.float32
    for i in range(84):
        assert np.allclose(item.features[i], features[3 * i : 3 * i + 3].mean(0), atol=1e-6)
    assert item.every_seconds == 4.5
    assert [item.label(i) for i in range(4)] == [(3, 5), (32, 34), (34, 36), (80, 82)]
    assert len(item.lines) == 5
    kept, joined = pool_vectors(features, 250)
    assert joined == 1
    assert np.array_equal(kept, features)


def test_missing_features_are_an_error_or_counted(tmp_path: Path) -> None:
    tiny = write_tvr(tmp_path)
    names = [video.name for video in split_videos(tiny.videos)["train"]]
    (tiny.features / f"{names[1]}.npz").unlink()
    with pytest.raises(
        InputError, match=f"tvr train: 1 of 4 videos have no features in .*: {names[1]}; get them"
    ):
        opened(tiny, "tvr")
    lines: list[str] = []
    source = opened(tiny, "tvr", report=lines.append, allow_missing=True)
    assert list(source.item_ids) == [names[0], *names[2:]]
    assert "1 of 4 videos have no features" in lines[0]
    other = write_features(tmp_path / "other", {"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(InputError, match=r"4 of 4 videos have no features .*; set data.features to"):
        opened(tiny, "tvr", features=(str(other),), allow_missing=True)


def test_missing_and_broken_subtitles(tmp_path: Path) -> None:
    tiny = write_tvr(tmp_path)
    names = [video.name for video in split_videos(tiny.videos)["train"]]
    folder = tmp_path / "subs"
    folder.mkdir()
    (folder / f"{names[0]}.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHi\n")
    (folder / f"{names[1]}.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n\n")
    (folder / f"{names[2]}.srt").write_text("a letter")
    with pytest.raises(
        InputError, match=rf"{names[2]}.srt is not a subtitle file.* or set data.allow_missing"
    ):
        opened(tiny, "tvr", subtitles=str(folder))
    lines: list[str] = []
    source = opened(tiny, "tvr", report=lines.append, subtitles=str(folder), allow_missing=True)
    assert [len(group) for group in source.lines] == [1, 0, 0, 0]
    assert "tvr train: lines of timed text that are left out: 1 empty" in lines
    assert "tvr train: 2 without timed text" in lines
    assert any(f"{names[2]}.srt is not a subtitle file" in line for line in lines)
    item = source.item(3)
    assert item.lines == ()
    assert item.alignment.line.tolist() == [-1] * len(item.features)
    assert opened(tiny, "tvr", subtitles="").lines == ((),) * 4


def test_damaged_features_are_left_out_of_clips_if_allowed(tmp_path: Path) -> None:
    tiny = write_howto100m(tmp_path)
    (tiny.features / "howto_02.npz").write_bytes(b"half")
    with pytest.raises(InputError, match=r"howto_02.npz is damaged"):
        opened(tiny, "clips")
    lines: list[str] = []
    source = opened(tiny, "clips", report=lines.append, allow_missing=True)
    assert {name.rsplit(".", 1)[0] for name in source.item_ids} == {"howto_00", "howto_01", "howto_03"}
    assert "1 videos with damaged features" in lines[-1]


def test_several_threads_read_items(tmp_path: Path) -> None:
    tiny = write_howto100m(tmp_path, form="lmdb_msgpack")
    source = opened(tiny, "clips")
    places = list(range(len(source))) * 10
    with ThreadPoolExecutor(8) as pool:
        for place, item in zip(places, pool.map(source.item, places), strict=True):
            assert item.item_id == source.item_ids[place]
            assert np.array_equal(item.features, source.item(place).features)


def test_features_of_two_kinds_are_joined(tmp_path: Path) -> None:
    tiny = write_tvr(tmp_path)
    more = write_features(tmp_path / "3d", features_of(tiny.videos, width=5, seed=1), "hdf5")
    source = opened(tiny, "tvr", features=(str(tiny.features), str(more)))
    assert source.width == WIDTH + 5
    assert source.item(0).features.shape[1] == WIDTH + 5


@pytest.mark.parametrize(
    ("kind", "split", "changes", "message"),
    [
        ("tvr", "train", {"features": ()}, "no data.features: set it"),
        ("tvr", "train", {"annotations": ""}, "no data.annotations: set it to the folder of tvr's"),
        ("tvr", "train", {"annotations": "/missing"}, "data.annotations=/missing is no folder"),
        ("tvr", "train", {"subtitles": "/missing"}, "data.subtitles=/missing does not exist"),
        (
            "how2r",
            "train",
            {"annotations": "EMPTY"},
            "must hold one .jsonl file for the split train, .* none",
        ),
        ("didemo_moments", "val", {}, "no val_data.json in"),
        ("msrvtt_asr", "val", {}, "MSR-VTT 1ka has no validation split: set data.validation=500"),
        ("clips", "test", {}, "data.kind=clips has no test split"),
        ("clips", "val", {}, "data.kind=clips has no validation split: set data.validation"),
        ("clips", "train", {"subtitles": ""}, "no data.subtitles: set it to the timed text"),
        ("photos", "train", {}, "data.kind=photos has no features: use clips, tvr"),
        ("tvr", "train", {"validation": 4}, "data.validation=4 leaves none of the 4 videos to train on"),
    ],
)
def test_mistakes_in_settings_are_named(
    tmp_path: Path, kind: str, split: SplitName, changes: dict[str, Any], message: str
) -> None:
    tiny = write_tvr(tmp_path)
    (tmp_path / "empty").mkdir()
    changes = {key: str(tmp_path / "empty") if value == "EMPTY" else value for key, value in changes.items()}
    with pytest.raises(InputError, match=message):
        opened(tiny, kind, split, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every_seconds": 0}, "data.every_seconds=0.0 must be above 0"),
        ({"max_vectors": 0}, "data.max_vectors=0 must be positive"),
        ({"long_videos": "drop"}, "data.long_videos='drop' is not known: use one of cut, pool"),
        ({"min_clip_seconds": 61}, r"data.min_clip_seconds=61.0 must be in \[0, data.clip_seconds\]"),
        ({"kind": "clips", "clip_seconds": 160}, "data.clip_seconds=160.0 must hold 1 to 100 vectors"),
        ({"features": 3}, "data.features=3 must be a list of texts"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_mapping(DataConfig, values, "data.")


def test_one_folder_of_features_needs_no_list() -> None:
    assert from_mapping(DataConfig, {"features": "a"}).features == ("a",)
    assert from_mapping(DataConfig, {"features": ["a", "b"]}).features == ("a", "b")
    assert from_mapping(DataConfig, {"features": ""}).features == ()


def test_a_run_resumes_where_its_files_have_moved() -> None:
    """Paths decide nothing; what becomes of the files does."""

    def decisive(**data: Any) -> dict[str, Any]:
        found: dict[str, Any] = essentials(to_mapping(Config(data=DataConfig(**data))))["data"]
        return found

    assert decisive(features=("a",), subtitles="b") == decisive()
    assert decisive(every_seconds=2.0) != decisive()
    assert decisive(long_videos="pool") != decisive()


def test_the_real_heads_of_tvr(tmp_path: Path) -> None:
    """500 queries and the lengths of the real validation split, with features of the right lengths."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("tvr_val_head.jsonl", "tvr_video2dur_idx_head.json"):
        (notes / name).write_bytes(head(name).read_bytes())
    lengths = json.loads((notes / "tvr_video2dur_idx_head.json").read_text())["val"]
    features = {
        name: np.full((max(1, int(seconds / 1.5)), 2), number, np.float32)
        for name, (seconds, number) in lengths.items()
    }
    path = write_features(tmp_path, features, "hdf5")
    data = DataConfig(kind="tvr", annotations=str(notes), features=(str(path),))
    source = open_feature_source(data, "val")
    assert dict(zip(source.item_ids, source.numbers, strict=True)) == {k: v[1] for k, v in lengths.items()}
    assert sum(len(group) for group in source.queries) == 500
    for index in range(len(source)):
        item = source.item(index)
        count = len(item.features)
        assert item.duration_seconds == lengths[item.item_id][0]
        for place, query in enumerate(item.queries):
            label = item.label(place)
            ((first, last),) = query.spans
            assert label is not None
            assert 0 <= label[0] <= label[1] < count
            # The label covers the span, but for the rest that has no vector.
            assert 1.5 * label[0] <= first or label[0] == count - 1
            assert 1.5 * (label[1] + 1) >= min(last, 1.5 * count)


def test_the_real_head_of_didemo(tmp_path: Path) -> None:
    rows = json.loads(head("didemo_val_head.json").read_text())
    write_json(tmp_path / "notes" / "val_data.json", rows)
    features = {row["video"]: np.ones((4 * row["num_segments"], 3), np.float32) for row in rows}
    path = write_features(tmp_path, features, "npy")
    data = DataConfig(kind="didemo_moments", annotations=str(tmp_path / "notes"), features=(str(path),))
    source = open_feature_source(data, "val")
    assert sum(len(group) for group in source.queries) == len(rows)
    times = {row["annotation_id"]: row["times"] for row in rows}
    for index in range(len(source)):
        item = source.item(index)
        for place, query in enumerate(item.queries):
            chunks = times[int(query.moment_id)]
            best = item.best[place]
            assert best is not None
            # A choice that most annotators made is the one that is agreed on.
            for chunk in chunks:
                if chunks.count(chunk) > len(chunks) / 2:
                    assert chunks[best] == chunk


def test_an_item_of_the_store_is_not_changed_by_its_clip(tmp_path: Path) -> None:
    tiny = write_howto100m(tmp_path)
    source = opened(tiny, "clips")
    source.item(0).features[:] = 0
    name = source.item_ids[0].rsplit(".", 1)[0]
    assert np.array_equal(open_features([tiny.features]).read(name), features_of(tiny.videos)[name])
    assert source.item(0).features.any()
