"""A curated snapshot lacks the excluded videos everywhere, and has what users say of the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.library.annotations import Annotation
from indexer.library.curated import CuratedSnapshot
from indexer.library.curated_names import CuratedNames
from indexer.library.curation import NOTHING, CurationState
from indexer.library.exclusions import Content, Exclusion, Exclusions
from indexer.library.records import VideoRecord
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from tests.support.toy_library import ToyLibrary, make_library

NOW = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("curated"))


@pytest.fixture(scope="module")
def snapshot(toy: ToyLibrary) -> Snapshot:
    return Snapshot.open(toy.library)


def named(snapshot: Snapshot, name: str) -> VideoRecord:
    return next(video for video in snapshot.videos(0, 100) if video.path.endswith(name))


def without(*hidden: VideoRecord, paths: Sequence[bytes] = ()) -> CurationState:
    contents = [
        Exclusion(n, "excluded", NOW, None, None, Content(video.video_id, video.sha256, video.bytes))
        for n, video in enumerate(hidden)
    ]
    rules = [Exclusion(100 + n, "excluded", NOW, None, path) for n, path in enumerate(paths)]
    return CurationState(exclusions=Exclusions([*contents, *rules]))


def state_of(annotations: dict[str, Annotation]) -> CurationState:
    return CurationState(annotations, names=CuratedNames({k: each.line for k, each in annotations.items()}))


def test_without_exclusions_it_is_the_snapshot(snapshot: Snapshot) -> None:
    curated = CuratedSnapshot.of(snapshot)
    assert curated.videos(0, 100) == snapshot.videos(0, 100)
    assert (curated.num_videos, curated.hours) == (snapshot.num_videos, snapshot.hours)


@pytest.mark.parametrize("most", [10_000, 0], ids=["over-fetched", "searched among the others"])
def test_an_excluded_video_is_nowhere(
    toy: ToyLibrary, snapshot: Snapshot, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.library.curated._MOST_OVER_FETCHED", most)
    long, red = named(snapshot, "long.mp4"), named(snapshot, "/red.mp4")
    curated = CuratedSnapshot.of(snapshot, without(long, red))
    others = [v for v in snapshot.videos(0, 100) if v not in (long, red)]
    assert curated.videos(0, 100) == others
    assert curated.videos(1, 1) == others[1:2]
    assert curated.count_videos() == curated.count_videos("ok") == curated.num_videos == len(others)
    assert curated.hours == pytest.approx(sum(video.duration_seconds for video in others) / 3600)
    for video in (long, red):
        assert curated.video(video.video_id) is None
        assert curated.label(video.video_id) is None
        assert not len(curated.segment_rows(video.video_id))
        assert curated.lines_between(video.video_id) == []
        (segment,) = snapshot.segments(snapshot.segment_rows(video.video_id)[:1])
        assert snapshot.thumbnail(segment.frame_ids[0])
        assert curated.thumbnail(segment.frame_ids[0]) is None
    texts = [(line.video_id, line.text) for line in snapshot.find_lines("long red green traffic", 50)]
    kept = [each for each in texts if each[0] not in (long.video_id, red.video_id)]
    assert len(texts) > len(kept) > 0
    for limit in (1, 50):
        found = curated.find_lines("long red green traffic", limit)
        assert [(line.video_id, line.text) for line in found] == kept[:limit]

    queries = Bundle.open(toy.bundle).encode_text(["red", "black", "yellow"]).embedding
    scores, rows = snapshot.search(queries, snapshot.num_segments)
    left_out = [snapshot.catalog.row_of(video.video_id) for video in (long, red)]
    hidden = [row in left_out for row in snapshot.video_rows.tolist()]
    for count in (1, 2, snapshot.num_segments):
        found_scores, found_rows = curated.search(queries, count)
        for query in range(len(queries)):
            keep = [row for row in rows[query].tolist() if not hidden[row]][:count]
            got = found_rows[query]
            assert got[got >= 0].tolist() == keep
            assert np.array_equal(found_scores[query][got >= 0], scores[query][np.isin(rows[query], keep)])
    allowed = np.arange(snapshot.num_segments)
    among = curated.search(queries, 3, allowed=allowed)[1]
    assert np.array_equal(among, curated.search(queries, 3)[1])


def test_a_folder_hides_what_is_in_it(toy: ToyLibrary, snapshot: Snapshot) -> None:
    folder = os.fsencode(toy.media / "shelf")
    curated = CuratedSnapshot.of(snapshot, without(paths=[folder]))
    assert [v.path for v in curated.videos(0, 100)] == [
        v.path for v in snapshot.videos(0, 100) if "/shelf/" not in v.path
    ]
    # The beginning of a name is no folder.
    assert CuratedSnapshot.of(snapshot, without(paths=[folder[:-1]])).count_videos() == 5
    everything = CuratedSnapshot.of(snapshot, without(paths=[os.fsencode(toy.media)]))
    assert everything.videos(0, 100) == []
    query = Bundle.open(toy.bundle).encode_text(["red"]).embedding
    assert (everything.search(query, 3)[1] == -1).all()
    assert everything.find_lines("red", 10) == []


def test_of_a_video_in_two_places_the_one_that_is_not_excluded_is_shown(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"a.mp4": [("red", 1.0)], "z.mp4": [("blue", 1.0)]})
    (toy.media / "attic").mkdir()
    shutil.copy(toy.media / "a.mp4", toy.media / "attic" / "copy.mp4")
    toy.index()
    snapshot = Snapshot.open(toy.library)
    video = named(snapshot, "/a.mp4")
    first, second = video.files
    for hidden, kept in ((first, second), (second, first)):
        curated = CuratedSnapshot.of(snapshot, without(paths=[os.fsencode(hidden.path)]))
        shown, label = curated.video(video.video_id), curated.label(video.video_id)
        assert shown is not None
        assert label is not None
        assert shown.files == (kept,)
        assert label.path == shown.path == str(kept.path)
        assert curated.catalog.shown_paths[1].to_pylist() == sorted(
            [str(kept.path), str(toy.media / "z.mp4")]
        )
        assert curated.num_videos == 2
    both = CuratedSnapshot.of(snapshot, without(paths=[os.fsencode(each.path) for each in video.files]))
    assert [each.file.name for each in both.videos(0, 9)] == ["z.mp4"]
    assert not both.catalog.missing.any()


def test_what_users_say_stands_beside_what_the_file_says(snapshot: Snapshot) -> None:
    traffic, red = named(snapshot, "traffic.mp4"), named(snapshot, "/red.mp4")
    said = Annotation("Crossing at noon", ("Main Street", "2019"), "a note")
    curated = CuratedSnapshot.of(snapshot, state_of({traffic.video_id: said, "gone": Annotation("crossing")}))
    record, label = curated.video(traffic.video_id), curated.label(traffic.video_id)
    assert record is not None
    assert label is not None
    assert (record.title, record.annotation) == ("Traffic lights", said)
    assert (label.title, label.annotation) == ("Traffic lights", said)
    assert record in curated.videos(0, 100)
    assert curated.video(red.video_id) == red
    (line,) = curated.find_lines("crossing main street", 10, least_coverage=0.9)
    assert line.video_id == traffic.video_id
    assert (line.kind, line.by_user) == ("name", True)
    assert line.text == "Crossing at noon · Main Street · 2019"
    assert [line.text[start:end] for start, end in line.matches] == ["Crossing", "Main", "Street"]
    assert line.start_seconds == 0
    assert line.end_seconds == pytest.approx(3.0, abs=0.3)
    assert curated.find_lines("crossing", 10, kinds=["speech"]) == []
    # The title of the file is found as before.
    both = curated.find_lines("traffic lights noon", 10)
    assert {(each.by_user, each.text) for each in both} >= {(True, line.text), (False, "Traffic lights")}
    assert curated.lines_between(traffic.video_id, text="noon")[0].by_user
    mask = np.zeros(curated.catalog.num_rows, np.bool_)
    assert curated.find_lines("crossing", 10, videos=mask) == []
    hidden = CurationState(curated.curation.annotations, without(traffic).exclusions, curated.curation.names)
    assert CuratedSnapshot.of(curated, hidden).find_lines("crossing", 10) == []


def test_a_curated_snapshot_is_curated_anew(snapshot: Snapshot) -> None:
    red = named(snapshot, "/red.mp4")
    hidden = CuratedSnapshot.of(snapshot, without(red))
    exclusions = hidden.curation.exclusions
    again = CuratedSnapshot.of(hidden, CurationState({"x": Annotation("y")}, exclusions))
    assert again.video(red.video_id) is None
    assert again.catalog is hidden.catalog
    shown = CuratedSnapshot.of(again, NOTHING)
    assert shown.video(red.video_id) == red
    assert shown.num_videos == snapshot.num_videos
