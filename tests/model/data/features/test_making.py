"""Features made with a bundle: the right frames, resuming, and videos that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.features import open_features
from model.data.features.making import find_videos, interval_middles, make_features
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import resize_frames
from model.runtime.video import VideoReader
from tests.support.toy_bundle import IMAGE_SIZE, colour_embedding, make_toy_bundle
from tests.support.toy_videos import make_corrupt_files, make_video

PARTS = (("red", 1.5), ("blue", 3.0), ("green", 0.5))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"), threads=1)


def test_the_middles_by_hand() -> None:
    assert interval_middles(4.5, 1.5).tolist() == [0.75, 2.25, 3.75]
    assert interval_middles(5.0, 1.5).tolist() == [0.75, 2.25, 3.75, 4.75]
    assert interval_middles(4.5000001, 1.5).tolist() == [0.75, 2.25, 3.75]
    assert interval_middles(0.4, 1.5).tolist() == [0.2]
    assert interval_middles(0.0, 1.5).tolist() == [0.0]
    for seconds, every in ((-1.0, 1.5), (float("nan"), 1.5), (3.0, 0.0), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match="no intervals of"):
            interval_middles(seconds, every)


def test_each_vector_is_the_frame_in_the_middle_of_its_interval(tmp_path: Path, bundle: Bundle) -> None:
    video = make_video(tmp_path / "videos" / "a.mp4", parts=PARTS)
    made = make_features([video], bundle, tmp_path / "out", 1.5)
    assert (made.written, made.kept, made.failed) == (1, 0, ())
    store = open_features([tmp_path / "out"], 1.5)
    features = store.read("a")
    assert features.dtype == np.float32
    # The twin: each frame alone, in a batch of one.
    with VideoReader(video) as reader:
        frames = [
            resize_frames(frame.data[None], IMAGE_SIZE)
            for frame in reader.get_frames_played_at([0.75, 2.25, 3.75, 4.75])
        ]
    alone = np.concatenate([bundle.encode_frames(frame).embedding for frame in frames])
    assert np.allclose(features, alone, atol=1e-5)
    for vector, colour in zip(features, ("red", "blue", "blue", "green"), strict=True):
        assert vector @ colour_embedding(colour) > 0.9
    assert store.duration_seconds("a") == pytest.approx(5.0)
    assert store.every_seconds == 1.5
    assert store.width == bundle.manifest.embedding_dim
    assert json.loads((tmp_path / "out" / "features.json").read_text()) == {
        "version": 1,
        "every_seconds": 1.5,
        "width": bundle.manifest.embedding_dim,
        "bundle": "toy",
        "bundle_sha256": bundle.checksum,
    }


def test_long_videos_are_encoded_in_parts_and_stills_once(tmp_path: Path, bundle: Bundle) -> None:
    """Forty vectors of 0.1 s, more than one pass; and five for each frame at 10 frames a second."""
    video = make_video(tmp_path / "a.mp4", parts=(("red", 2.0), ("blue", 2.0)))
    make_features([video], bundle, tmp_path / "fine", 0.1)
    features = open_features([tmp_path / "fine"]).read("a")
    assert len(features) == 40
    assert (features[:20] @ colour_embedding("red") > 0.9).all()
    assert (features[20:] @ colour_embedding("blue") > 0.9).all()
    make_features([video], bundle, tmp_path / "finer", 0.02)
    assert np.allclose(open_features([tmp_path / "finer"]).read("a"), features.repeat(5, 0), atol=1e-5)


def test_an_interrupted_run_goes_on(tmp_path: Path, bundle: Bundle) -> None:
    videos = [make_video(tmp_path / "videos" / f"{name}.mp4", parts=PARTS[:1]) for name in "abc"]
    out = tmp_path / "out"
    assert make_features(videos[:1], bundle, out).written == 1
    before = (out / "a.npz").stat().st_mtime_ns
    (out / "b.npz").write_bytes(b"half a file")
    made = make_features(videos, bundle, out)
    assert (made.written, made.kept) == (2, 1)
    assert (out / "a.npz").stat().st_mtime_ns == before
    # A video that was replaced is done again.
    make_video(videos[0], parts=(("white", 3.0),))
    assert make_features(videos, bundle, out).written == 1
    assert open_features([out]).read("a") @ colour_embedding("white") == pytest.approx([1, 1], abs=0.05)
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "b.npz", "c.npz", "features.json"]


def test_videos_that_cannot_be_read_are_reported_and_left_out(tmp_path: Path, bundle: Bundle) -> None:
    corrupt = make_corrupt_files(tmp_path / "videos")
    good = make_video(tmp_path / "videos" / "good.mp4", parts=PARTS)
    gone = tmp_path / "videos" / "gone.mp4"
    lines: list[str] = []
    videos = [corrupt[kind] for kind in ("empty", "text", "noise", "header_only", "truncated")]
    made = make_features([*videos, gone, good], bundle, tmp_path / "out", 0.5, lines.append)
    assert made.written == 2
    assert len(made.failed) == 5
    for message in made.failed:
        assert any(line == f"{message}; left out" for line in lines)
    assert any("gone.mp4" in message for message in made.failed)
    # Of a file that is cut off, what can be read counts.
    store = open_features([tmp_path / "out"])
    assert list(store.names) == ["good", "truncated"]
    assert f"{corrupt['truncated']}: ends at 1.7 s of 4.0 s; what can be read counts" in lines
    assert store.duration_seconds("truncated") == pytest.approx(1.7)
    assert store.length("truncated") == 4


def test_other_settings_need_another_folder(tmp_path: Path, bundle: Bundle) -> None:
    video = make_video(tmp_path / "a.mp4", parts=PARTS[:1])
    out = tmp_path / "out"
    make_features([video], bundle, out)
    with pytest.raises(InputError, match=r"every_seconds 1.5 instead of 2.0: choose another folder"):
        make_features([video], bundle, out, 2.0)
    other = Bundle.open(make_toy_bundle(tmp_path / "other", name="other"), threads=1)
    with pytest.raises(InputError, match=r"bundle 'toy' instead of 'other', bundle_sha256"):
        make_features([video], other, out)
    with pytest.raises(
        InputError, match=r"data.every_seconds=2, and the features .* every 1.5 s: set it to 1.5"
    ):
        open_features([out], 2.0)
    (out / "features.json").write_text("{")
    with pytest.raises(InputError, match=r"has a damaged features.json"):
        make_features([video], bundle, out)
    with pytest.raises(InputError, match="holds other files: choose a new or an empty folder"):
        make_features([video], bundle, tmp_path)
    with pytest.raises(InputError, match="every is 0: it must be a number of seconds above 0"):
        make_features([video], bundle, tmp_path / "new", 0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, bundle: Bundle) -> None:
    video = make_video(tmp_path / "a.mp4", parts=PARTS[:1])
    with pytest.raises(InputError, match=r"output .*a.mp4/out cannot be written: .*Not a directory"):
        make_features([video], bundle, video / "out")


def test_videos_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b/x.mp4", "a/y.mkv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_videos(tmp_path)] == ["x.mp4", "y.mkv"]
    assert find_videos(tmp_path / "b" / "x.mp4") == (tmp_path / "b" / "x.mp4",)
    (tmp_path / "a" / "x.mov").write_bytes(b"")
    with pytest.raises(InputError, match=r"a/x.mov and .*b/x.mp4 have one name: rename one"):
        find_videos(tmp_path)
    with pytest.raises(InputError, match=r"missing does not exist"):
        find_videos(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no video in .*empty and below"):
        find_videos(tmp_path / "empty")
