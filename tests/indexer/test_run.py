"""Indexing: what gets into a library, what is passed over, replaced and removed."""

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.events import Event, FileDone, IndexSummary, Published
from indexer.library.errors import LibraryError
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.copies import distinct_copy
from tests.support.toy_bundle import (
    COLOURS,
    colour_embedding,
    make_toy_bundle,
    salience,
    segment_embedding,
    text_embedding,
)
from tests.support.toy_videos import make_audio, make_corrupt_files, make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def index(bundle: Bundle, library: Path, *paths: Path, **options: Any) -> IndexSummary:
    return index_paths(paths, library, bundle, IndexOptions(**{"workers": 0, **options}), lambda _: None)


def best_path(snapshot: Snapshot, text: str) -> str:
    _, rows = snapshot.search(text_embedding(text)[None], 1)
    video = snapshot.video(snapshot.segments(rows[0])[0].video_id)
    assert video is not None
    return video.path


def test_colours_are_found_where_they_are(bundle: Bundle, tmp_path: Path) -> None:
    for colour in ("red", "green", "blue"):
        make_video(tmp_path / f"media/{colour}.mp4", parts=[(colour, 1.0)])
    summary = index(bundle, tmp_path / "library", tmp_path / "media")
    assert summary.verdicts == {"ok": 3}
    assert (summary.num_videos, summary.num_segments, summary.snapshot) == (3, 3, 1)
    snapshot = Snapshot.open(tmp_path / "library")
    for colour in ("red", "green", "blue"):
        assert best_path(snapshot, colour) == str(tmp_path / f"media/{colour}.mp4")
    assert snapshot.hours == pytest.approx(3 / 3600, rel=0.01)
    assert snapshot.media_roots == (tmp_path / "media",)


def test_a_video_of_parts_is_stored_segment_by_segment(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "two.mp4", parts=[("blue", 32.0), ("red", 32.0)], fps=4, title="Two parts")
    index(bundle, tmp_path / "library", tmp_path / "two.mp4")
    snapshot = Snapshot.open(tmp_path / "library")
    scores, rows = snapshot.search(text_embedding("red")[None], 10)
    assert rows.tolist() == [[1, 0]]
    red = colour_embedding("red")
    assert scores[0, 0] == pytest.approx(float(text_embedding("red") @ red), abs=1e-2)
    second, first = snapshot.segments(rows[0])
    assert (first.start_seconds, first.end_seconds) == pytest.approx((0, 32))
    assert (second.start_seconds, second.end_seconds) == pytest.approx((32, 64))
    middles = 32 + 2 * (np.arange(16) + 0.5)
    assert np.abs(second.frame_pts_seconds - middles).max() <= 0.25
    assert second.frame_salience.shape == (16, bundle.manifest.salience_dim)
    assert np.abs(second.frame_salience - salience(red)).max() < 0.02
    video = snapshot.video(second.video_id)
    assert video is not None
    assert (video.title, video.width, video.height, video.num_segments) == ("Two parts", 64, 48, 2)
    thumbnail = snapshot.thumbnail(second.frame_ids[3])
    assert thumbnail is not None
    assert _mean_colour(thumbnail, tmp_path) == pytest.approx(COLOURS["red"], abs=12)
    assert snapshot.thumbnail(second.frame_ids[3][:-2] + "16") is None
    assert snapshot.thumbnail("no-such-frame") is None


def _mean_colour(jpeg: bytes, folder: Path) -> list[float]:
    (folder / "thumbnail.jpg").write_bytes(jpeg)
    with Image.open(folder / "thumbnail.jpg") as image:
        return [float(level) for level in np.asarray(image).mean(axis=(0, 1))]


def test_mixed_segments_join_their_frames(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "half.mp4", parts=[("green", 4.0), ("black", 4.0)])
    index(bundle, tmp_path / "library", tmp_path / "half.mp4")
    snapshot = Snapshot.open(tmp_path / "library")
    frames = np.stack([colour_embedding("green")] * 8 + [colour_embedding("black")] * 8)[None]
    expected = segment_embedding(frames, np.ones((1, 16), bool))[0]
    vectors = snapshot.index.vectors(np.array([0]))
    assert vectors is not None
    assert vectors[0] == pytest.approx(expected, abs=0.02)


def test_thumbnails_have_at_most_320_pixels_on_a_side(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "tall.mp4", parts=[("cyan", 0.3)], size=(360, 640))
    index(bundle, tmp_path / "library", tmp_path / "tall.mp4")
    snapshot = Snapshot.open(tmp_path / "library")
    jpeg = snapshot.thumbnail(snapshot.segments([0])[0].frame_ids[0])
    assert jpeg is not None
    (tmp_path / "thumbnail.jpg").write_bytes(jpeg)
    with Image.open(tmp_path / "thumbnail.jpg") as image:
        assert image.size == (180, 320)
        assert image.format == "JPEG"


def test_unchanged_files_are_passed_over_and_changed_ones_replaced(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    make_video(media / "a.mp4", parts=[("red", 1.0)])
    make_video(media / "b.mp4", parts=[("green", 1.0)])
    index(bundle, library, media)
    again = index(bundle, library, media)
    assert (again.unchanged, sum(again.verdicts.values()), again.published) == (2, 0, False)
    assert again.snapshot == 1

    os.utime(media / "a.mp4", (1, 1))
    touched = index(bundle, library, media)
    assert (touched.unchanged, sum(touched.verdicts.values())) == (2, 0)
    assert index(bundle, library, media).published is False

    make_video(media / "b.mp4", parts=[("blue", 40.0)], fps=2)
    changed = index(bundle, library, media)
    assert (changed.unchanged, changed.verdicts) == (1, {"ok": 1})
    snapshot = Snapshot.open(library)
    assert (snapshot.num_videos, snapshot.num_segments) == (2, 3)
    assert best_path(snapshot, "blue") == str(media / "b.mp4")
    scores, _ = snapshot.search(text_embedding("green")[None], 3)
    assert scores.max() < 0.5
    assert verify_library(library).ok


def test_a_changed_file_of_the_same_size_and_an_old_time_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    clip, library = tmp_path / "a.mp4", tmp_path / "library"
    make_video(clip, parts=[("red", 1.0)])
    index(bundle, library, clip)
    data = bytearray(clip.read_bytes())
    data[-1] ^= 1
    clip.write_bytes(data)
    os.utime(clip, (5, 5))
    assert sum(index(bundle, library, clip).verdicts.values()) == 1


def test_times_that_no_clock_shows_are_indexed_and_compared(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    # The year 2399 lies beyond 64 bits of nanoseconds; before 1970, times are negative.
    for name, seconds in (
        ("far.mp4", 13_537_929_600),
        ("farther.mp4", 13_537_929_601),
        ("old.mp4", -(10**9)),
    ):
        os.utime(make_video(media / name, parts=[("red", 0.5)]), (seconds, seconds))
    assert index(bundle, library, media).verdicts == {"ok": 3}
    assert index(bundle, library, media).published is False
    os.utime(media / "far.mp4", (13_537_929_602,) * 2)
    again = index(bundle, library, media)
    assert (again.unchanged, again.published) == (3, True)
    assert index(bundle, library, media).published is False
    assert verify_library(library).ok


def test_prune_removes_what_is_gone_below_the_given_paths_only(bundle: Bundle, tmp_path: Path) -> None:
    library = tmp_path / "library"
    for name in ("here/a.mp4", "here/b.mp4", "there/c.mp4"):
        make_video(tmp_path / name, parts=[("red", 0.5)])
    index(bundle, library, tmp_path / "here", tmp_path / "there")
    (tmp_path / "here/b.mp4").rename(tmp_path / "here/renamed.mp4")
    (tmp_path / "there/c.mp4").unlink()

    (tmp_path / "here/a.mp4").unlink()

    kept = index(bundle, library, tmp_path / "here")
    assert (kept.recognised, kept.moved, kept.verdicts) == (1, 1, {})
    assert (kept.vanished, kept.removed, kept.num_videos) == (1, 0, 3)
    pruned = index(bundle, library, tmp_path / "here", prune=True)
    assert (pruned.vanished, pruned.removed, pruned.num_videos) == (0, 1, 2)
    names = [Path(video.path).name for video in Snapshot.open(library).videos(0, 10)]
    assert names == ["renamed.mp4", "c.mp4"]
    assert index(bundle, library, tmp_path, prune=True).num_videos == 1
    assert verify_library(library).ok


def test_prune_does_not_empty_a_folder_whose_disk_may_not_be_mounted(bundle: Bundle, tmp_path: Path) -> None:
    library, media = tmp_path / "library", tmp_path / "media"
    for name in ("a.mp4", "below/b.mp4"):
        make_video(media / name, parts=[("red", 0.5)])
    make_video(tmp_path / "other/c.mp4", parts=[("blue", 0.5)])
    index(bundle, library, media, tmp_path / "other")
    media.rename(tmp_path / "unmounted")
    media.mkdir()
    (media / "lost+found").mkdir()
    assert index(bundle, library, media, tmp_path / "other").vanished == 2
    for paths in ([media], [media, tmp_path / "other"], [tmp_path / "other", media]):
        with pytest.raises(InputError, match=r"no video is left in .*media, .* the 2 .*`prune_empty`"):
            index(bundle, library, *paths, prune=True)
    assert Snapshot.open(library).num_videos == 3
    # A folder that the library knows nothing of may be empty, and so may one below a folder that is not.
    (tmp_path / "new").mkdir()
    assert index(bundle, library, tmp_path / "new", prune=True).removed == 0
    emptied = index(bundle, library, media, prune=True, prune_empty=True)
    assert (emptied.removed, emptied.num_videos) == (2, 1)


def test_what_a_new_rule_leaves_out_goes_as_what_is_gone_does(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    for name, colour in (("a.mp4", "red"), ("drafts/b.mp4", "green"), ("c.mp4", "blue")):
        make_video(media / name, parts=[(colour, 0.5)])
    assert index(bundle, library, media).verdicts == {"ok": 3}
    (media / ".reelfindignore").write_text("drafts/\n")
    summary = index(bundle, library, media, exclude=("c.*",))
    assert (summary.unchanged, summary.left_out, summary.num_videos) == (1, 2, 3)
    assert summary.passed_over.total() == 2
    summary = index(bundle, library, media, prune=True)
    assert (summary.unchanged, summary.removed, summary.num_videos) == (2, 1, 2)
    assert summary.vanished == 0
    assert index(bundle, library, media / "drafts/b.mp4").verdicts == {"ok": 1}


def test_copies_are_one_video_with_several_places(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.5)])
    shutil.copy(tmp_path / "media/a.mp4", tmp_path / "media/copy.mp4")
    (tmp_path / "media/link.mp4").symlink_to("a.mp4")
    index(bundle, tmp_path / "library", tmp_path / "media", tmp_path / "media/a.mp4")
    (video,) = Snapshot.open(tmp_path / "library").videos(0, 10)
    assert [file.path.name for file in video.files] == ["a.mp4", "copy.mp4"]


def test_strange_names_are_indexed(bundle: Bundle, tmp_path: Path) -> None:
    names = [b"two words.mp4", "Привет.mp4".encode(), "🎬 #1 %20 'q'.mp4".encode(), b"bad\xff.mp4"]
    make_video(tmp_path / "clip.mp4", parts=[("red", 0.3)])
    (tmp_path / "media").mkdir()
    for name in names:
        distinct_copy(tmp_path / "clip.mp4", tmp_path / "media" / os.fsdecode(name))
    summary = index(bundle, tmp_path / "library", tmp_path / "media")
    assert summary.verdicts == {"ok": 4}
    videos = Snapshot.open(tmp_path / "library").videos(0, 10)
    assert {os.fsencode(video.file.name) for video in videos} == set(names)
    for video in videos:
        assert video.file.exists()
        video.path.encode("utf-8")


def test_bad_files_get_verdicts_and_end_nothing(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    bad = make_corrupt_files(media)
    make_audio(media / "sound.mp4")
    make_video(media / "one frame.mp4", parts=[("blue", 0.1)])
    make_video(media / "zebra.mp4", parts=[("red", 1.0)])
    summary = index(bundle, library, media)
    snapshot = Snapshot.open(library)
    verdicts = {video.file.name: video.verdict for video in snapshot.videos(0, 20)}
    assert verdicts == {
        bad["empty"].name: "corrupt",
        bad["text"].name: "unsupported",
        bad["noise"].name: "corrupt",
        bad["header_only"].name: "corrupt",
        bad["truncated"].name: "partial",
        "sound.mp4": "unsupported",
        "one frame.mp4": "ok",
        "zebra.mp4": "ok",
    }
    assert all(failure.reason for failure in summary.failures)
    assert all(video.reason for video in snapshot.videos(0, 20) if video.verdict != "ok")
    assert snapshot.count_videos("corrupt") == 3
    assert {video.num_segments for video in snapshot.videos(0, 20, "corrupt")} == {0}
    assert snapshot.num_videos == 3
    assert best_path(snapshot, "blue") == str(media / "one frame.mp4")

    again = index(bundle, library, media)
    assert (again.unchanged, again.failed_before) == (8, 5)
    retried = index(bundle, library, media, retry_failed=True)
    assert sum(retried.verdicts.values()) == 5
    make_video(bad["empty"], parts=[("green", 0.5)])
    assert index(bundle, library, media).verdicts == {"ok": 1}


def test_a_good_file_that_goes_bad_loses_its_segments(bundle: Bundle, tmp_path: Path) -> None:
    clip, library = tmp_path / "a.mp4", tmp_path / "library"
    make_video(clip, parts=[("red", 1.0)])
    index(bundle, library, clip)
    clip.write_bytes(b"")
    assert index(bundle, library, clip).verdicts == {"corrupt": 1}
    snapshot = Snapshot.open(library)
    assert (snapshot.num_videos, snapshot.num_segments, snapshot.count_videos()) == (0, 0, 1)
    assert snapshot.search(text_embedding("red")[None], 5)[1].shape == (1, 0)


def test_a_folder_without_videos_makes_no_library(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    summary = index(bundle, tmp_path / "library", tmp_path / "media")
    assert (summary.files, summary.snapshot, summary.searchable) == (0, None, 0)
    assert not (tmp_path / "library").exists()


def test_a_missing_path_is_refused_before_anything_is_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nope"):
        index(bundle, tmp_path / "library", tmp_path / "nope")
    assert not (tmp_path / "library").exists()


def test_decord_reads_what_pyav_reads(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    make_video(tmp_path / "a.mp4", parts=[("red", 2.0), ("blue", 2.0)])
    for decoder in ("pyav", "decord"):
        index(bundle, tmp_path / decoder, tmp_path / "a.mp4", decoder=decoder)
    left, right = (Snapshot.open(tmp_path / decoder) for decoder in ("pyav", "decord"))
    vectors = [snapshot.index.vectors(np.array([0])) for snapshot in (left, right)]
    assert vectors[0] == pytest.approx(vectors[1], abs=0.02)
    left_segment, right_segment = left.segments([0])[0], right.segments([0])[0]
    assert left_segment.frame_pts_seconds == pytest.approx(right_segment.frame_pts_seconds)


def test_a_decoder_that_is_not_installed_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", parts=[("red", 0.3)])
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(InputError, match=r"pip install .*decord2"):
        index(bundle, tmp_path / "library", tmp_path / "a.mp4", decoder="decord")
    assert not (tmp_path / "library").exists()


def test_tables_belong_to_their_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """With another bundle a published library gets a generation; what was never published has its owner."""
    make_video(tmp_path / "a.mp4", parts=[("red", 0.5)])
    index(bundle, tmp_path / "library", tmp_path / "a.mp4")
    other = Bundle.open(make_toy_bundle(tmp_path / "other", name="other"))
    (tmp_path / "library" / "CURRENT").unlink()
    with pytest.raises(LibraryError, match=r"made with the bundle 'toy'.*not with 'other'"):
        index(other, tmp_path / "library", tmp_path / "a.mp4")
    assert index(bundle, tmp_path / "library", tmp_path / "a.mp4").unchanged == 1


def test_a_folder_of_other_things_is_not_taken_for_a_library(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.5)])
    with pytest.raises(LibraryError, match="not a library and not empty"):
        index(bundle, tmp_path / "media", tmp_path / "media")
    assert sorted(p.name for p in (tmp_path / "media").iterdir()) == ["a.mp4"]


def test_stopping_publishes_what_is_done_and_the_next_run_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    for i in range(6):
        make_video(tmp_path / f"media/{i}.mp4", parts=[("red", 0.5)])
    stop = threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, FileDone):
            stop.set()

    options = IndexOptions(workers=0)
    summary = index_paths([tmp_path / "media"], tmp_path / "library", bundle, options, on_event, stop)
    assert summary.interrupted
    assert 1 <= summary.num_videos < 6
    assert verify_library(tmp_path / "library").ok
    rest = index(bundle, tmp_path / "library", tmp_path / "media")
    assert rest.unchanged == summary.num_videos
    assert rest.num_videos == 6


def test_a_long_run_publishes_on_the_way(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.sink._PUBLISH_SHARE", 0)
    for i in range(3):
        make_video(tmp_path / f"media/{i}.mp4", parts=[("red", 0.5)])
    seen: list[tuple[int, int]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Published):
            seen.append((event.number, Snapshot.open(tmp_path / "library").num_videos))

    options = IndexOptions(workers=0, publish_seconds=0.0, keep_snapshots=2, keep_seconds=0.0)
    index_paths([tmp_path / "media"], tmp_path / "library", bundle, options, on_event)
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert sorted(p.name for p in (tmp_path / "library/snapshots").iterdir()) == ["2", "3"]
    assert verify_library(tmp_path / "library").ok


def test_a_long_video_goes_to_disk_while_it_is_read(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.library.writer._SPILL_SEGMENTS", 2)
    colours = list(COLOURS)[:5]
    make_video(tmp_path / "media/long.mp4", parts=[(c, 32.0) for c in colours], fps=1)
    make_video(tmp_path / "media/short.mp4", parts=[("black", 1.0)])
    index(bundle, tmp_path / "library", tmp_path / "media", batch_frames=1, publish_seconds=0.0)
    snapshot = Snapshot.open(tmp_path / "library")
    assert snapshot.num_segments == 6
    for i, colour in enumerate(colours):
        _, rows = snapshot.search(text_embedding(colour)[None], 1)
        segment = snapshot.segments(rows[0])[0]
        assert segment.segment_index == i
        thumbnail = snapshot.thumbnail(segment.frame_ids[0])
        assert thumbnail is not None
        assert _mean_colour(thumbnail, tmp_path) == pytest.approx(COLOURS[colour], abs=12)
    assert verify_library(tmp_path / "library").ok


@pytest.mark.parametrize("other", [{"batch_frames": 1000}, {"batch_frames": 1, "encoders": 4}])
def test_batches_and_encoding_threads_change_nothing(
    bundle: Bundle, tmp_path: Path, other: dict[str, int]
) -> None:
    for i, colour in enumerate(COLOURS):
        make_video(tmp_path / f"media/{i}.mp4", parts=[(colour, 0.2 * (i + 1))])
    index(bundle, tmp_path / "one", tmp_path / "media", batch_frames=1)
    index(bundle, tmp_path / "many", tmp_path / "media", **other)
    one, many = Snapshot.open(tmp_path / "one"), Snapshot.open(tmp_path / "many")
    assert one.num_segments == many.num_segments == 8
    for row in range(8):
        left = one.segments([row])[0]
        twin = int(many.segment_rows(left.video_id)[0])
        vectors = one.index.vectors(np.array([row])), many.index.vectors(np.array([twin]))
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
        assert np.array_equal(left.frame_salience, many.segments([twin])[0].frame_salience)
